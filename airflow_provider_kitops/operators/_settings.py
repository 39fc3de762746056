"""Settings that stand in the DAG file, checked where the file is read: a typo is told before hours of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_provider_kitops._validation import nearest, problems, unknown
from airflow_provider_kitops.oci.errors import InvalidInput


def check_settings(value: Any, argument: str, task_id: str, model: type[BaseModel]) -> None:
    """See that ``value`` can be the settings of ``model``, as far as can be known before templates are rendered.

    The names in a mapping are no templates, so they are always checked; values only where none of them is a template
    or another task's output. What is no mapping is for the task to tell.

    :raises InvalidInput: a name is unknown, or a value cannot be used.
    """
    if not isinstance(value, Mapping):
        return
    if is_plain(value):
        try:
            model.model_validate(dict(value))
        except ValidationError as error:
            said = problems(error, model, "together")
            raise InvalidInput(f"{argument} of task {task_id} cannot be used: {said}.") from None
        return
    known = list(model.model_fields)
    if said := "; ".join(f"{name}: {unknown(str(name), known)}" for name in value if name not in known):
        raise InvalidInput(f"{argument} of task {task_id} cannot be used: {said}.")


def check_choice(value: Any, argument: str, task_id: str, choices: Sequence[str]) -> None:
    """See that ``value`` is one of ``choices``.

    :raises InvalidInput: it is not.
    """
    if value not in choices:
        near = nearest(str(value), choices)
        raise InvalidInput(
            f"{argument} of task {task_id} is {value!r:.200}" + (f" (did you mean {near}?)." if near else "."),
            hint=f"Use one of {', '.join(choices)}.",
        )


def check_absolute(value: Any, argument: str, task_id: str) -> None:
    """See that a path does not depend on where the worker happens to run. Templates, and no path, are for the task.

    :raises InvalidInput: it is relative.
    """
    if not isinstance(value, str | Path) or not is_plain(str(value)) or str(value).strip() in ("", "None"):
        return
    if not Path(value).is_absolute():
        raise InvalidInput(
            f"{argument} of task {task_id} is {str(value)!r}, which depends on where the worker runs.",
            hint="Give an absolute path.",
        )


def is_plain(value: Any) -> bool:
    """Whether it is known here and now: no template in it, and nothing that another task makes."""
    if isinstance(value, Mapping):
        return all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, str):
        return not any(mark in value for mark in ("{{", "{%", "{#"))
    return value is None or isinstance(value, bool | int | float)
