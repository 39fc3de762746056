"""Running a program that reads ModelKits and writes one: run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from airflow_provider_kitops._cli.options import Verbs, add_verb, content_of, path, seconds
from airflow_provider_kitops._cli.session import Session
from airflow_provider_kitops.oci.description import described
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.reference import Reference


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    run = add_verb(
        verbs,
        "run",
        _run,
        "run a workload on this machine",
        "Run a workload specification (YAML or JSON) on this machine: fetch its inputs, run its command, publish its "
        "output with provenance. Killed and run again, it goes on where it was.",
    )
    run.add_argument("specification", type=path, metavar="FILE")
    run.add_argument("--scratch", type=path, metavar="DIR", help="where inputs and output are kept meanwhile")
    run.add_argument("--timeout", type=seconds, metavar="SECONDS", help="end the program after this time")
    run.add_argument("--key", type=path, metavar="FILE", help="private key (PEM) to sign the provenance with")


def _run(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.evidence.signing import load_signer
    from airflow_provider_kitops.workload._yaml import load_specification
    from airflow_provider_kitops.workload.runner import WorkloadResult, run_local
    from airflow_provider_kitops.workload.spec import WorkloadSpec

    try:
        fields = load_specification(content_of(options.specification))
    except ValueError as error:
        raise InvalidInput(
            f"The specification {options.specification} is not YAML: {' '.join(str(error).split())}."
        ) from error
    if not isinstance(fields, dict):
        raise InvalidInput(f"{options.specification} is no workload specification: it is not a mapping.")
    signer = load_signer(options.key) if options.key else None
    fields = _pinned(session, fields)
    spec = WorkloadSpec.of(**fields)
    output = Reference.parse(spec.output.reference)
    scratch = options.scratch or _default_scratch()

    def answer(result: WorkloadResult) -> None:
        told = described(
            Reference.parse(result.reference),
            result.descriptor,
            result.tags,
            size=result.size,
            metrics=dict(result.metrics),
            seconds=round(result.seconds, 3),
            provenance=result.provenance or None,
        )
        session.answer(told, f"published {told['reference']} ({', '.join(result.tags)})")
        # Here, and not at the end: the run's files are kept until its digest has reached whoever asked.
        sys.stdout.flush()

    run_local(
        spec,
        session.store(output.registry),
        scratch,
        on_line=None if options.quiet else _show,
        timeout=options.timeout,
        on_step=session.note,
        on_published=answer,
        signer=signer,
    )
    return 0


def _pinned(session: Session, fields: dict[str, Any]) -> dict[str, Any]:
    """The specification with each input by digest: a tag is resolved once, here."""
    inputs = fields.get("inputs")
    if not isinstance(inputs, dict) or not all(isinstance(text, str) for text in inputs.values()):
        return fields
    pinned = {}
    for name, text in inputs.items():
        if Reference.parse(text).digest:
            pinned[name] = text
        else:
            _, reference, _, descriptor = session.resolve(text)
            pinned[name] = str(reference.at(descriptor.digest))
            session.note(f"{name}: {pinned[name]}")
    return {**fields, "inputs": pinned}


def _default_scratch() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache:
        try:
            cache = str(Path.home() / ".cache")
        except RuntimeError:
            raise InvalidInput("There is no home directory to keep the run in.", hint="Name one: --scratch.") from None
    return Path(cache) / "airflow-provider-kitops" / "runs"


def _show(line: str) -> None:
    sys.stderr.write(line.rstrip("\n") + "\n")
