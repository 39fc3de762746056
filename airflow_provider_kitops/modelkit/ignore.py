"""``.kitignore``: which files of a context stay out of every layer.

The rules are those of ``.dockerignore`` as moby/patternmatcher applies them, not those of ``.gitignore``: patterns are
anchored at the context, a pattern that matches a directory covers all below it, and the last match wins.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from airflow_provider_kitops.modelkit.kitfile import KITFILE_NAMES
from airflow_provider_kitops.oci.disk import storage_errors
from airflow_provider_kitops.oci.errors import InvalidInput

IGNORE_NAME = ".kitignore"

_ANYTHING, _DIRECTORIES, _PART = ".*", "(?:.*/)?", "[^/]*"
_WILDCARDS = (_ANYTHING, _DIRECTORIES, _PART)


class IgnoreRules:
    """An ordered list of patterns.

    :param patterns: patterns as ``read_patterns`` gives them.
    :raises InvalidInput: a pattern is malformed.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for pattern in patterns:
            text = pattern.strip()
            if not text:
                continue
            text = posixpath.normpath(text)
            keep = text.startswith("!")
            text = text[1:] if keep else text
            if not text:
                raise InvalidInput(f"{IGNORE_NAME} holds an illegal pattern: '!' with nothing after it.")
            self._rules.append((keep, re.compile(_expression(text), re.ASCII | re.DOTALL)))
        self._nothing = (False,) * len(self._rules)
        # A walk asks for all files of a directory, one after the other.
        self._covered = functools.lru_cache(maxsize=256)(self._above)

    @property
    def has_exceptions(self) -> bool:
        """Whether some pattern takes files back in, so that ignored directories must still be walked."""
        return any(keep for keep, _ in self._rules)

    def matches(self, path: str) -> bool:
        """Whether ``path`` (relative to the context, with slashes) is ignored, itself or through a parent."""
        directory, slash, _ = path.rpartition("/")
        above = self._covered(directory) if slash else self._nothing
        ignored = False
        for (keep, expression), covered in zip(self._rules, above, strict=True):
            if keep == ignored and (covered or expression.fullmatch(path)):
                ignored = not keep
        return ignored

    def _above(self, directory: str) -> tuple[bool, ...]:
        """For each rule, whether it matches ``directory`` or one above it, and so all that is in it."""
        parent, slash, _ = directory.rpartition("/")
        above = self._covered(parent) if slash else self._nothing
        return tuple(
            covered or expression.fullmatch(directory) is not None
            for (_, expression), covered in zip(self._rules, above, strict=True)
        )


def read_rules(context: Path) -> IgnoreRules:
    """The rules of a context directory; Kitfile and ``.kitignore`` at its root are always ignored.

    :raises InvalidInput: a pattern is malformed, or the file is not UTF-8.
    """
    path = context / IGNORE_NAME
    patterns: list[str] = []
    if path.is_file():
        with storage_errors("read", path):
            data = path.read_bytes()
        try:
            patterns = read_patterns(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{path} is not UTF-8: byte {error.start} cannot be decoded.") from error
    return IgnoreRules([*patterns, *KITFILE_NAMES, IGNORE_NAME])


def read_patterns(text: str) -> list[str]:
    """The patterns of a ``.kitignore``, without comments and empty lines, relative to the context."""
    patterns = []
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        keep = "!" if pattern.startswith("!") else ""
        pattern = pattern.removeprefix("!").strip() if keep else pattern
        if pattern:
            pattern = posixpath.normpath(pattern)
            pattern = pattern.lstrip("/") or "/"
        if keep or pattern:
            patterns.append(keep + pattern)
    return patterns


def _expression(pattern: str) -> str:
    """A regular expression for the whole path."""
    if "**" not in pattern and not set("*?[\\") & set(pattern):
        return re.escape(pattern)
    out: list[str] = []
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*" and pattern.startswith("*", index):
            index += 1
            if pattern.startswith("/", index):
                index += 1
                out.append(_DIRECTORIES if index < len(pattern) else _ANYTHING)
            elif index == len(pattern):
                out.append(_ANYTHING)
            else:
                # "**foo" at the start takes any beginning; elsewhere only whole directories, as the original does.
                out.append(_ANYTHING if not out and not _special(pattern[index:]) else _DIRECTORIES)
        elif character == "*":
            out.append(_PART)
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            text, index = _character_class(pattern, index)
            out.append(text)
        elif character == "\\":
            if index == len(pattern):
                raise InvalidInput(f"{IGNORE_NAME} holds the malformed pattern {pattern!r}: it ends in a backslash.")
            out.append(re.escape(pattern[index]))
            index += 1
        else:
            out.append(re.escape(character))
    return _quick(out)


def _quick(pieces: Sequence[str]) -> str:
    """The expression without the many ways to match the same, which would multiply the time of a match that fails.

    Wildcards that follow their like add nothing. And what stands between two asterisks of one name may as well be found
    at its first place: what comes behind it is left to the second one.
    """
    pieces = [
        piece
        for piece, before in zip(pieces, ["", *pieces], strict=False)
        if piece != before or piece not in _WILDCARDS
    ]
    stars = [at for at, piece in enumerate(pieces) if piece in _WILDCARDS]
    out = list(pieces)
    for at, following in itertools.pairwise(stars):
        # A slash, which a class may match too, would be out of the second one's reach.
        same_name = not any(re.fullmatch(piece, "/") for piece in pieces[at + 1 : following])
        if pieces[at] == pieces[following] == _PART and same_name:
            out[at] = f"(?>{_PART}?"
            out[following - 1] += ")"
    return "".join(out)


def _special(text: str) -> bool:
    return bool(set("*?[\\]") & set(text))


def _character_class(pattern: str, index: int) -> tuple[str, int]:
    """The class that begins before ``index``: ``[^a-z]`` negates, ``[!a]`` does not."""
    malformed = InvalidInput(f"{IGNORE_NAME} holds the malformed pattern {pattern!r}: a [ that is not closed well.")
    out = "["
    if pattern.startswith("^", index):
        out, index = "[^", index + 1
    first = True
    while True:
        if index >= len(pattern):
            raise malformed
        if pattern[index] == "]" and not first:
            return out + "]", index + 1
        first = False
        low, index = _class_member(pattern, index, malformed)
        out += re.escape(low)
        if pattern.startswith("-", index):
            high, index = _class_member(pattern, index + 1, malformed)
            if high < low:
                raise malformed
            out += "-" + re.escape(high)


def _class_member(pattern: str, index: int, malformed: InvalidInput) -> tuple[str, int]:
    if index >= len(pattern) or pattern[index] in "-]":
        raise malformed
    if pattern[index] == "\\":
        index += 1
        if index >= len(pattern):
            raise malformed
    return pattern[index], index + 1
