"""Arguments of operators, which may be templates that rendered to something else than what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput


def settings_of(value: Any, argument: str, *, required: bool = False) -> dict[str, Any]:
    """The settings that an argument holds; ``None`` is none, unless it is ``required``.

    :raises InvalidInput: it is no mapping, for example a template that was rendered into text.
    """
    if value is None and not required:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"{argument} is {type(value).__name__}, not a mapping.",
            hint="Give a mapping. If it is a template for the whole of it, the DAG needs "
            "render_template_as_native_obj=True.",
        )
    return dict(value)


def texts_of(value: Any, argument: str, *, single: bool = True) -> list[str]:
    """The texts that an argument holds.

    :param single: whether one text may stand for a list of one.
    :raises InvalidInput: it is no list of texts.
    """
    if single and isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise InvalidInput(
            f"{argument} is {brief(value)}, not a list of texts.",
            hint="Give a list. If it is a template for the whole of it, the DAG needs "
            "render_template_as_native_obj=True.",
        )
    return list(value)


def path_argument(value: Any, argument: str) -> Path:
    """The path that an argument holds.

    A template that finds nothing gives empty text or ``None``, which would be the current directory or one of that
    name.

    :raises InvalidInput: it is empty, ``None``, or neither text nor a path.
    """
    if not isinstance(value, str | Path) or str(value).strip() in ("", "None"):
        raise InvalidInput(f"{argument} is {brief(value)}, not a path.", hint="Give the path of a directory or file.")
    return Path(value)


def brief(value: Any) -> str:
    """``value`` as messages quote it."""
    return repr(value)[:200]
