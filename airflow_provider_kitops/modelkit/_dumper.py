"""Writes YAML that kit's YAML library (yaml.v3) and ``_document`` read back as it was."""

from __future__ import annotations

from typing import Any

import yaml

from airflow_provider_kitops.modelkit import _document, _gojson


def dump(value: Any, dumper: type[Dumper] | None = None, *, flow: bool = False) -> str:
    """``value`` as a YAML document, in the order of its keys, and with no line broken.

    :param flow: all collections in brackets and braces.
    """
    return str(
        yaml.dump(
            value, Dumper=dumper or Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=2**31
        )
    )


class FlowList(list[Any]):
    """A list that YAML shows on one line."""


#: Text that other YAML readers take for booleans.
_OTHERS_BOOLEANS = {"y", "n", "yes", "no", "on", "off"}


class Dumper(yaml.SafeDumper):
    """Quotes what ``_document.resolve`` would not read back as text, and indents lists below their key."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is not yaml.ScalarNode:
            return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]
        found = _document.resolve(value) if implicit[0] else value
        if isinstance(found, str):
            # A time comes back as text, but as another text.
            plain = found == value and not (implicit[0] and (value.lower() in _OTHERS_BOOLEANS or value in ("<<", "=")))
            return f"tag:yaml.org,2002:{'str' if plain else 'timestamp'}"
        names = {bool: "bool", int: "int", float: "float"}
        return f"tag:yaml.org,2002:{names.get(type(found), 'null')}"

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float_node(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = _gojson.number(value)
    if text == "-0":
        text = "-0.0"  # no integer has this sign
    # Digits alone are an integer, unless they are more than 64 bits hold.
    kind = "int" if isinstance(_document.resolve(text), int) else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", text)


def _text_node(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    if any(other in value for other in "\r\x85\u2028\u2029"):
        # Line breaks to YAML 1.1, which other styles would fold or turn into a plain one.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _flow_node(dumper: yaml.SafeDumper, value: FlowList) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)


Dumper.add_representer(float, _float_node)
Dumper.add_representer(str, _text_node)
Dumper.add_representer(FlowList, _flow_node)
