"""CNCF ModelPacks as ModelKits and back (modelpack/model-spec: docs/spec.md, docs/config.md, docs/annotations.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.modelkit import _gojson
from airflow_provider_kitops.modelkit.kitfile import (
    Code,
    Dataset,
    Docs,
    Kitfile,
    Model,
    ModelPart,
    Package,
    parse_config,
)
from airflow_provider_kitops.modelkit.manifest import FILE_PATH, KITFILE, TITLE, Manifest
from airflow_provider_kitops.oci.descriptor import Descriptor, is_digest
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed


class _Section(BaseModel):
    # Later versions may know more; what is read here must have the right type.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Descriptor(_Section):
    name: str = ""
    title: str = ""
    version: str = ""
    description: str = ""
    licenses: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()


class _ModelFs(_Section):
    type: str = "layers"
    diff_ids: tuple[str, ...] = Field(default=(), alias="diffIds")


class _ModelConfig(_Section):
    architecture: str = ""
    format: str = ""


class _Config(_Section):
    descriptor: _Descriptor = _Descriptor()
    modelfs: _ModelFs = _ModelFs()
    config: _ModelConfig = _ModelConfig()


@dataclass(frozen=True)
class ModelPack:
    """What the config and the annotations of a ModelPack say.

    :param kitfile: its content as a Kitfile.
    :param layers: the layers that a Kitfile has sections for, each with its base type as ``LayerType.base`` names it.
    :param diff_ids: digest before compression, by the layer's digest.
    """

    kitfile: Kitfile
    layers: tuple[tuple[Descriptor, str], ...]
    diff_ids: Mapping[str, str]


def read_modelpack(name: str, manifest: Manifest, config: bytes) -> ModelPack:
    """Read a ModelPack.

    kit stores the Kitfile in an annotation. Of other tools' ModelPacks it is made from the layers' annotations: the
    first weight is the model, further weights and configurations are its parts.

    :param name: what to call it in messages.
    :raises InvalidInput: the config is malformed, or a layer does not say which file it holds.
    :raises InvalidKitfile: the Kitfile in the annotation is malformed.
    :raises VerificationFailed: the config has not one diffId for each layer.
    """
    parsed = _parse(name, config)
    diff_ids = parsed.modelfs.diff_ids
    if len(diff_ids) != len(manifest.layers) or not all(map(is_digest, diff_ids)):
        raise VerificationFailed(f"The config of {name} has not one diffId for each of {len(manifest.layers)} layers.")
    by_layer = {layer.digest: diff_id for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)}
    known = manifest.typed_layers(name)
    stored = manifest.annotations.get(KITFILE, "")
    if stored:
        kitfile, _ = parse_config(stored.encode())
        return ModelPack(kitfile, tuple(known), by_layer)
    seen: set[str] = set()
    for at, (layer, base) in enumerate(known):
        if base == "model" and base in seen:
            known[at] = (layer, "modelpart")
        seen.add(base)
    return ModelPack(_kitfile(name, parsed, known), tuple(known), by_layer)


def modelpack_config(kitfile: Kitfile, diff_ids: Sequence[str], created: str) -> bytes:
    """The config of a ModelPack (``application/vnd.cncf.model.config.v1+json``).

    :param diff_ids: digest of each layer before compression, in the manifest's order.
    :param created: RFC 3339 time, or empty.
    :raises InvalidInput: no layers, which the specification's schema does not allow.
    """
    if not diff_ids:
        raise InvalidInput("A ModelPack needs at least one layer.", hint="Pack a ModelKit, or add files.")
    package, model = kitfile.package, kitfile.model or Model()
    descriptor = {
        "createdAt": created,
        "authors": list(package.authors),
        "name": model.name or package.name,
        "version": package.version or model.version,
        "licenses": sorted({text for text in _licenses(kitfile) if text}),
        "title": package.name,
        "description": package.description or model.description,
    }
    return _gojson.dumps(
        {
            "descriptor": {key: value for key, value in descriptor.items() if value},
            "modelfs": {"type": "layers", "diffIds": list(diff_ids)},
            "config": {"format": model.format} if model.format else {},
        }
    )


def _licenses(kitfile: Kitfile) -> Iterable[str]:
    yield kitfile.package.license
    if kitfile.model:
        yield kitfile.model.license
        yield from (part.license for part in kitfile.model.parts)
    yield from (code.license for code in kitfile.code)
    yield from (dataset.license for dataset in kitfile.datasets)


def _parse(name: str, config: bytes) -> _Config:
    try:
        return _Config.model_validate(_without_nulls(json.loads(config)))
    except ValidationError as error:
        said = problems(error, _Config, "the config")
        raise InvalidInput(f"The config of {name} is no ModelPack's: {said}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The config of {name} is not JSON: {error}.") from error


def _without_nulls(value: Any) -> Any:
    """Go writes an unset list as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _kitfile(name: str, config: _Config, layers: Sequence[tuple[Descriptor, str]]) -> Kitfile:
    paths: dict[str, list[str]] = {}
    for layer, base in layers:
        path = layer.annotations.get(FILE_PATH) or layer.annotations.get(TITLE)
        if not path:
            raise InvalidInput(
                f"The layer {layer.digest} of {name} does not say which file it holds.",
                hint=f"The tool that made it should set the annotation {FILE_PATH}.",
            )
        paths.setdefault(base, []).append(path)
    said, weights = config.descriptor, paths.get("model", [])
    package = Package(
        name=said.name or said.title,
        version=said.version,
        description=said.description,
        license=" AND ".join(said.licenses),
        authors=said.authors,
    )
    model = Model(
        name=said.name,
        path=weights[0] if weights else "",
        format=config.config.format,
        parts=tuple(ModelPart(path=path) for path in paths.get("modelpart", [])),
    )
    return Kitfile(
        package=package,
        model=model if model.path or model.parts else None,
        code=tuple(Code(path=path) for path in paths.get("code", [])),
        datasets=tuple(Dataset(path=path) for path in paths.get("dataset", [])),
        docs=tuple(Docs(path=path) for path in paths.get("docs", [])),
    )
