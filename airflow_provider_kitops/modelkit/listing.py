"""The ModelKits of a repository."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_kitops.modelkit.manifest import CREATED
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.errors import InvalidInput, NotFound
from airflow_provider_kitops.oci.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelKitEntry:
    """One ModelKit, with all tags that name it.

    :param repository: ``registry/repository``, or the repository alone in a local layout.
    :param size: bytes of manifest, config and layers.
    :param name: of the package, or else of the model.
    :param version: of the package.
    :param created: when it was made, where the manifest says so.
    """

    repository: str
    digest: str
    tags: tuple[str, ...]
    size: int
    name: str
    version: str
    created: datetime | None = None


def list_modelkits(target: Target) -> list[ModelKitEntry]:
    """The tagged ModelKits of a repository, in the order of their first tags; other artifacts are left out.

    :raises RegistryUnavailable, Unauthorized, Forbidden: as the target raises them.
    """
    tags: dict[str, list[str]] = defaultdict(list)
    for tag in target.tags():
        try:
            tags[target.resolve(tag).digest].append(tag)
        except NotFound:
            continue  # removed meanwhile
    entries = []
    for digest, names in tags.items():
        try:
            modelkit = ModelKit.read(target, digest)
        except NotFound:
            continue
        except InvalidInput as error:
            log.debug("%s@%s is left out: %s", target.name, digest, error)
            continue
        package, model = modelkit.kitfile.package, modelkit.kitfile.model
        entries.append(
            ModelKitEntry(
                repository=target.name,
                digest=digest,
                tags=tuple(names),
                size=modelkit.size,
                name=package.name or (model.name if model else ""),
                version=package.version,
                created=_moment(modelkit.annotations.get(CREATED, "")),
            )
        )
    return entries


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
