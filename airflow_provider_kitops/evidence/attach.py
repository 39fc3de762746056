"""Statements as referrers: an OCI manifest with ``subject`` whose first layer is the envelope.

(OCI image specification 1.1, manifest.md, "Guidelines for Artifact Usage"; distribution specification 1.1,
"Listing Referrers".)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from airflow_provider_kitops.evidence._json import read_json
from airflow_provider_kitops.evidence.envelope import ENVELOPE_TYPE, Envelope, Signature
from airflow_provider_kitops.evidence.signing import Signer, Verifier
from airflow_provider_kitops.evidence.statement import Statement, digest_set
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import EMPTY, MANIFEST, OCTET_STREAM, Descriptor, are_annotations
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed
from airflow_provider_kitops.oci.target import Target

#: ``artifactType`` of the manifests.
ATTESTATION = "application/vnd.in-toto+json"
#: Annotation with the predicate type, so that one listing tells the statements apart.
PREDICATE_TYPE_ANNOTATION = "in-toto.io/predicate-type"

#: A statement is read into memory; one this large is no statement.
_MAX_ENVELOPE_SIZE = 32 * 1024 * 1024
_TITLE = "org.opencontainers.image.title"
_FILE_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".html": "text/html",
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}


@dataclass(frozen=True)
class Attestation:
    """A statement as it was found beside its subject.

    :param descriptor: the manifest that carries it, with its annotations.
    :param subject: the manifest that it is attached to.
    :param statement: what it says.
    :param signatures: of its envelope; empty when unsigned. Present is not the same as verified.
    :param files: layers beside the envelope by their titles. The signature does not cover them unless the
        statement names their digests.
    :param verified_by: identifier of the trusted key that signed it; empty when nobody checked.
    """

    descriptor: Descriptor
    subject: Descriptor
    statement: Statement
    signatures: tuple[Signature, ...]
    files: Mapping[str, Descriptor]
    verified_by: str = ""


def attach(
    target: Target,
    subject: Descriptor,
    statement: Statement,
    *,
    signer: Signer | None = None,
    files: Mapping[str, bytes] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Attach a statement to the manifest that it is about, and return the descriptor of the new manifest.

    No clock goes into the manifest: the same statement attached again is the same manifest.

    :param target: the repository that holds the subject.
    :param subject: the manifest that the statement is about; one of the statement's subjects.
    :param signer: signs the envelope; without it the envelope has no signatures.
    :param files: contents by file name, stored as further layers.
    :param annotations: of the manifest, shown when referrers are listed.
    :raises InvalidInput: the statement does not name the subject, or a file name is not a plain one.
    """
    if not statement.names(subject.digest):
        raise InvalidInput(
            f"The statement to attach to {target.name}@{subject.digest} is about "
            f"{', '.join(one.digest for one in statement.subjects)}."
        )
    envelope = Envelope(statement.to_bytes())
    if signer is not None:
        envelope = signer.sign(envelope)
    layers = [_layer(ENVELOPE_TYPE, envelope.to_bytes(), {PREDICATE_TYPE_ANNOTATION: statement.predicate_type})]
    for name, data in (files or {}).items():
        if not _is_plain(name):
            raise InvalidInput(f"{name!r} is not a plain file name of UTF-8 characters.")
        layers.append(_layer(_FILE_TYPES.get(PurePosixPath(name).suffix, OCTET_STREAM), data, {_TITLE: name}))
    config = Descriptor.of(EMPTY, b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ATTESTATION,
        "config": config.to_json(),
        "layers": [descriptor.to_json() for descriptor, _ in layers],
        "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
        "annotations": {**(annotations or {}), PREDICATE_TYPE_ANNOTATION: statement.predicate_type},
    }
    data = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()
    target.push(config, b"{}")
    for descriptor, content in layers:
        target.push(descriptor, content)
    described = Descriptor.of(MANIFEST, data, artifact_type=ATTESTATION, annotations=manifest["annotations"])
    target.push(described, data)
    return described


def load(target: Target, descriptor: Descriptor, verifier: Verifier | None = None) -> Attestation:
    """The attestation in one manifest, whatever it is about.

    :param verifier: demands that a trusted key has signed it.
    :raises NotFound: no such manifest.
    :raises VerificationFailed: it is malformed, its statement is about something else than its ``subject``, or it is
        not signed as demanded.
    """
    attestation, envelope = _read(target, descriptor)
    if verifier is None:
        return attestation
    return replace(attestation, verified_by=verifier.verify(envelope))


def find(target: Target, subject: Descriptor, predicate_type: str | None = None) -> list[Attestation]:
    """The statements attached to a manifest, signatures unchecked (``verify`` checks them).

    :param predicate_type: only statements of this type; None = all.
    :raises VerificationFailed: a referrer of the right type is malformed, or is about something else. One bad
        referrer fails the whole call: whoever can write one can also move tags, so it must be looked at.
    """
    return [attestation for attestation, _ in _walk(target, subject, predicate_type)]


def verify(
    target: Target, subject: Descriptor, verifier: Verifier, predicate_type: str | None = None
) -> list[Attestation]:
    """The statements attached to a manifest that a trusted key has signed.

    Statements of others are left out: several teams may attest one manifest.

    :raises VerificationFailed: no statement has a good signature by a trusted key; or one that claims a trusted
        key has none (it was altered); or as ``find``.
    """
    verified = []
    for attestation, envelope in _walk(target, subject, predicate_type):
        try:
            verified.append(replace(attestation, verified_by=verifier.verify(envelope)))
        except VerificationFailed as error:
            if verifier.claims(envelope):
                raise VerificationFailed(
                    f"The statement {attestation.descriptor.digest} about {target.name}@{subject.digest} names a "
                    f"trusted key, but was not signed by it as it stands: {error.message}",
                    hint="It was altered after signing: find out who wrote it.",
                ) from error
    if not verified:
        kind = f" of type {predicate_type}" if predicate_type else ""
        raise VerificationFailed(
            f"No statement{kind} about {target.name}@{subject.digest} is signed by a trusted key "
            f"({', '.join(verifier.key_ids)}).",
            hint="Attach one with: modelkit attest --key.",
        )
    return verified


def read_file(target: Target, descriptor: Descriptor, *, limit: int = 256 * 1024 * 1024) -> bytes:
    """A file of an attestation, whole and checked.

    :param limit: bytes; more is refused before reading.
    :raises LimitExceeded: it is larger than ``limit``.
    :raises DigestMismatch: its bytes are not those that the manifest names.
    """
    return read(target, descriptor, limit)


def read_named_file(
    target: Target, attestation: Attestation, name: str, named: object, *, limit: int = 256 * 1024 * 1024
) -> bytes:
    """A file of an attestation whose digest the statement itself names, so that its signature covers the file.

    :param named: resource descriptors out of the predicate, as the statement has them.
    :raises LimitExceeded: it is larger than ``limit``.
    :raises VerificationFailed: there is no such file, or the statement does not name exactly these bytes.
    """
    where = f"The attestation {target.name}@{attestation.descriptor.digest}"
    file = attestation.files.get(name)
    if file is None:
        raise VerificationFailed(f"{where} carries no {name}.")
    digests = [
        one.get("digest")
        for one in (named if isinstance(named, list) else [])
        if isinstance(one, dict) and one.get("name") == name
    ]
    if not digests or any(digest != digest_set(file.digest) for digest in digests):
        raise VerificationFailed(
            f"{where} carries a {name} ({file.digest}) that its statement does not name.",
            hint="The file was put there after the statement was made: find out who wrote it.",
        )
    return read_file(target, file, limit=limit)


def _walk(target: Target, subject: Descriptor, predicate_type: str | None) -> Iterator[tuple[Attestation, Envelope]]:
    for descriptor in target.referrers(subject, ATTESTATION):
        # An annotation of another type saves the download; that of the right type proves nothing yet.
        told = descriptor.annotations.get(PREDICATE_TYPE_ANNOTATION)
        if predicate_type is not None and told is not None and told != predicate_type:
            continue
        attestation, envelope = _read(target, descriptor)
        # The listing is a hint (a fallback tag is an index that anybody may write): the manifest itself must say it.
        if attestation.subject.digest != subject.digest:
            raise VerificationFailed(
                f"{target.name}@{descriptor.digest} is listed as a referrer of {subject.digest}, but is about "
                f"{attestation.subject.digest}."
            )
        if predicate_type is None or attestation.statement.predicate_type == predicate_type:
            yield attestation, envelope


def _read(target: Target, descriptor: Descriptor) -> tuple[Attestation, Envelope]:
    where = f"The referrer {target.name}@{descriptor.digest}"
    manifest: Any = read_json(read(target, descriptor), where, VerificationFailed)
    try:
        subject = Descriptor.from_json(manifest["subject"])
        layers = [Descriptor.from_json(layer) for layer in manifest["layers"]]
        annotations = manifest.get("annotations") or {}
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise VerificationFailed(f"{where} is no attestation: {type(error).__name__}: {error}.") from error
    if not are_annotations(annotations):
        raise VerificationFailed(f"{where} is no attestation: its annotations are no object of texts.")
    envelopes = [layer for layer in layers if layer.media_type == ENVELOPE_TYPE]
    if len(envelopes) != 1:
        raise VerificationFailed(f"{where} has {len(envelopes)} layers of type {ENVELOPE_TYPE} instead of one.")
    envelope = Envelope.from_bytes(read(target, envelopes[0], _MAX_ENVELOPE_SIZE))
    statement = Statement.from_bytes(envelope.payload)
    # What is signed must name the subject too: else a good statement about another model could be moved here.
    if not statement.names(subject.digest):
        raise VerificationFailed(
            f"{where} carries a statement about {', '.join(one.digest for one in statement.subjects)} instead.",
            hint="Somebody attached the evidence of one manifest to another.",
        )
    files = {layer.annotations[_TITLE]: layer for layer in layers if _TITLE in layer.annotations}
    if unsafe := [name for name in files if not _is_plain(name)]:
        raise VerificationFailed(f"{where} names a file {unsafe[0][:100]!r}, which is not a plain file name.")
    told = replace(descriptor, annotations=annotations, artifact_type=ATTESTATION)
    return Attestation(told, subject, statement, envelope.signatures, files), envelope


def _layer(media_type: str, data: bytes, annotations: Mapping[str, str]) -> tuple[Descriptor, bytes]:
    return Descriptor.of(media_type, data, annotations=annotations), data


def _is_plain(name: str) -> bool:
    """Whether ``name`` stays in the directory where somebody may write the file."""
    # A name of bytes that are no UTF-8 has surrogates in their place, and no manifest can say them.
    return name not in ("", ".", "..") and not any(char in "/\\\0" or "\ud800" <= char <= "\udfff" for char in name)
