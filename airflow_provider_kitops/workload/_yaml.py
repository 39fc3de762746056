"""Settings and specifications as YAML, read and written so that no reader takes a text for a number.

Read by the project's own rules (``modelkit._document``: YAML 1.2's core schema, JSON included), under which ``yes`` is
text and ``1e-4`` a number. PyYAML's own loader follows YAML 1.1 and says the opposite of both.
"""

from __future__ import annotations

from typing import Any

import yaml

from airflow_provider_kitops.modelkit._document import DocumentError, Entries, Items, Node, parse_yaml, resolve

#: Where a Kitfile, as a part of a specification, holds JSON values; everywhere else it holds texts.
_PARAMETERS = ("model", "parameters")
_KITFILE = ("output", "kitfile")


def load(text: str | bytes) -> Any:
    """The plain value of the first document; ``None`` if there is none. Times stay the text that they are.

    :raises ValueError: it is neither YAML nor JSON, a key stands twice in a mapping, or it is nested too deeply.
    """
    node = _node(text)
    return None if node is None else _plain(node)


def load_specification(text: str | bytes) -> Any:
    """As ``load``, with the texts of ``output.kitfile`` as they are written: ``version: 1.10`` is no number there.

    :raises ValueError: as ``load``.
    """
    node = _node(text)
    return None if node is None else _specification(node, ())


def dump(value: Any) -> str:
    """``value``, made of plain JSON values, as YAML that readers of YAML 1.1 and of 1.2 read alike."""
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=True)


def _node(text: str | bytes) -> Node | None:
    try:
        return parse_yaml((text.decode() if isinstance(text, bytes) else text).removeprefix("\ufeff"))
    except DocumentError as error:
        raise ValueError(str(error)) from error


def _plain(node: Node, *, times_as_kit: bool = False) -> Any:
    """The node's value; times as the text that they are, or in the form that kit gives them in JSON."""
    if isinstance(node, Items):
        return [_plain(item, times_as_kit=times_as_kit) for item in node.items]
    if isinstance(node, Entries):
        return {key.text: _plain(value, times_as_kit=times_as_kit) for key, value in node.items}
    return node.text if isinstance(node.value, str) and not times_as_kit else node.value


def _specification(node: Node, where: tuple[str, ...]) -> Any:
    """A specification's value, or what is ``where`` in it down to its Kitfile."""
    if where == _KITFILE:
        return _kitfile(node, ())
    if where != _KITFILE[: len(where)] or not isinstance(node, Entries):
        return _plain(node)
    return {key.text: _specification(value, (*where, key.text)) for key, value in node.items}


def _kitfile(node: Node, where: tuple[str, ...]) -> Any:
    if where == _PARAMETERS:
        return _plain(node, times_as_kit=True)  # as a Kitfile's parser reads them
    if isinstance(node, Items):
        return [_kitfile(item, (*where, "")) for item in node.items]
    if isinstance(node, Entries):
        return {key.text: _kitfile(value, (*where, key.text)) for key, value in node.items}
    return None if node.value is None else node.text


class _Dumper(yaml.SafeDumper):
    """Quotes also what only YAML 1.2 takes for something else than a text: ``1e-4`` is a number there."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if resolve(value) != value else None)


_Dumper.add_representer(str, _text)
