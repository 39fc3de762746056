"""Fields of a Kitfile by path: ``.model.parts[0].name``."""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_provider_kitops.modelkit.kitfile import Kitfile
from airflow_provider_kitops.oci.errors import InvalidInput, NotFound

_STEP = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]")


def field_of(kitfile: Kitfile, path: str) -> Any:
    """The value at ``path``, as the config's JSON has it.

    :param path: keys and indexes; empty or ``.`` is the whole Kitfile.
    :raises InvalidInput: it is no path.
    :raises NotFound: the Kitfile has no such field.
    """
    value = json.loads(kitfile.to_config_json())
    for step in parse_path(path):
        there = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if step not in there:
            hint = "It has nothing below there."
            if isinstance(value, dict) and value:
                hint = f"It has {', '.join(value)} there."
            elif isinstance(value, list) and value:
                hint = f"It has a list there, [0] to [{len(value) - 1}]."
            raise NotFound(f"The Kitfile has no {path}.", hint=hint)
        value = value[step]
    return value


def parse_path(path: str) -> list[str | int]:
    """The keys and indexes of a path such as ``.model.parts[0].name``; the dot at the start may be missing.

    :raises InvalidInput: it is no such path.
    """
    found: list[str | int] = []
    position = len(path) if path == "." else 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or (found and match[1] and not match[0].startswith(".")):
            raise InvalidInput(
                f"{path!r} is no path of a field.", hint="Write keys and indexes, as in .model.parts[0].name."
            )
        found.append(match[1] if match[1] else int(match[2]))
        position = match.end()
    return found
