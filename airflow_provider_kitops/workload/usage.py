"""What a program answers to ``--help``: how it is called, and every setting with its type, default and meaning."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from airflow_provider_kitops.workload.spec import CHECKPOINTS, CONFIG, DIRECTORIES, INPUTS, OUTPUT

_KINDS = {int: "INTEGER", float: "NUMBER", bool: "true|false", str: "TEXT"}
_VARIABLES = {
    INPUTS: "holds a directory for each input, by its name",
    CONFIG: "may hold config.yaml (or config.yml, config.json)",
    OUTPUT: "where the result is written",
    CHECKPOINTS: "what lets a run that was killed go on",
}


@dataclass(frozen=True)
class Usage:
    """What is told about a program.

    :param program: its module's name.
    :param about: what it does.
    :param settings: the model of its settings.
    """

    program: str
    about: str
    settings: type[BaseModel]

    def __str__(self) -> str:
        about = self.about.strip().replace("``", "")
        width = min(shutil.get_terminal_size((100, 24)).columns, 120) - 2
        lines = [
            f"usage: python -m {self.program} [--config FILE] [--NAME VALUE ...]",
            "",
            about[:1].upper() + about[1:],
            "",
            "Settings. A flag wins over the config file, the config file over the default:",
        ]
        meanings = dict(_meanings(self.settings))
        for name, field in self.settings.model_fields.items():
            default = "not set" if field.default is None else _written(field.default)
            lines += ["", f"  --{name.replace('_', '-')} {_kind(field.annotation)}  (default: {default})"]
            lines += _indented(meanings.get(name, ""), width)
        lines += [
            "",
            "  --config FILE",
            *_indented(f"read this file instead of ${CONFIG}/config.yaml; there, names have _ for -.", width),
            "",
            "Environment variables, and what they are where they are not set:",
        ]
        for name, directory in DIRECTORIES.items():
            lines += ["", f"  {name}  (default: {directory})", *_indented(_VARIABLES[name], width)]
        return "\n".join(lines)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the command line wants the usage and nothing else."""
    return any(each in ("-h", "--help") for each in arguments)


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), [each for each in get_args(annotation) if each is not type(None)]
    if origin is Literal:
        return "|".join(str(each) for each in inner)
    if origin in (Union, UnionType):
        return "|".join(_kind(each) for each in inner)
    if origin in (tuple, list):
        return f"{_kind(inner[0])},..."
    return _KINDS.get(annotation, "VALUE")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value or "empty"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _meanings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Each setting with what the docstrings of the model and of those that it is made of say about it."""
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            # A paragraph, or the next entry, ends an entry.
            for entry in re.split(r"\n\s*\n|^\s*(?=:param )", each.__doc__ or "", flags=re.M):
                if found := re.match(r":param ([\w, ]+):(.*)", " ".join(entry.replace("``", "").split())):
                    yield from ((name.strip(), found[2].strip()) for name in found[1].split(","))


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
