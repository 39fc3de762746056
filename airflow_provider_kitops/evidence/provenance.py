"""SLSA provenance v1 (slsa.dev/spec/v1.0/provenance): how a ModelKit was made, and from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_provider_kitops.evidence.statement import ResourceDescriptor
from airflow_provider_kitops.oci.errors import InvalidInput

__all__ = ["ResourceDescriptor", "slsa_provenance", "timestamp"]


def slsa_provenance(
    *,
    build_type: str,
    external_parameters: Mapping[str, Any],
    resolved_dependencies: Sequence[ResourceDescriptor],
    builder_id: str,
    started_on: datetime | None = None,
    finished_on: datetime | None = None,
    internal_parameters: Mapping[str, Any] | None = None,
    invocation_id: str = "",
    byproducts: Sequence[ResourceDescriptor] = (),
) -> dict[str, Any]:
    """A predicate of type ``SLSA_PROVENANCE``.

    :param build_type: URI of the kind of build, which says how to read the parameters.
    :param external_parameters: what whoever started the build chose; everything that an outsider controls.
    :param resolved_dependencies: every input with its digest.
    :param builder_id: URI of who ran the build and is trusted to tell the truth about it.
    :param started_on: with a time zone.
    :param finished_on: with a time zone.
    :param internal_parameters: what the builder chose by itself.
    :param invocation_id: identifier of this one run, for finding its logs.
    :param byproducts: what else came out of it.
    :raises InvalidInput: a time without a zone, or no build type or builder.
    """
    if not build_type or not builder_id:
        raise InvalidInput("Provenance needs a build type and a builder.")
    definition: dict[str, Any] = {"buildType": build_type, "externalParameters": dict(external_parameters)}
    if internal_parameters:
        definition["internalParameters"] = dict(internal_parameters)
    definition["resolvedDependencies"] = [one.to_json() for one in resolved_dependencies]
    metadata: dict[str, str] = {}
    if invocation_id:
        metadata["invocationId"] = invocation_id
    if started_on is not None:
        metadata["startedOn"] = timestamp(started_on)
    if finished_on is not None:
        metadata["finishedOn"] = timestamp(finished_on)
    details: dict[str, Any] = {"builder": {"id": builder_id}}
    if metadata:
        details["metadata"] = metadata
    if byproducts:
        details["byproducts"] = [one.to_json() for one in byproducts]
    return {"buildDefinition": definition, "runDetails": details}


def timestamp(time: datetime) -> str:
    """``time`` as in-toto writes it: RFC 3339 in UTC, whole seconds.

    :raises InvalidInput: ``time`` has no zone.
    """
    if time.tzinfo is None:
        raise InvalidInput(f"The time {time.isoformat()} has no time zone.")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
