"""What differs between two ModelKits: fields of the Kitfile, and layers."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit._reading import read_layer
from airflow_provider_kitops.modelkit.limits import DEFAULT_LIMITS, Budget, Limits
from airflow_provider_kitops.modelkit.manifest import Layer
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.target import Progress, ProgressHook, Target


@dataclass(frozen=True)
class FieldChange:
    """A field of the Kitfile; a side that does not have it is ``None``.

    :param path: such as ``model.parameters.rank`` or ``datasets[0].path``.
    """

    path: str
    old: Any
    new: Any


@dataclass(frozen=True)
class LayerChange:
    """A layer that only one side has, or both with different content.

    :param kind: section of the Kitfile.
    :param path: clean path below the context.
    """

    kind: str
    path: str
    old: Layer | None
    new: Layer | None


@dataclass(frozen=True)
class FileState:
    """One file or directory of a layer.

    :param digest: of its content; empty for a directory.
    :param size: bytes.
    :param mode: permission bits.
    """

    digest: str
    size: int
    mode: int


@dataclass(frozen=True)
class FileChange:
    """A file that only one side of a changed layer has, or both with different content or mode.

    :param layer: clean path of the layer.
    :param path: of the file.
    :param old, new: digest, size and mode; a side that does not have it is ``None``.
    """

    layer: str
    path: str
    old: FileState | None
    new: FileState | None


@dataclass(frozen=True)
class Difference:
    """All that differs; empty if the content is the same."""

    fields: tuple[FieldChange, ...]
    layers: tuple[LayerChange, ...]

    def __bool__(self) -> bool:
        return bool(self.fields or self.layers)

    def to_json(self) -> dict[str, Any]:
        """The answer of operator and command: ``identical``, ``fields`` and ``layers``, these by their digests."""
        return {
            "identical": not self,
            "fields": [{"path": change.path, "old": change.old, "new": change.new} for change in self.fields],
            "layers": [
                {
                    "kind": change.kind,
                    "path": change.path,
                    "old": change.old.descriptor.digest if change.old else None,
                    "new": change.new.descriptor.digest if change.new else None,
                }
                for change in self.layers
            ],
        }


def diff(old: ModelKit, new: ModelKit) -> Difference:
    """Compare two ModelKits without fetching a layer.

    Layers are the same if their diffIds are, so one that was only compressed otherwise does not count.
    """
    return Difference(tuple(_fields(old, new)), tuple(_layers(old, new)))


def diff_files(
    old: Target,
    new: Target,
    change: LayerChange,
    *,
    limits: Limits = DEFAULT_LIMITS,
    on_progress: ProgressHook | None = None,
) -> list[FileChange]:
    """What differs inside a layer, by reading both sides of it.

    :param old, new: where the two ModelKits are.
    :param limits: caps on what each side may hold.
    :raises DigestMismatch, VerificationFailed: a layer is not what its digest says.
    :raises UnsafePath: a layer holds what no ModelKit may.
    :raises LimitExceeded: a layer holds more than ``limits`` allow.
    """
    ours = _files(old, change.old, limits, on_progress) if change.old else {}
    theirs = _files(new, change.new, limits, on_progress) if change.new else {}
    return [
        FileChange(change.path, path, ours.get(path), theirs.get(path))
        for path in sorted({*ours, *theirs})
        if ours.get(path) != theirs.get(path)
    ]


def _fields(old: ModelKit, new: ModelKit) -> Iterator[FieldChange]:
    ours, theirs = _flat(old), _flat(new)
    for path in [*ours, *(path for path in theirs if path not in ours)]:
        if ours.get(path) != theirs.get(path):
            yield FieldChange(path, ours.get(path), theirs.get(path))


def _flat(modelkit: ModelKit) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                visit(item, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and value:
            for index, item in enumerate(value):
                visit(item, f"{path}[{index}]")
        else:
            found[path] = value

    visit(json.loads(modelkit.kitfile.to_config_json()), "")
    return found


def _layers(old: ModelKit, new: ModelKit) -> Iterator[LayerChange]:
    ours = {(layer.kind, clean(layer.path)): layer for layer in old.layers}
    theirs = {(layer.kind, clean(layer.path)): layer for layer in new.layers}
    for kind, path in [*ours, *(key for key in theirs if key not in ours)]:
        one, other = ours.get((kind, path)), theirs.get((kind, path))
        if one is None or other is None or _content(one) != _content(other):
            yield LayerChange(kind.value, path, one, other)


def _content(layer: Layer) -> str:
    return layer.diff_id or layer.descriptor.digest


def _files(target: Target, layer: Layer, limits: Limits, on_progress: ProgressHook | None) -> dict[str, FileState]:
    done = 0

    def on_read(count: int) -> None:
        nonlocal done
        done += count
        if count and on_progress:
            on_progress(Progress("download", clean(layer.path), done, layer.descriptor.size))

    budget = Budget(limits)
    found = {}
    for entry, content in read_layer(target, layer, on_read=on_read, on_content=budget.data):
        budget.file()
        budget.name(sys.getsizeof(entry.name))
        hashing, size = hashlib.sha256(), 0
        for data in content:
            hashing.update(data)
            size += len(data)
        digest = "" if entry.directory else f"sha256:{hashing.hexdigest()}"
        found[entry.name] = FileState(digest, size, entry.mode)
    return found
