"""The SLSA provenance of a workload: what it was made from, by whom, and what the program measured."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops import __version__
from airflow_provider_kitops.oci.descriptor import Descriptor, digest_of
from airflow_provider_kitops.oci.errors import NotFound, VerificationFailed, WorkloadFailed
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.workload.metrics import METRICS_FILE, parse_metrics
from airflow_provider_kitops.workload.spec import WorkloadSpec

if TYPE_CHECKING:
    from airflow_provider_kitops.evidence.signing import Signer
    from airflow_provider_kitops.evidence.statement import Statement
    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.oci.target import Target

#: What SLSA provenance calls this way of building.
BUILD_TYPE = "https://airflow-provider-kitops.dev/workload/v1"
#: Who ran it: this machine, or a pod of a cluster.
BUILDER_LOCAL = "https://airflow-provider-kitops.dev/builders/local"
BUILDER_KUBERNETES = "https://airflow-provider-kitops.dev/builders/kubernetes"


def attach_provenance(
    spec: WorkloadSpec,
    store: Store,
    target: Target,
    descriptor: Descriptor,
    *,
    started: datetime,
    finished: datetime,
    builder: str,
    metrics: bytes | None = None,
    signer: Signer | None = None,
) -> Descriptor:
    """Attach the provenance of what a workload made, and return the descriptor of the attestation.

    :param target: the repository that holds ``descriptor``.
    :param started, finished: of the program, with a time zone.
    :param builder: who ran it, as a URI.
    :param metrics: ``metrics.json`` as the program wrote it; becomes a byproduct, content and all.
    :raises InvalidReference: an input belongs to another registry than the store.
    """
    from airflow_provider_kitops.evidence.attach import attach
    from airflow_provider_kitops.evidence.provenance import ResourceDescriptor, slsa_provenance
    from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE, Statement, Subject

    inputs = {name: store.reference(text) for name, text in spec.inputs.items()}
    dependencies = [
        ResourceDescriptor(
            name=name, uri=f"oci://{reference}" if reference.registry else str(reference), digest=reference.digest
        )
        for name, reference in inputs.items()
    ]
    dependencies.append(ResourceDescriptor(name="config", digest=spec.config_digest))
    if spec.image:
        dependencies.append(
            ResourceDescriptor(name="image", uri=f"oci://{spec.image}", digest=Reference.parse(spec.image).digest)
        )
    byproducts = []
    if metrics is not None:
        byproducts.append(
            ResourceDescriptor(
                name=METRICS_FILE, digest=digest_of(metrics), media_type="application/json", content=metrics
            )
        )
    predicate = slsa_provenance(
        build_type=BUILD_TYPE,
        # The whole specification, whose digest is below, and beside it what is read most, references with registry.
        external_parameters={
            "specification": spec.model_dump(mode="json"),
            "command": list(spec.command),
            "config": spec.config,
            "inputs": {name: str(reference) for name, reference in inputs.items()},
            "output": str(store.reference(spec.output.reference)),
        },
        internal_parameters={"specification": spec.digest, "package": __version__},
        resolved_dependencies=dependencies,
        builder_id=builder,
        started_on=started,
        finished_on=finished,
        byproducts=byproducts,
    )
    statement = Statement([Subject(target.name, descriptor.digest)], SLSA_PROVENANCE, predicate)
    return attach(target, descriptor, statement, signer=signer)


def metrics_of(statement: Statement) -> dict[str, Any]:
    """The metrics that a workload's provenance records; empty where the program measured nothing.

    :raises VerificationFailed: what is recorded is not what its digest says, or no metrics.
    """
    details = statement.predicate.get("runDetails")
    byproducts = details.get("byproducts") if isinstance(details, Mapping) else None
    for each in byproducts if isinstance(byproducts, list) else []:
        if not isinstance(each, Mapping) or each.get("name") != METRICS_FILE:
            continue
        try:
            data = base64.b64decode(each["content"], validate=True)
            if each["digest"]["sha256"] != digest_of(data).removeprefix("sha256:"):
                raise VerificationFailed(f"The {METRICS_FILE} in a provenance does not have the digest given there.")
            return parse_metrics(data)
        except (KeyError, TypeError, ValueError, binascii.Error, WorkloadFailed) as error:
            raise VerificationFailed(f"The {METRICS_FILE} in a provenance cannot be read: {error}") from error
    return {}


def published_metrics(store: Store, reference: str, *, provenance: str = "") -> dict[str, Any]:
    """The metrics of a published workload, read from the provenance that is attached to its output.

    :param reference: the output, by digest or tag.
    :param provenance: digest of the attestation; by default that of the run which ended last.
    :return: empty where the program measured nothing. The signature, if there is one, is not checked.
    :raises NotFound: there is no such ModelKit, or no provenance of a workload is attached to it.
    :raises VerificationFailed: the provenance is malformed, or is about something else.
    """
    from airflow_provider_kitops.evidence.attach import find, load
    from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE

    full, descriptor = store.resolve(reference)
    target = store.target(full)
    if provenance:
        attestation = load(target, target.resolve(provenance))
        if attestation.subject.digest != descriptor.digest or attestation.statement.predicate_type != SLSA_PROVENANCE:
            raise VerificationFailed(f"{target.name}@{provenance} is not the provenance of {full}.")
        return metrics_of(attestation.statement)
    found = [each.statement for each in find(target, descriptor, SLSA_PROVENANCE) if _is_workload(each.statement)]
    if not found:
        raise NotFound(f"No provenance of a workload is attached to {full}.")
    return metrics_of(max(found, key=_finished))


def _is_workload(statement: Statement) -> bool:
    definition = statement.predicate.get("buildDefinition")
    return isinstance(definition, Mapping) and definition.get("buildType") == BUILD_TYPE


def _finished(statement: Statement) -> str:
    """When the run ended, as text that sorts by time: always UTC, always whole seconds."""
    details = statement.predicate.get("runDetails")
    metadata = details.get("metadata") if isinstance(details, Mapping) else None
    return str(metadata.get("finishedOn", "")) if isinstance(metadata, Mapping) else ""
