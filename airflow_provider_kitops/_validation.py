"""What pydantic found wrong, in one sentence for people. Beneath all layers: it knows nothing of the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

#: More problems than this are only counted: a document may be somebody else's, and have any number of them.
_MOST = 10
_LONGEST = 60
# As many names are all shown to whoever wrote one that is like none of them.
_FEW = 6


def problems(error: ValidationError, model: type[BaseModel], whole: str, *, show_input: bool = False) -> str:
    """``field: what is wrong; …`` for everything that is wrong; an unknown name with the nearest known one.

    :param model: what was validated; its field names are what an unknown name is compared with.
    :param whole: stands for the field where all of the value is wrong.
    :param show_input: say what the value was. Not where a value may be secret.
    """
    found = error.errors(include_url=False, include_input=show_input, include_context=False)
    said = [_problem(each, model, whole, show_input) for each in found[:_MOST]]
    if len(found) > _MOST:
        said.append(f"and {len(found) - _MOST} more")
    return "; ".join(said)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` was probably meant to be."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return near[0] if near else None


def unknown(name: str, known: Sequence[str]) -> str:
    """That a name is unknown, and what it could have been."""
    near = nearest(name, known)
    if near:
        return f"unknown name (did you mean {near}?)"
    return "unknown name" + (f" (known: {', '.join(known)})" if 0 < len(known) <= _FEW else "")


def _problem(problem: Any, model: type[BaseModel], whole: str, show_input: bool) -> str:
    where = ".".join(str(part)[:_LONGEST] for part in problem["loc"]) or whole
    if problem["type"] == "extra_forbidden":
        return f"{where}: {unknown(str(problem['loc'][-1]), _names(model, problem['loc'][:-1]))}"
    said = f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    if show_input and problem["loc"] and not isinstance(problem["input"], dict):
        said += f" (it is {problem['input']!r})"
    return said


def _names(model: type[BaseModel], place: Iterable[int | str]) -> list[str]:
    """The names that the model at ``place`` inside ``model`` knows; none where there is no model."""
    for part in place:
        field = model.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]
