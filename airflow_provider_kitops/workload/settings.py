"""Settings of a program: command-line flag over config file over default, all checked by one pydantic model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from airflow_provider_kitops._validation import nearest, problems
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload import _yaml

Settings = TypeVar("Settings", bound=BaseModel)

#: What a text of the command line is not, by pydantic's type of the problem.
_NO = {"float_parsing": "no number", "int_parsing": "no whole number", "bool_parsing": "neither true nor false"}


def load_settings(model: type[Settings], arguments: Sequence[str], directory: Path) -> Settings:
    """The settings of one run. A flag wins over the config file, the config file over the default.

    Every field ``some_name`` of ``model`` has the flag ``--some-name VALUE``; lists are written with commas.
    ``--config FILE`` reads another file than the directory's ``config.yaml`` (or ``config.json``).

    :param arguments: the command line without the program's name.
    :param directory: where the config file is; it may be missing.
    :raises InvalidInput: unknown name (with the nearest known one), value that cannot be used, unreadable file.
    """
    flags = _flags(model, arguments)
    chosen = flags.pop("config", None)
    path = Path(chosen) if chosen is not None else _config_file(directory)
    values = _read(path) if path else {}
    where = str(path) if path else "the command line"
    _known(model, values, where, str)
    try:
        return model.model_validate({**values, **flags})
    except ValidationError as error:
        # What is wrong in the file is told when the command line is right: the flag was written last.
        found = error.errors(include_url=False)
        if wrong := [_of_flag(each) for each in found if each["loc"] and each["loc"][0] in flags]:
            raise InvalidInput(f"{'; '.join(wrong)}.") from None
        said = problems(error, model, "together", show_input=True)
        if path and flags and not found[0]["loc"]:
            where += " and the command line"
        raise InvalidInput(f"Cannot use the settings of {where}: {said}.") from None


def dump_settings(settings: BaseModel, path: Path) -> None:
    """Write the settings with all defaults filled in, as YAML."""
    path.write_text(_yaml.dump(settings.model_dump(mode="json")), encoding="utf-8")


def _config_file(directory: Path) -> Path | None:
    for name in ("config.yaml", "config.yml", "config.json"):
        if (directory / name).is_file():
            return directory / name
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else _yaml.load(text)
    except OSError as error:
        raise InvalidInput(f"Cannot read the config file {path}: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"The config file {path} is no valid {path.suffix[1:].upper()}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidInput(f"The config file {path} holds a {type(values).__name__}, not names with values.")
    return {str(name): value for name, value in values.items()}


def _flags(model: type[BaseModel], arguments: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--"):
            raise InvalidInput(f"Unexpected argument {flag!r}.", hint="Settings are written --name VALUE.")
        name = flag[2:].replace("-", "_")
        if name != "config":
            _known(model, {name: None}, "the command line", _flag)
        if not equals:
            if not rest:
                raise InvalidInput(f"The flag {flag} needs a value.")
            value = rest.pop(0)
        values[name] = _split(model, name, value)
    return values


def _of_flag(problem: ErrorDetails) -> str:
    value, flag = problem["input"], _flag(str(problem["loc"][0]))
    said = _NO.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"{flag} on the command line: {value!r}{' is ' if problem['type'] in _NO else ': '}{said}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _split(model: type[BaseModel], name: str, value: str) -> Any:
    field = model.model_fields.get(name)
    if field is not None and any(kind in str(field.annotation) for kind in ("tuple[", "list[")):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _known(model: type[BaseModel], values: dict[str, Any], where: str, spell: Any) -> None:
    for name in values:
        if name not in model.model_fields:
            near = nearest(name, model.model_fields)
            names = ", ".join(spell(each) for each in sorted(model.model_fields))
            hint = f"Did you mean {spell(near)}?" if near else f"The names are: {names}."
            raise InvalidInput(f"Unknown setting {spell(name)} in {where}.", hint=hint)
