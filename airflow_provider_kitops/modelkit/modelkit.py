"""A ModelKit in a repository, as an immutable view."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit.index import ModelKitIndex
from airflow_provider_kitops.modelkit.kitfile import Kitfile, LayerEntry, LayerIds, LayerKind, parse_config
from airflow_provider_kitops.modelkit.manifest import (
    CONFIG_TYPE,
    MODELPACK_CONFIG_TYPE,
    Layer,
    Manifest,
    base_type,
)
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import INDEX, Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed
from airflow_provider_kitops.oci.target import Target


@dataclass(frozen=True)
class ModelKit:
    """Everything about a ModelKit but the content of its layers.

    :param descriptor: of the manifest.
    :param manifest: its bytes, as stored.
    :param config: bytes of the config, as stored.
    """

    descriptor: Descriptor
    manifest: bytes = field(repr=False)
    config: bytes = field(repr=False)
    kitfile: Kitfile
    layers: tuple[Layer, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of manifest, config and layers."""
        return len(self.manifest) + len(self.config) + sum(layer.descriptor.size for layer in self.layers)

    @classmethod
    def read(cls, target: Target, reference: str, labels: Mapping[str, str] | None = None) -> ModelKit:
        """Read the ModelKit that a tag or digest names; no layer is fetched.

        :param labels: which one to take of an index of ModelKits.
        :raises NotFound: no such manifest, or the index has none with these labels.
        :raises InvalidInput: it is no ModelKit, or several of the index have these labels.
        :raises LimitExceeded: manifest or config is larger than any real one.
        :raises VerificationFailed: config and manifest contradict each other, or a digest does not fit.
        """
        descriptor = target.resolve(reference)
        separator = "@" if ":" in reference else ":"
        name = f"{target.name}{separator}{reference}"
        manifest = read(target, descriptor)
        if descriptor.media_type == INDEX:
            picked = ModelKitIndex.parse(manifest, name).pick(labels or {}, name)
            descriptor = target.resolve(picked.descriptor.digest)
            name = f"{target.name}@{descriptor.digest}"
            manifest = read(target, descriptor)
        elif labels:
            raise InvalidInput(f"{name} is one ModelKit, not an index; labels have nothing to choose from.")
        parsed = Manifest.parse(manifest, name)
        if parsed.config.media_type not in (CONFIG_TYPE, MODELPACK_CONFIG_TYPE):
            raise InvalidInput(f"{name} is not a ModelKit: its config is {parsed.config.media_type[:100]!r}.")
        config = read(target, parsed.config)
        if parsed.config.media_type == MODELPACK_CONFIG_TYPE:
            # Half of the time that this module takes to import, for what few ModelKits are.
            from airflow_provider_kitops.modelkit.modelpack import read_modelpack

            pack = read_modelpack(name, parsed, config)
            entries = [(entry, None) for entry in pack.kitfile.entries()]
            layers = tuple(
                replace(layer, diff_id=pack.diff_ids[layer.descriptor.digest])
                for layer in _layers(name, pack.layers, entries)
            )
            return cls(descriptor, manifest, config, pack.kitfile, layers, parsed.annotations)
        kitfile, ids = parse_config(config)
        layers = _layers(name, parsed.typed_layers(name), list(zip(kitfile.entries(), ids, strict=True)))
        return cls(descriptor, manifest, config, kitfile, layers, parsed.annotations)


def _layers(
    name: str,
    layers: Iterable[tuple[Descriptor, str]],
    entries: Sequence[tuple[tuple[LayerKind, LayerEntry], LayerIds | None]],
) -> tuple[Layer, ...]:
    """Bring the manifest's layers and the config's entries together, kind by kind, in the manifest's order."""
    left: dict[str, deque[tuple[tuple[LayerKind, LayerEntry], LayerIds | None]]] = defaultdict(deque)
    for item in entries:
        left[base_type(item[0][0])].append(item)
    found = []
    for descriptor, base in layers:
        if not left[base]:
            raise VerificationFailed(f"The manifest of {name} has a {base} layer that its config does not name.")
        (kind, entry), ids = left[base].popleft()
        if ids and ids.digest != descriptor.digest:
            raise VerificationFailed(
                f"Manifest and config of {name} name different digests for {kind.value} {clean(entry.path)}."
            )
        found.append(Layer(descriptor, kind, entry.path, getattr(entry, "name", ""), ids.diff_id if ids else ""))
    for (kind, entry), _ in (item for items in left.values() for item in items):
        raise VerificationFailed(f"The manifest of {name} has no layer for {kind.value} {clean(entry.path)}.")
    return tuple(found)
