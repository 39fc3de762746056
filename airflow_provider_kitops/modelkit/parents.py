"""ModelKits that other ModelKits are based on: ``model.path`` of a Kitfile may be the reference of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.errors import InvalidInput, LimitExceeded
from airflow_provider_kitops.oci.target import Target

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.store import Store

#: Finds the repository of a base ModelKit, and the tag or digest in it, from what ``model.path`` says.
ParentResolver = Callable[[str], tuple[Target, str]]

#: How many ModelKits may be based on each other.
MAX_CHAIN = 10


def parents_of(store: Store) -> ParentResolver:
    """Look base ModelKits up in ``store``; a reference without a tag means ``latest``."""

    def resolve(reference: str) -> tuple[Target, str]:
        qualified = store.reference(reference)
        return store.target(qualified), qualified.selector or "latest"

    return resolve


def chain(base_reference: str | None, parents: ParentResolver) -> Iterator[tuple[Target, ModelKit]]:
    """The ModelKits that a model is based on, the nearest first.

    :raises InvalidInput: they are based on each other in a circle.
    :raises LimitExceeded: there are more than ``MAX_CHAIN``.
    :raises NotFound: one of them does not exist.
    """
    seen: list[str] = []
    digests: set[str] = set()
    reference = base_reference
    while reference is not None:
        if len(seen) == MAX_CHAIN:
            raise LimitExceeded(f"More than {MAX_CHAIN} ModelKits are based on each other: {' → '.join(seen)}.")
        seen.append(reference)
        target, selector = parents(reference)
        modelkit = ModelKit.read(target, selector)
        if modelkit.descriptor.digest in digests or reference in seen[:-1]:
            raise InvalidInput(f"ModelKits are based on each other in a circle: {' → '.join(seen)}.")
        digests.add(modelkit.descriptor.digest)
        yield target, modelkit
        reference = modelkit.kitfile.base_reference
