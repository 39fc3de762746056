"""What a workload is: ModelKits in, a program with its settings, one ModelKit out (DESIGN "Workload")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.oci.canonical import json_digest
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.tagging import split_tags

#: The directories a program finds, each named by an environment variable; the values are what containers mount.
INPUTS, CONFIG, OUTPUT, CHECKPOINTS = "KITOPS_INPUTS", "KITOPS_CONFIG", "KITOPS_OUTPUT", "KITOPS_CHECKPOINTS"
DIRECTORIES: Mapping[str, str] = {INPUTS: "/in", CONFIG: "/config", OUTPUT: "/out", CHECKPOINTS: "/checkpoints"}

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
_PLACEHOLDER = re.compile(r"\{inputs\.([^{}]*)\}")


def _plain_json(value: dict[str, Any], what: str) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError(f"{what} may not be nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be made of plain JSON values: {error}") from None
    return value


class Resources(BaseModel):
    """What the program needs, in Kubernetes' units; one machine uses only what it has.

    :param cpu: cores, as in ``"2"`` or ``"500m"``.
    :param memory: as in ``"3Gi"``.
    :param gpu: whole devices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str | None = None
    memory: str | None = None
    gpu: int = Field(default=0, ge=0)


class Output(BaseModel):
    """Where the program's output goes, and what it is.

    :param reference: repository, with a tag if one is to be set; never a digest.
    :param kitfile: the Kitfile as a mapping. Its paths are relative to the output directory. In any text
        ``{inputs.NAME}`` stands for the reference of that input, so ``model: {path: "{inputs.base}"}`` names the
        base by digest.
    :param tags: further tags to set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    kitfile: dict[str, Any]
    tags: tuple[str, ...] = ()

    @field_validator("reference")
    @classmethod
    def _no_digest(cls, value: str) -> str:
        if Reference.parse(value).digest:
            raise ValueError("an output is named by repository and tag, its digest is not known before it is made")
        return value

    @field_validator("tags")
    @classmethod
    def _tags(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return split_tags(value)

    @field_validator("kitfile")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _plain_json(value, "a Kitfile")

    @property
    def all_tags(self) -> tuple[str, ...]:
        """The reference's own tag and ``tags``, each once, in this order."""
        own = Reference.parse(self.reference).tag
        return tuple(dict.fromkeys(tag for tag in (own, *self.tags) if tag))


class WorkloadSpec(BaseModel):
    """A program that reads ModelKits and writes one.

    :param inputs: reference by name, each with its digest. The program finds the content of ``inputs[NAME]`` in
        ``$KITOPS_INPUTS/NAME``.
    :param image: container image, by digest. Empty where programs run without containers.
    :param command: program and arguments.
    :param config: the program's settings; it finds them in ``$KITOPS_CONFIG`` as ``config.yaml`` and ``config.json``.
    :param output: where the content of ``$KITOPS_OUTPUT`` goes.
    :param resources: what it needs.
    :param env: further environment variables. They are part of the specification, which becomes part of the result's
        provenance: no place for secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[str, str]
    image: str = ""
    command: tuple[str, ...] = Field(min_length=1)
    config: dict[str, Any] = Field(default_factory=dict)
    output: Output
    resources: Resources = Field(default_factory=Resources)
    env: dict[str, str] = Field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """The specification made of ``fields``.

        :raises InvalidInput: naming every field that cannot be used and why.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            # Never the values: env should hold no secrets, but may.
            raise InvalidInput(f"Not a workload specification: {problems(error, cls, 'specification')}.") from None

    @field_validator("inputs")
    @classmethod
    def _pinned(cls, value: dict[str, str]) -> dict[str, str]:
        for name, reference in value.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"the input name {name!r} is not made of a-z, 0-9, _ and -")
            if not Reference.parse(reference).digest:
                raise ValueError(f"the input {name!r} is {reference!r}, which has no digest: resolve the tag first")
        return value

    @field_validator("image")
    @classmethod
    def _reference(cls, value: str) -> str:
        return str(Reference.parse(value)) if value else value

    @field_validator("command")
    @classmethod
    def _can_be_started(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in each for each in value):
            raise ValueError("a program's arguments cannot hold a NUL character")
        return value

    @field_validator("env", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name, text in value.items():
                kind = type(text)
                if kind in (bool, int, float):
                    raise ValueError(f"the value of {name} is of type {kind.__name__}, not text: put it in quotes")
        return value

    @field_validator("env")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not name or "=" in name or "\0" in name + text:
                raise ValueError(f"the variable {name!r} cannot be set: a name is not empty and holds no '=', no NUL")
        if taken := sorted(set(value) & set(DIRECTORIES)):
            raise ValueError(f"{', '.join(taken)} are set by the runner")
        return value

    @field_validator("config")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _plain_json(value, "settings")

    @property
    def digest(self) -> str:
        """Digest of the specification's canonical JSON: the same work, however the mapping was ordered."""
        return json_digest(self.model_dump(mode="json"))

    @property
    def config_digest(self) -> str:
        """Digest of the settings' canonical JSON."""
        return json_digest(self.config)

    def kitfile(self) -> dict[str, Any]:
        """The output's Kitfile with its placeholders filled in.

        :raises InvalidInput: a placeholder names no input.
        """

        def fill(value: Any) -> Any:
            if isinstance(value, str):
                return _PLACEHOLDER.sub(reference, value)
            if isinstance(value, dict):
                return {key: fill(each) for key, each in value.items()}
            if isinstance(value, list | tuple):
                return [fill(each) for each in value]
            return value

        def reference(match: re.Match[str]) -> str:
            try:
                return self.inputs[match[1]]
            except KeyError:
                raise InvalidInput(
                    f"The output's Kitfile names {match[0]}, but there is no such input.",
                    hint=f"The inputs are: {', '.join(sorted(self.inputs)) or 'none'}.",
                ) from None

        filled: dict[str, Any] = fill(self.output.kitfile)
        return filled
