"""ModelKit indexes: several ModelKits under one name, told apart by labels (kit 1.17; OCI image index).

An index is an OCI image index with an artifact type of its own; each manifest in it carries its labels as a JSON object
``modelMetadata``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kitops.modelkit import _gojson
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import INDEX, Descriptor, are_annotations
from airflow_provider_kitops.oci.errors import InvalidInput, NotFound
from airflow_provider_kitops.oci.target import Target

INDEX_ARTIFACT_TYPE = "application/vnd.kitops.modelkit.index.v1+json"

#: Entries, and characters of the labels of each, that a message shows.
_MAX_LISTED = 20
_MAX_LABELS = 200


@dataclass(frozen=True)
class IndexedModelKit:
    """One ModelKit of an index.

    :param labels: any JSON value by key; text is the usual kind.
    """

    descriptor: Descriptor
    labels: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, wanted: Mapping[str, str]) -> bool:
        """Whether it has all of these labels; a label that is no text is compared in its JSON form."""
        return all(key in self.labels and _text(self.labels[key]) == value for key, value in wanted.items())

    def to_json(self) -> dict[str, Any]:
        """Its ``digest`` and ``labels``, as operators and the command show them."""
        return {"digest": self.descriptor.digest, "labels": dict(self.labels)}


@dataclass(frozen=True)
class ModelKitIndex:
    """A parsed index.

    :param manifest: the JSON object that it is.
    :param length: bytes of that, as stored.
    """

    modelkits: tuple[IndexedModelKit, ...]
    annotations: Mapping[str, str]
    manifest: Mapping[str, Any] = field(repr=False)
    length: int

    @property
    def size(self) -> int:
        """Bytes of the index and of the manifests in it."""
        return self.length + sum(each.descriptor.size for each in self.modelkits)

    @classmethod
    def read(cls, target: Target, descriptor: Descriptor) -> ModelKitIndex:
        """Read an index of ModelKits; nothing that is in it is fetched.

        :raises InvalidInput: it is malformed, or one of other things, such as an image for several machines.
        """
        name = f"{target.name}@{descriptor.digest}"
        found = cls.parse(read(target, descriptor), name)
        if found.manifest.get("artifactType") != INDEX_ARTIFACT_TYPE:
            raise InvalidInput(f"{name} is an index, but not one of ModelKits.")
        return found

    @classmethod
    def parse(cls, data: bytes, name: str) -> ModelKitIndex:
        """Read an index.

        :param name: what to call it in messages.
        :raises InvalidInput: it is no index, or malformed.
        """
        malformed = InvalidInput(f"The index {name} is malformed.")
        try:
            value = json.loads(data, parse_constant=_refused)
        except (ValueError, RecursionError) as error:
            raise malformed from error
        if not is_index(value) or not isinstance(value.get("manifests"), list):
            raise malformed
        if not are_annotations(value.get("annotations")):
            raise malformed
        try:
            _gojson.dumps(value)
        except (InvalidInput, ValueError, RecursionError) as error:
            # Numbers beyond a float's range, or beyond all measure.
            raise malformed from error
        found = []
        for each in value["manifests"]:
            descriptor = Descriptor.from_json(each)
            labels = each.get("modelMetadata") or {}
            if not isinstance(labels, dict):
                raise malformed
            found.append(IndexedModelKit(descriptor, labels))
        return cls(tuple(found), value.get("annotations") or {}, value, len(data))

    def pick(self, labels: Mapping[str, str], name: str) -> IndexedModelKit:
        """The one ModelKit that has all of ``labels``; one that is listed several times is still one.

        :param name: what to call the index in messages.
        :raises NotFound: none has them.
        :raises InvalidInput: several have them.
        """
        found = {each.descriptor.digest: each for each in reversed(self.modelkits) if each.matches(labels)}
        if len(found) == 1:
            return next(iter(found.values()))
        listed = "".join(
            f"\n  * {each.descriptor.digest} {_shortened(_gojson.dumps(dict(each.labels)).decode())}"
            for each in self.modelkits[:_MAX_LISTED]
        )
        if len(self.modelkits) > _MAX_LISTED:
            listed += f"\n  * and {len(self.modelkits) - _MAX_LISTED} more"
        asked = _shortened(", ".join(f"{key}={value}" for key, value in labels.items())) or "no label"
        if not found:
            raise NotFound(f"No ModelKit of the index {name} has {asked}. It holds:{listed}")
        raise InvalidInput(
            f"{len(found)} ModelKits of the index {name} have {asked}. It holds:{listed}",
            hint="Name labels that one alone has, or its digest.",
        )


def is_index(value: Any) -> bool:
    """Whether a parsed manifest is an image index."""
    return isinstance(value, dict) and (value.get("mediaType") == INDEX or "manifests" in value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _gojson.dumps(value).decode()


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LABELS else f"{text[:_MAX_LABELS]}…"


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
