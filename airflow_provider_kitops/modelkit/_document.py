"""A YAML or JSON document as a tree that remembers lines, with scalars as kit's YAML library (yaml.v3) reads them.

That library follows the core schema of YAML 1.2 with remains of 1.1: ``yes`` is text, ``014`` is octal, ``1_000`` is a
number, a date is a time. PyYAML's own loader follows YAML 1.1 and would give other values, hence another digest.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MAX_NODES = 100_000
MAX_DEPTH = 100

_STR = "tag:yaml.org,2002:str"
_TAGS = {
    f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
}
#: Stands for "no tag was written and the scalar is not quoted".
PLAIN = "?"

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]([0-7]+)|0([0-7]*)|([1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LOOSE_UNDERSCORE = re.compile(r"(?<![0-9])_|_(?![0-9])")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"(?:([Tt ])([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[.,]([0-9]+))?(Z|[-+][0-9]{2}:[0-9]{2})?)?"
)


class DocumentError(Exception):
    """The text is not the YAML or JSON that is expected; the message names the line where there is one."""


@dataclass(frozen=True)
class Scalar:
    """``text`` as written and ``value`` as an untyped field gets it (``None``, bool, int, float or str)."""

    text: str
    value: Any
    line: int = 0


@dataclass(frozen=True)
class Entries:
    """A mapping; keys are unique."""

    items: tuple[tuple[Scalar, Node], ...]
    line: int = 0


@dataclass(frozen=True)
class Items:
    """A sequence."""

    items: tuple[Node, ...]
    line: int = 0


Node = Scalar | Entries | Items


def resolve(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first == ".":
        return text if _LOOSE_UNDERSCORE.search(text) else _float(text.replace("_", ""), text)
    if first not in "+-0123456789":
        return text
    time = _timestamp(text)
    if time is not None:
        return time
    plain = text.replace("_", "")
    integer = _INTEGER.fullmatch(plain)
    if integer:
        sign, hexadecimal, binary, octal, zero, decimal = integer.groups()
        value = next(
            int(digits or "0", base)
            for digits, base in ((hexadecimal, 16), (binary, 2), (octal, 8), (zero, 8), (decimal, 10))
            if digits is not None
        )
        # What fits neither a signed nor an unsigned 64-bit integer may still be a float below.
        if (sign != "" and -(2**63) <= (-value if sign == "-" else value) < 2**63) or (sign == "" and value < 2**64):
            return -value if sign == "-" else value
    return _float(plain, text)


def _float(plain: str, text: str) -> float | str:
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        if value not in (float("inf"), float("-inf")):
            return value
    return text


def _timestamp(text: str) -> str | None:
    """RFC 3339 form of a date or time, as Go writes it into JSON."""
    match = _TIME.fullmatch(text)
    if not match:
        return None
    year, month, day = (int(part) for part in match.groups()[:3])
    separator, hour, minute, second, fraction, zone = match.groups()[3:]
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year or 4, month)[1]:
        return None
    if separator is None:
        return f"{year:04}-{month:02}-{day:02}T00:00:00Z"
    if (separator == " ") != (zone is None) or int(hour) > 23 or int(minute) > 59 or int(second) > 59:
        return None
    if zone and zone != "Z" and (int(zone[1:3]) > 24 or int(zone[4:]) > 60):
        return None
    digits = (fraction or "")[:9].rstrip("0")
    zone = "Z" if zone is None or zone[1:] == "00:00" else zone
    return (
        f"{year:04}-{month:02}-{day:02}T{int(hour):02}:{int(minute):02}:{int(second):02}"
        f"{'.' + digits if digits else ''}{zone}"
    )


class Loader(yaml.SafeLoader):
    """Composes nodes only, and marks scalars that were written without quotes and without a tag."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else _STR
        return "tag:yaml.org,2002:map" if kind is yaml.MappingNode else "tag:yaml.org,2002:seq"


def parse_yaml(text: str) -> Node | None:
    """The first document of ``text``, or ``None`` if there is none.

    :raises DocumentError: not YAML, a key defined twice, a tag other than the core schema's, too deep, or too large.
    """
    try:
        loader = Loader(text)
        try:
            node = loader.get_node() if loader.check_node() else None
            return None if node is None else _Converter().convert(node, 0)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"line {mark.line + 1}: {said}" if mark else said) from error
    except yaml.YAMLError as error:
        raise DocumentError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise DocumentError("nested too deeply") from error
    except ValueError as error:
        # PyYAML converts \U escapes without checking their range.
        raise DocumentError(f"an escape in a quoted text is not a character ({error})") from error


class _Converter:
    def __init__(self) -> None:
        self.count = 0

    def convert(self, node: yaml.Node, depth: int) -> Node:
        line = node.start_mark.line + 1
        self.count += 1
        # Aliases are followed, so a short text can stand for an enormous or an endless tree.
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise DocumentError(f"line {line}: nested too deeply, or aliases expand to too much")
        if node.tag != PLAIN and node.tag not in _TAGS:
            raise DocumentError(f"line {line}: the tag {node.tag} has no meaning here")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, line)
        if isinstance(node, yaml.SequenceNode):
            return Items(tuple(self.convert(item, depth + 1) for item in node.value), line)
        return self._entries(node, depth, line)

    def _entries(self, node: yaml.Node, depth: int, line: int) -> Entries:
        own: dict[tuple[type, Any], tuple[Scalar, Node]] = {}
        merged: dict[tuple[type, Any], tuple[Scalar, Node]] = {}
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag == PLAIN and key_node.value == "<<":
                for key, value in self._merged(value_node, depth + 1):
                    merged.setdefault((type(key.value), key.value), (key, value))
                continue
            new = self.convert(key_node, depth + 1)
            if not isinstance(new, Scalar):
                raise DocumentError(f"line {new.line}: a key must be a single value")
            identity = (type(new.value), new.value)
            if identity in own:
                first = own[identity][0].line
                raise DocumentError(f"line {new.line}: the key {new.text} is already defined at line {first}")
            own[identity] = (new, self.convert(value_node, depth + 1))
        return Entries(tuple({**merged, **own}.values()), line)

    def _merged(self, node: yaml.Node, depth: int) -> Iterator[tuple[Scalar, Node]]:
        value = self.convert(node, depth)
        for item in value.items if isinstance(value, Items) else (value,):
            if not isinstance(item, Entries):
                raise DocumentError(f"line {node.start_mark.line + 1}: << takes a mapping or a list of mappings")
            yield from item.items


def _scalar(node: yaml.ScalarNode, line: int) -> Scalar:
    text = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        # JSON writes characters beyond the basic plane as two escapes.
        try:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeError as error:
            raise DocumentError(f"line {line}: half of a surrogate pair is not a character") from error
    if node.tag == PLAIN:
        return Scalar(text, resolve(text), line)
    kind = _TAGS[node.tag]
    if kind == "str":
        return Scalar(text, text, line)
    value = resolve(text)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wanted = {"int": int, "float": float, "bool": bool, "null": type(None), "timestamp": str}.get(kind)
    if wanted is None or type(value) is not wanted or (kind == "timestamp" and _timestamp(text) is None):
        raise DocumentError(f"line {line}: {text!r} cannot be read as {kind}")
    return Scalar(text, value, line)


def from_json(value: Any) -> Node:
    """The tree of a parsed JSON value; lines are 0."""
    if isinstance(value, dict):
        return Entries(tuple((Scalar(key, key), from_json(item)) for key, item in value.items()))
    if isinstance(value, list):
        return Items(tuple(from_json(item) for item in value))
    return Scalar("" if value is None else str(value), value)
