"""The images that pods run, by digest."""

from __future__ import annotations

from airflow_provider_kitops import __version__
from airflow_provider_kitops.oci.errors import InvalidInput, KitopsError
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.store import Store, StoreConfig

_REPOSITORY = "airflow-provider-kitops"  # of this package's images, below the connection's registry


def pinned_image(store: Store, image: str | None, name: str) -> str:
    """An image by digest, which is what provenance names; a tag is resolved once, here.

    :param store: whose registry is asked for what names no other one.
    :param image: its name; ``None`` for this package's own image ``name`` of this version.
    :raises InvalidInput: it is nowhere to be found, or is named by neither tag nor digest.
    :raises RegistryUnavailable: its registry gives no answer.
    """
    usual = not image
    image = image or f"{store.config.registry}/{_REPOSITORY}/{name}:{__version__}"
    reference = Reference.parse(image)
    if not reference.tag and not reference.digest:
        raise InvalidInput(f"The image {image} has no tag.", hint="Write NAME:TAG, or NAME@sha256:…")
    other = reference.registry and reference.registry != store.config.registry
    if reference.digest:
        return str(reference if other else store.reference(reference))
    try:
        if other:
            config = StoreConfig(registry=reference.registry, docker_config=store.config.docker_config)
            with Store(config) as elsewhere:
                return str(elsewhere.resolve(reference)[0])
        return str(store.resolve(reference)[0])
    except KitopsError as error:
        if error.transient:
            raise
        if usual:
            hint = f"Push it there (make images REGISTRY={store.config.registry}), or name another one in job."
        elif other:
            hint = "Where the worker cannot ask its registry, name it by digest: NAME@sha256:…"
        elif reference.registry:
            hint = "Push it there, or correct its name."
        else:
            hint = f"It was looked for in {store.config.registry}, as it names no other registry."
        raise InvalidInput(f"Cannot find the image {image}: {error}", hint=hint) from error
