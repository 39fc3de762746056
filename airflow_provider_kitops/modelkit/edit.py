"""Change a Kitfile that people write: what is not changed keeps its value, its place and its comments."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from reprlib import repr as shortened
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import (
    DoubleQuotedScalarString,
    FoldedScalarString,
    LiteralScalarString,
    PlainScalarString,
    SingleQuotedScalarString,
)
from ruamel.yaml.tokens import CommentToken

from airflow_provider_kitops.modelkit import _document, _gojson
from airflow_provider_kitops.modelkit.fields import parse_path, value_at
from airflow_provider_kitops.modelkit.kitfile import Kitfile, parse_config, parse_kitfile
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidKitfile

_BY_HAND = "Edit it by hand."


def edit_kitfile(text: str, changes: Mapping[str, Any], *, name: str = "Kitfile") -> str:
    """``text`` with some fields set, and with no other field changed.

    What stays keeps its value as it is written, its quotes, its anchors, its place and its comments; line endings
    become those of the first line. Indentation, blanks and the lines that a long text is broken into may be set anew.
    What is removed or replaced takes the comments in it along; those above and below it stay.

    :param changes: value by path, such as ``package.version`` or ``datasets[0].path``; an index one past the end adds
        an entry; ``None`` removes the field or the entry. They are made one after another. Numbers and booleans become
        text except in ``parameters``.
    :param name: what to call the Kitfile in messages.
    :raises InvalidInput: a path leads through something that is not there, or a Kitfile has no form for a value.
    :raises InvalidKitfile: the Kitfile breaks a rule, before or after, or something else would change too, as where
        two fields share a value by an alias.
    """
    wanted = json.loads(parse_kitfile(text, name=name).to_config_json(), parse_int=_integer)
    steps = [(path, parse_path(path)) for path in changes]
    values = [_plain(changes[path], path, "parameters" in where) for path, where in steps]
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    breaks = re.search(r"\r?\n", text)
    lines = text.removeprefix(mark).replace("\r\n", "\n")
    if lines.startswith("%"):
        raise InvalidKitfile(f"{name} starts with a YAML directive, which an edit would lose.", hint=_BY_HAND)
    editor = _editor(lines)
    try:
        document = editor.load(lines)
        for (path, where), value in zip(steps, values, strict=True):
            _set(document, where, value, path, wanted)
            _want(wanted, where, value)
        out = io.StringIO()
        editor.dump(document, out)
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise InvalidKitfile(f"{name} cannot be edited: {said}", hint=_BY_HAND) from error
    edited = out.getvalue()
    if not lines.endswith("\n"):
        edited = edited.removesuffix("\n")
    if breaks and breaks[0] == "\r\n":
        edited = edited.replace("\n", "\r\n")
    edited = mark + edited
    _check(parse_kitfile(edited, name=f"{name}, edited,"), wanted, name)
    return edited


class _AsWritten(VersionedResolver):
    """Takes every plain scalar for text, so that it is written as it was read; ``<<`` stays a key."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        return super().resolve(kind, value, (False, False))


#: Texts of many lines, with no comment beside them.
_BLOCKS = (LiteralScalarString, FoldedScalarString)


def _editor(text: str) -> YAML:
    editor = YAML()
    editor.Resolver = _AsWritten
    editor.preserve_quotes = True
    editor.width = 2**31
    if re.match(r"(#.*\n|\s*\n)*---\s", text):
        editor.explicit_start = True
    indent = re.search(r"^( *)- ", text, re.MULTILINE)
    editor.indent(mapping=2, sequence=4, offset=2) if indent and indent[1] else editor.indent(mapping=2, sequence=2)
    return editor


def _integer(text: str) -> int | float:
    """A negative zero is a float, as ``parse_config`` has it."""
    return -0.0 if text == "-0" else int(text)


def _plain(value: Any, path: str, json_value: bool, depth: int = 0) -> Any:
    """``value`` as JSON has it, and with texts alone where a Kitfile takes only texts."""
    if depth > _document.MAX_DEPTH:
        raise InvalidInput(f"The value for {path} is nested too deeply.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"The value for {path} has the key {key!r}, which is no text.")
        return {
            str.__str__(key): _plain(item, path, json_value or key == "parameters", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, path, json_value, depth + 1) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool):
        return value if json_value or value is None else str(value).lower()
    if isinstance(value, int | float):
        value = int(value) if isinstance(value, int) else float(value)
        return value if json_value else str(value)
    raise InvalidInput(
        f"{path} cannot be set to a {type(value).__name__}: a Kitfile has no form for it.", hint="Give it as text."
    )


def _written(value: Any) -> Any:
    """A plain value as the editor is to write it: with quotes where it would be read as something else."""
    if isinstance(value, dict):
        return CommentedMap((_written(key), _written(item)) for key, item in value.items())
    if isinstance(value, list):
        return CommentedSeq(_written(item) for item in value)
    if isinstance(value, str):
        if set("\r\x85\u2028\u2029") & set(value):
            # Line breaks to YAML 1.1, which other styles would fold.
            return DoubleQuotedScalarString(value)
        others = value.lower() in ("y", "n", "yes", "no", "on", "off") or value in ("<<", "=")
        return SingleQuotedScalarString(value) if others or _document.resolve(value) != value else value
    if isinstance(value, float) and not isinstance(value, bool):
        special = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf", "-0.0": "-0.0"}.get(str(value))
        return PlainScalarString(special or _gojson.number(value))
    return PlainScalarString("null" if value is None else str(value).lower())


def _set(document: Any, where: list[str | int], value: Any, path: str, known: Any) -> None:
    if not where:
        raise InvalidInput("The path of a field to change is empty.")
    *parents, last = where
    place = document
    for at, step in enumerate(parents):
        following = where[at + 1]
        if isinstance(step, str) and isinstance(place, CommentedMap) and _empty(place.get(step)) and value is not None:
            place[_key(place, step)] = CommentedSeq() if isinstance(following, int) else CommentedMap()
        elif isinstance(step, int) and isinstance(place, CommentedSeq) and step == len(place) and value is not None:
            place.append(CommentedMap())
        try:
            place = value_at(place, [step])
        except LookupError as error:
            raise _missing(path, where, known) from error
    if isinstance(last, int) and isinstance(place, CommentedSeq) and last == len(place) and value is not None:
        place.append(_written(value))
        return
    if isinstance(place, CommentedMap if isinstance(last, str) else CommentedSeq):
        there = last in place if isinstance(last, str) else last < len(place)
        if value is None and there:
            below = _lines_below(place, last)
            at = list(place).index(last) if isinstance(last, str) else last
            del place[last]
            if not place and parents:
                _put_empty(document, parents, type(place)())
            if at:
                _add_lines(*_end(place, list(place)[at - 1] if isinstance(last, str) else at - 1), below)
            elif parents:
                _add_lines(value_at(document, parents[:-1]), parents[-1], below)
            return
        if value is not None and (there or isinstance(last, str)):
            below = _lines_below(place, last) if there else ""
            stays = there and isinstance(place[last], str) and not isinstance(place[last], _BLOCKS)
            if stays and value not in ({}, []):
                below = ""  # the editor keeps them with what has the same place
            if there and isinstance(place[last], _BLOCKS):
                place.ca.items.pop(last, None)
            if there and value in ({}, []):
                _put_empty(document, where, _written(value))
            else:
                place[_key(place, last) if isinstance(last, str) else last] = _written(value)
            _add_lines(*_end(place, last), below)
            return
    raise _missing(path, where, known)


def _put_empty(document: Any, where: list[str | int], empty: Any) -> None:
    """Put something empty where something was, without the comments between a key and its value.

    The editor would write these before it, and what follows them could not be read.
    """
    *parents, last = where
    parent = value_at(document, parents)
    slot = _slot(parent)
    comments = parent.ca.items.get(last)
    if comments:
        token = comments[slot]
        beside = token.value.partition("\n")[0].strip() if token else ""
        comments[slot:] = [None] * len(comments[slot:])
        if beside:
            comments[slot] = CommentToken(f"{beside}\n", token.start_mark, None)
        if not any(comments):
            del parent.ca.items[last]
    parent[last] = empty


def _slot(place: Any) -> int:
    """Where the editor keeps the comment that follows a value: in a mapping, after those of the key."""
    return 2 if isinstance(place, CommentedMap) else 0


def _end(place: Any, step: str | int) -> tuple[Any, str | int]:
    """The innermost mapping or list that ends where ``place[step]`` ends, and its last key or index."""
    while isinstance(place[step], CommentedMap | CommentedSeq) and place[step] and not place[step].fa.flow_style():
        place = place[step]
        step = list(place)[-1] if isinstance(place, CommentedMap) else len(place) - 1
    return place, step


def _lines_below(place: Any, step: str | int) -> str:
    """The lines of comments below a value, which the editor keeps with the value."""
    holder, last = _end(place, step)
    comments = holder.ca.items.get(last)
    token = comments[_slot(holder)] if comments else None
    if not token:
        return ""
    lines: str = token.value
    return lines.removeprefix("\n") if isinstance(holder[last], _BLOCKS) else lines.partition("\n")[2]


def _add_lines(place: Any, step: str | int, lines: str) -> None:
    """Put lines of comments below a value."""
    if not lines:
        return
    comments = place.ca.items.setdefault(step, [None, None, None, None])
    slot = _slot(place)
    before = comments[slot].value if comments[slot] else "\n"
    mark = comments[slot].start_mark if comments[slot] else CommentMark(0)
    comments[slot] = CommentToken(before + lines, mark, None)


def _empty(value: Any) -> bool:
    """Whether nothing is written after a key, or a null."""
    return value is None or (type(value) in (str, PlainScalarString) and _document.resolve(value) is None)


def _key(place: Any, step: str) -> Any:
    return step if step in place else _written(step)


def _missing(path: str, where: list[str | int], known: Any) -> InvalidInput | InvalidKitfile:
    try:
        value_at(known, where)
    except LookupError:
        return InvalidInput(f"The Kitfile has no {path}.")
    return InvalidKitfile(f"The Kitfile has {path} from a merge key, which cannot be changed there.", hint=_BY_HAND)


def _want(wanted: Any, where: list[str | int], value: Any) -> None:
    """Make the same change in the Kitfile's JSON; what leads nowhere there, is found by ``_check``."""
    *parents, last = where
    place = wanted
    for at, step in enumerate(parents):
        if isinstance(place, dict) and isinstance(step, str):
            if place.get(step) is None:
                place[step] = [] if isinstance(where[at + 1], int) else {}
            place = place[step]
        elif isinstance(place, list) and isinstance(step, int) and step <= len(place):
            if step == len(place):
                place.append({})
            place = place[step]
        else:
            return
    if isinstance(place, dict) and isinstance(last, str):
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    elif isinstance(place, list) and isinstance(last, int):
        place[last : last + 1] = [] if value is None else [value]


def _check(edited: Kitfile, wanted: Any, name: str) -> None:
    asked = json.loads(parse_config(_gojson.dumps(wanted))[0].to_config_json())
    for where, there, should in _differences(json.loads(edited.to_config_json()), asked, ""):
        raise InvalidKitfile(
            f"{name} cannot be edited so that only what was asked for changes: "
            f"{where or 'the whole'} would be {there}, not {should}.",
            hint=_BY_HAND,
        )


def _differences(there: Any, asked: Any, where: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*asked, *there]):
            below = f"{where}.{key}" if where else key
            yield from _differences(there.get(key, _NOTHING), asked.get(key, _NOTHING), below)
    elif isinstance(there, list) and isinstance(asked, list):
        for at in range(max(len(there), len(asked))):
            got, should = (each[at] if at < len(each) else _NOTHING for each in (there, asked))
            yield from _differences(got, should, f"{where}[{at}]")
    elif type(there) is not type(asked) or there != asked:
        yield where, _said(there), _said(asked)


_NOTHING = object()


def _said(value: Any) -> str:
    return "missing" if value is _NOTHING else shortened(value)
