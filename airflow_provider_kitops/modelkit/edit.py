"""Change a Kitfile that people write: what is not changed keeps its place, its form and its comments."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from airflow_provider_kitops.modelkit.fields import parse_path
from airflow_provider_kitops.modelkit.kitfile import parse_kitfile
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidKitfile


def edit_kitfile(text: str, changes: Mapping[str, Any], *, name: str = "Kitfile") -> str:
    """``text`` with some fields set.

    :param changes: value by path, such as ``package.version`` or ``datasets[0].path``; an index one past the end adds
        an entry; ``None`` removes the field or the entry.
    :param name: what to call the Kitfile in messages.
    :raises InvalidInput: a path leads through something that is not there.
    :raises InvalidKitfile: the Kitfile breaks a rule, before or after.
    """
    parse_kitfile(text, name=name)
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 2**31
    indent = re.search(r"^( *)- ", text, re.MULTILINE)
    editor.indent(mapping=2, sequence=4, offset=2) if indent and indent[1] else editor.indent(mapping=2, sequence=2)
    try:
        document = editor.load(text)
    except YAMLError as error:
        raise InvalidKitfile(f"{name} cannot be edited: {' '.join(str(error).split())}") from error
    for path, value in changes.items():
        _set(document, parse_path(path), _quoted(value), path)
    out = io.StringIO()
    editor.dump(document, out)
    edited = out.getvalue()
    parse_kitfile(edited, name=f"{name}, edited,")
    return edited


def _quoted(value: Any) -> Any:
    """``value`` with quotes, and so escapes, around texts with line breaks of YAML 1.1 that are none in 1.2."""
    if isinstance(value, Mapping):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and set("\x85\u2028\u2029") & set(value):
        return DoubleQuotedScalarString(value)
    return value


def _set(document: Any, where: list[str | int], value: Any, path: str) -> None:
    if not where:
        raise InvalidInput("The path of a field to change is empty.")
    *parents, last = where
    place = document
    for at, step in enumerate(parents):
        following = where[at + 1]
        if isinstance(step, str) and isinstance(place, CommentedMap) and place.get(step) is None and value is not None:
            place[step] = CommentedSeq() if isinstance(following, int) else CommentedMap()
        elif isinstance(step, int) and isinstance(place, CommentedSeq) and step == len(place) and value is not None:
            place.append(CommentedMap())
        try:
            place = place[step]
        except (KeyError, IndexError, TypeError) as error:
            raise InvalidInput(f"The Kitfile has no {path}: there is nothing at {step!r}.") from error
    if isinstance(last, int) and isinstance(place, CommentedSeq) and last == len(place) and value is not None:
        place.append(value)
        return
    if isinstance(place, CommentedMap if isinstance(last, str) else CommentedSeq):
        if value is not None:
            if isinstance(last, str) or last < len(place):
                place[last] = value
                return
        elif last in place if isinstance(last, str) else last < len(place):
            del place[last]
            return
    raise InvalidInput(f"The Kitfile has no {path}.")
