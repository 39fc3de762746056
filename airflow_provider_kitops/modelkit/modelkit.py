"""A ModelKit in a repository, as an immutable view."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit.kitfile import Kitfile, LayerEntry, LayerIds, LayerKind, parse_config
from airflow_provider_kitops.modelkit.manifest import CONFIG_TYPE, LayerType, Manifest, base_type
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed
from airflow_provider_kitops.oci.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layer:
    """One layer.

    :param descriptor: of the blob.
    :param kind: section of the Kitfile that it belongs to.
    :param path: its path as the Kitfile writes it.
    :param name: its name in the Kitfile, or empty.
    :param diff_id: digest of the tar stream before compression; empty in ModelKits of kit before 0.5.
    """

    descriptor: Descriptor
    kind: LayerKind
    path: str
    name: str
    diff_id: str


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
    def read(cls, target: Target, reference: str) -> ModelKit:
        """Read the ModelKit that a tag or digest names; no layer is fetched.

        :raises NotFound: no such manifest.
        :raises InvalidInput: it is no ModelKit.
        :raises LimitExceeded: manifest or config is larger than any real one.
        :raises VerificationFailed: config and manifest contradict each other, or a digest does not fit.
        """
        descriptor = target.resolve(reference)
        separator = "@" if ":" in reference else ":"
        name = f"{target.name}{separator}{reference}"
        manifest = read(target, descriptor)
        parsed = Manifest.parse(manifest, name)
        if parsed.config.media_type != CONFIG_TYPE:
            raise InvalidInput(f"{name} is not a ModelKit: its config is {parsed.config.media_type[:100]!r}.")
        config = read(target, parsed.config)
        kitfile, ids = parse_config(config)
        layers = _layers(name, parsed, list(zip(kitfile.entries(), ids, strict=True)))
        return cls(descriptor, manifest, config, kitfile, layers, parsed.annotations)


def _layers(
    name: str, manifest: Manifest, entries: list[tuple[tuple[LayerKind, LayerEntry], LayerIds | None]]
) -> tuple[Layer, ...]:
    """Bring the manifest's layers and the config's entries together, kind by kind, in the manifest's order."""
    left = list(entries)
    layers = []
    for descriptor in manifest.layers:
        parsed = LayerType.parse(descriptor.media_type)
        if parsed is None:
            log.warning("A layer of %s has the unknown media type %s; it is passed over.", name, descriptor.media_type)
            continue
        match = next((item for item in left if base_type(item[0][0]) == parsed.base), None)
        if match is None:
            raise VerificationFailed(f"The manifest of {name} has a {parsed.base} layer that its config does not name.")
        left.remove(match)
        (kind, entry), ids = match
        if ids and ids.digest != descriptor.digest:
            raise VerificationFailed(
                f"Manifest and config of {name} name different digests for {kind.value} {clean(entry.path)}."
            )
        layers.append(Layer(descriptor, kind, entry.path, getattr(entry, "name", ""), ids.diff_id if ids else ""))
    if left:
        kind, entry = left[0][0]
        raise VerificationFailed(f"The manifest of {name} has no layer for {kind.value} {clean(entry.path)}.")
    return tuple(layers)
