"""Change a Kitfile that people write: only the text of what is changed is written anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

import yaml

from airflow_provider_kitops.modelkit import _document, _dumper, _gojson
from airflow_provider_kitops.modelkit.fields import parse_path
from airflow_provider_kitops.modelkit.kitfile import Kitfile, parse_config, parse_kitfile
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidKitfile

_BY_HAND = "Edit it by hand."


def edit_kitfile(text: str, changes: Mapping[str, Any], *, name: str = "Kitfile") -> str:
    """``text`` with some fields set, and with no other field changed.

    What stays, stays as it is written, byte for byte. What is removed or replaced takes the comments in it along;
    those above, beside and below it stay.

    :param changes: value by path, such as ``package.version`` or ``datasets[0].path``; an index one past the end adds
        an entry; ``None`` removes the field or the entry. They are made one after another. Numbers and booleans become
        text except in ``parameters``.
    :param name: what to call the Kitfile in messages.
    :raises InvalidInput: a path leads through something that is not there, or a Kitfile has no form for a value.
    :raises InvalidKitfile: the Kitfile breaks a rule, before or after, or something else would change too, as where
        two fields share a value by an alias.
    """
    wanted = json.loads(parse_kitfile(text, name=name).to_config_json(), parse_int=_integer)
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    edited = text.removeprefix(mark)
    for path, given in changes.items():
        where = parse_path(path)
        if not where:
            raise InvalidInput("The path of a field to change is empty.")
        value = _plain(given, path, "parameters" in where)
        try:
            edited = _Page(edited).changed(where, value)
            wanted = _changed(wanted, where, value)
        except LookupError as error:
            raise InvalidInput(f"The Kitfile has no {path}.") from error
        except yaml.YAMLError as error:
            said = " ".join(str(error).split())
            raise InvalidKitfile(f"{path} in {name} cannot be edited: {said}", hint=_BY_HAND) from error
    edited = mark + edited
    _check(parse_kitfile(edited, name=f"{name}, edited,"), wanted, name)
    return edited


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
    # Integers of more than 64 bits are read as floats.
    if isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**64):
        value = int(value) if isinstance(value, int) else float(value)
        return value if json_value else str(value)
    raise InvalidInput(
        f"{path} cannot be set to a {type(value).__name__}: a Kitfile has no form for it.", hint="Give it as text."
    )


def _changed(old: Any, where: list[str | int], value: Any) -> Any:
    """A JSON value with the same change; what leads nowhere there, is found by ``_check``.

    :raises LookupError: an index is beyond the end.
    """
    if not where:
        return value
    step, *rest = where
    removed = value is None and not rest
    if isinstance(step, str):
        entries = dict(old) if isinstance(old, dict) else {}
        before = entries.pop(step, None) if removed else entries.get(step)
        return entries if removed else entries | {step: _changed(before, rest, value)}
    items = list(old) if isinstance(old, list) else []
    if step > len(items):
        raise LookupError(step)
    before = items[step] if step < len(items) else None
    items[step : step + 1] = [] if removed else [_changed(before, rest, value)]
    return items


_ALIAS = "*"
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
#: Blanks, comments, anchors and tags, none of which is given back to find the sign after them.
_GAP = "(?:\\s|#[^\r\n\x85\u2028\u2029]*|[&!]\\S*)*+"
_SIGN = {sign: re.compile(_GAP + sign) for sign in ":-,"}


class _Composer(_document.Loader):
    """Keeps an alias as a node of its own, which has its place in the text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            return yaml.ScalarNode(_ALIAS, event.anchor, event.start_mark, event.end_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class _OneLine(_dumper.Dumper):
    """Writes a text of many lines as one, with escapes."""

    def choose_scalar_style(self) -> str:
        style = str(super().choose_scalar_style())
        return '"' if self.analysis and self.analysis.multiline else style


@dataclass(frozen=True)
class _Element:
    """A key with its value, or an item.

    :param start: where the key or the dash is; in brackets, where the item is.
    :param slot: where the value may begin: after the colon or the dash.
    """

    name: str | int | None
    start: int
    slot: int
    value: yaml.Node


class _Page:
    """The text of a Kitfile, and the places of its nodes (of the first document)."""

    def __init__(self, text: str) -> None:
        self.text = text
        loader = _Composer(text)
        try:
            loader.check_node()
            self.root: yaml.Node | None = loader.get_node()
        finally:
            loader.dispose()

    def changed(self, where: list[str | int], value: Any) -> str:
        """The text with one change.

        :raises LookupError: the path leads nowhere.
        :raises yaml.YAMLError: it leads through an alias.
        """
        if self.root is None:
            raise LookupError(where[0])
        node, rest = self.root, where
        above: tuple[yaml.Node, _Element] | None = None
        while True:
            step, *rest = rest
            elements = self._elements(node, step)
            at = next((at for at, element in enumerate(elements) if element.name == step), len(elements))
            if not rest or at == len(elements) or _empty(elements[at].value):
                break
            above = node, elements[at]
            node = elements[at].value
        if value is None:
            if rest or at == len(elements):
                raise _elsewhere(node, "<<") if any(element.name == "<<" for element in elements) else LookupError(step)
            if len(elements) == 1 and above:
                return self._with(*above, {} if isinstance(step, str) else [])
            return self._without(node, elements, at)
        new = _changed(None, rest, value)
        if at < len(elements):
            return self._with(node, elements[at], new)
        if isinstance(step, int) and step > at:
            raise LookupError(step)
        return self._with_more(node, elements, {step: new} if isinstance(step, str) else [new])

    def _elements(self, node: yaml.Node, step: str | int) -> list[_Element]:
        """What is in a mapping, for a step that is a key, or in a list, for one that is an index."""
        if node.tag == _ALIAS:
            raise _elsewhere(node, f"*{node.value}")
        if not isinstance(node, yaml.MappingNode if isinstance(step, str) else yaml.SequenceNode):
            raise LookupError(step)  # noqa: TRY004 - nothing is there
        found: list[_Element] = []
        end = node.start_mark.index
        for at, item in enumerate(node.value):
            if isinstance(step, str):
                key, value = item
                slot = self._after(":", key.end_mark.index, value.start_mark.index)
                found.append(_Element(None if key.tag == _ALIAS else key.value, key.start_mark.index, slot, value))
            elif _is_block(node):
                slot = self._after("-", end, item.start_mark.index)
                found.append(_Element(at, slot - 1, slot, item))
                end = self._end(item)
            else:
                found.append(_Element(at, item.start_mark.index, item.start_mark.index, item))
        return found

    def _with(self, holder: yaml.Node, element: _Element, value: Any) -> str:
        """The text with another value for one element."""
        text, slot, node = self.text, element.slot, element.value
        start, end = node.start_mark.index, self._end(node)
        if not _is_block(holder):
            return text[:start] + (" " if text[start - 1] == ":" else "") + _in_line(value) + text[end:]
        lines = [_in_line(value)]
        if isinstance(value, dict | list) and value and (_is_block(node) or isinstance(node, yaml.ScalarNode)):
            lines = _lines([value])
            lines[0] = lines[0][2:]
            if isinstance(element.name, str):
                lines = ["", *_lines({"k": value})[1:]]
        stop = self._line_end(end)
        beside = "" if _is_block(node) else text[end:stop]
        if _BREAK.search(text, slot, start):
            first = f" {lines[0]}".rstrip() + text[slot : self._line_end(slot)].rstrip() + beside
        else:
            first = ((text[slot:start] or " ") + lines[0]).rstrip()
            comment = beside.lstrip()
            if comment and not _BREAK.search(text, start, end):
                beside = " " * max(1, stop - slot - len(comment) - len(first)) + comment
            first += beside
        return text[:slot] + self._joined([first, *self._indented(lines[1:], element)]) + text[stop:]

    def _with_more(self, holder: yaml.Node, elements: list[_Element], more: Any) -> str:
        """The text with one more element."""
        end = self._end(elements[-1].value) if elements else holder.end_mark.index - 1
        if _is_block(holder):
            end = self._line_end(end)
            added = self._joined(["", *self._indented(_lines(more), elements[0])])
        else:
            comma = ", " if self.text[end - 1] != ":" else " , "
            added = (comma if elements else "") + _in_line(more)[1:-1]
        return self.text[:end] + added + self.text[end:]

    def _without(self, holder: yaml.Node, elements: list[_Element], at: int) -> str:
        """The text without one element, and without its lines where nothing else is on them."""
        text, start, end = self.text, elements[at].start, self._end(elements[at].value)
        following = elements[at + 1].start if at + 1 < len(elements) else None
        before = self._end(elements[at - 1].value) if at else start
        after = end if _is_block(holder) else self._after(",", end, end)
        stop = self._line_end(after)
        line = start - self._column(start)
        if not text[line:start].strip() and text[after:stop].strip()[:1] in ("", "#"):
            below = _BREAK.match(text, stop)
            return text[:line] + text[below.end() if below else stop :]
        if _is_block(holder):
            after = stop
        if following is not None and not text[after:following].strip():
            after = following
        elif not _is_block(holder) and following is None and "#" not in text[before:start]:
            start, after = before, end
        return text[:start] + text[after:]

    def _after(self, sign: str, place: int, otherwise: int) -> int:
        found = _SIGN[sign].match(self.text, place)
        return found.end() if found else otherwise

    def _end(self, node: yaml.Node) -> int:
        """Where the text of a node ends, without the blanks and comments below it."""
        while _is_block(node):
            node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
        start, end = node.start_mark.index, node.end_mark.index
        return start + len(self.text[start:end].rstrip(" \t\r\n\x85\u2028\u2029"))

    def _line_end(self, place: int) -> int:
        found = _BREAK.search(self.text, place)
        return found.start() if found else len(self.text)

    def _column(self, place: int) -> int:
        return len(_BREAK.split(self.text[:place])[-1])

    def _indented(self, lines: list[str], element: _Element) -> list[str]:
        indent = " " * self._column(element.start)
        return [indent + line for line in lines]

    def _joined(self, lines: list[str]) -> str:
        breaks = _BREAK.search(self.text)
        return (breaks[0] if breaks else "\n").join(lines)


def _elsewhere(node: yaml.Node, sign: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {node.start_mark.line + 1}: what {sign} stands for is written elsewhere.")


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def _empty(node: yaml.Node) -> bool:
    """Whether nothing is written after a key or a dash, or a null."""
    return node.tag == _document.PLAIN and _document.resolve(node.value) is None


def _in_line(value: Any) -> str:
    return _dumper.dump([value], _OneLine, flow=True)[1:-2]


def _lines(value: Any) -> list[str]:
    return _dumper.dump(value, _OneLine).split("\n")[:-1]


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
