"""ModelKits that other ModelKits are based on: ``model.path`` of a Kitfile may be the reference of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.errors import (
    Forbidden,
    InvalidInput,
    InvalidReference,
    KitopsError,
    LimitExceeded,
    NotFound,
    Unauthorized,
)
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.target import Target

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.store import Store

#: Finds the repository of a base ModelKit, and the tag or digest in it, from what ``model.path`` says.
ParentResolver = Callable[[str], tuple[Target, str]]

#: How many ModelKits may be based on each other.
MAX_CHAIN = 10


def parents_of(store: Store) -> ParentResolver:
    """Look base ModelKits up in ``store``; a reference without tag and digest means ``latest``.

    A reference that names no registry, or this store's, is looked up where it says. One that names another registry was
    written before the ModelKit was copied here, and its base may have been copied along: it is looked up by its digest
    in the repository of the same path in this store (below the store's namespace, too). Nothing is ever asked of the
    other registry: what a ModelKit says must not decide where bytes or credentials go.

    The resolver raises ``NotFound`` if a base of another registry is not here, and ``InvalidReference`` if such a one
    is named by a tag alone, which proves nothing about what the tag names here.
    """

    def resolve(reference: str) -> tuple[Target, str]:
        named = Reference.parse(reference)
        if named.registry and named.registry.lower() != store.config.registry:
            return _copied_along(store, named), named.digest
        return store.target(named), named.selector or "latest"

    return resolve


@contextmanager
def asked_for(what: str) -> Iterator[None]:
    """Say of an error what was looked for: whoever named the one ModelKit may not know of the other."""
    try:
        yield
    except (NotFound, Unauthorized, Forbidden, InvalidInput) as error:
        raise type(error)(f"{what} cannot be read: {error.message}", hint=error.hint) from error


def _copied_along(store: Store, named: Reference) -> Target:
    """The repository of ``store`` that holds a ModelKit of another registry."""
    here = store.config.registry or "the local layout"
    hint = f"Copy it to {here} under the same repository name, or use the connection of {named.registry}."
    if not named.digest:
        raise InvalidReference(
            f"{named} is at {named.registry} and not pinned by a digest, and this store is {here}.",
            hint="Pack anew what names it, with its digest, or use the connection of its registry.",
        )
    # The path as it stands, then below the namespace; in the local layout both are one.
    places = [replace(named, registry=store.config.registry), replace(named, registry="")]
    refused: KitopsError | None = None
    for name in dict.fromkeys(store.reference(place) for place in places):
        target = store.target(name)
        try:
            target.resolve(named.digest)
        except (NotFound, Unauthorized, Forbidden) as error:  # many registries say so of what does not exist
            refused = error
        else:
            return target
    raise NotFound(
        f"{named} is at {named.registry}, and no {named.repository}@{named.digest} is in {here}.",
        hint=hint,
    ) from refused


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
        with asked_for(f"The base model {reference} (model.path of {seen[-2] if seen[1:] else 'the Kitfile'})"):
            target, selector = parents(reference)
            modelkit = ModelKit.read(target, selector)
        if modelkit.descriptor.digest in digests or reference in seen[:-1]:
            raise InvalidInput(f"ModelKits are based on each other in a circle: {' → '.join(seen)}.")
        digests.add(modelkit.descriptor.digest)
        yield target, modelkit
        reference = modelkit.kitfile.base_reference
