"""The ModelKits of a repository, and its indexes of ModelKits."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_kitops.modelkit.index import IndexedModelKit, ModelKitIndex
from airflow_provider_kitops.modelkit.manifest import CREATED
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.descriptor import INDEX, Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, NotFound
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelKitEntry:
    """One ModelKit or index of ModelKits, with all tags that name it.

    :param repository: ``registry/repository``, or the repository alone in a local layout.
    :param size: bytes of manifest, config and layers; of an index, of it and the manifests in it.
    :param name: of the package, or else of the model; an index has none.
    :param version: of the package; an index has none.
    :param created: when it was made, where the manifest says so.
    :param modelkits: what is in an index; ``None`` for a ModelKit.
    """

    repository: str
    digest: str
    tags: tuple[str, ...]
    size: int
    name: str
    version: str
    created: datetime | None = None
    modelkits: tuple[IndexedModelKit, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """What operators and the command show of it, but where it is."""
        answer: dict[str, Any] = {
            "kind": "modelkit" if self.modelkits is None else "index",
            "digest": self.digest,
            "tags": list(self.tags),
            "size": self.size,
            "name": self.name,
            "version": self.version,
        }
        if self.modelkits is not None:
            answer["modelkits"] = [each.to_json() for each in self.modelkits]
        return answer


def list_modelkits(target: Target) -> list[ModelKitEntry]:
    """The tagged ModelKits of a repository and its tagged indexes of them, in the order of their first tags.

    Of a local layout those without tags follow, unless one of its indexes holds them; a registry does not tell of its
    own. Other artifacts are left out.

    :raises RegistryUnavailable, Unauthorized, Forbidden: as the target raises them.
    """
    found: dict[str, Descriptor] = {}
    tags: dict[str, list[str]] = defaultdict(list)
    for tag in target.tags():
        try:
            descriptor = target.resolve(tag)
        except NotFound:
            continue  # removed meanwhile
        found[descriptor.digest] = descriptor
        tags[descriptor.digest].append(tag)
    if isinstance(target, Layout):
        found |= {each.digest: each for each in target.manifests()}
    entries = []
    for digest in [*tags, *(digest for digest in found if digest not in tags)]:
        try:
            entries.append(_entry(target, found[digest], tuple(tags.get(digest, ()))))
        except NotFound:
            continue
        except InvalidInput as error:
            log.debug("%s@%s is left out: %s", target.name, digest, error)
    held = {each.descriptor.digest for entry in entries for each in entry.modelkits or ()}
    return [entry for entry in entries if entry.tags or entry.digest not in held]


def _entry(target: Target, descriptor: Descriptor, tags: tuple[str, ...]) -> ModelKitEntry:
    read: ModelKit | ModelKitIndex
    if descriptor.media_type == INDEX:
        read, name, version = ModelKitIndex.read(target, descriptor), "", ""
    else:
        read = ModelKit.read(target, descriptor.digest)
        package, model = read.kitfile.package, read.kitfile.model
        name, version = package.name or (model.name if model else ""), package.version
    return ModelKitEntry(
        repository=target.name,
        digest=descriptor.digest,
        tags=tags,
        size=read.size,
        name=name,
        version=version,
        created=_moment(read.annotations.get(CREATED, "")),
        modelkits=read.modelkits if isinstance(read, ModelKitIndex) else None,
    )


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
