"""Evidence about a ModelKit: attest, verify."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops._cli.options import Verbs, add_verb, content_of, path
from airflow_provider_kitops._cli.session import Session, shown
from airflow_provider_kitops.oci.description import describe
from airflow_provider_kitops.oci.disk import write_file
from airflow_provider_kitops.oci.errors import Conflict, InvalidInput, VerificationFailed

if TYPE_CHECKING:
    from airflow_provider_kitops.evidence.attach import Attestation
    from airflow_provider_kitops.oci.descriptor import Descriptor
    from airflow_provider_kitops.oci.target import Target

_PREDICATE = "predicate.json"
_LONGEST_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_VERSION = re.compile(r"v?[0-9][0-9.]*")


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    attest = add_verb(verbs, "attest", _attest, "attach an in-toto statement to a ModelKit")
    attest.add_argument("reference", metavar="REF")
    attest.add_argument("--type", required=True, metavar="URI", help="predicate type")
    attest.add_argument("--predicate", required=True, type=path, metavar="FILE", help="the predicate, a JSON object")
    attest.add_argument(
        "--file", action="append", default=[], type=path, metavar="FILE", help="store this beside it; may be repeated"
    )
    attest.add_argument("--key", type=path, metavar="FILE", help="private key (PEM) to sign with")

    verify = add_verb(
        verbs,
        "verify",
        _verify,
        "check the content of a ModelKit and the statements attached to it",
        "Read every byte of a ModelKit and check it against its digests, then check that each statement attached to "
        "it is about it. With --key a statement must be signed by that key; with --type there must be one of that "
        "type. With --dir what the statements say, and the files stored beside them, are written there.",
    )
    verify.add_argument("reference", metavar="REF")
    verify.add_argument("--key", type=path, metavar="FILE", help="public keys (PEM) that are trusted")
    verify.add_argument("--type", metavar="URI", help="predicate type that must be there")
    verify.add_argument(
        "-d", "--dir", type=path, metavar="DIR", help="write the predicates and the files beside them into DIR"
    )
    verify.add_argument("--no-content", action="store_true", help="look at the statements only")


def _attest(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.evidence._json import read_json
    from airflow_provider_kitops.evidence.attach import attach
    from airflow_provider_kitops.evidence.signing import load_signer
    from airflow_provider_kitops.evidence.statement import Statement, Subject

    predicate = read_json(content_of(options.predicate), str(options.predicate), InvalidInput)
    if not isinstance(predicate, dict):
        raise InvalidInput(f"{options.predicate} is not a JSON object.")
    signer = load_signer(options.key) if options.key else None
    files = {file.name: content_of(file) for file in options.file}
    if len(files) != len(options.file):
        raise InvalidInput("Two of the files to attach have the same name.")
    _, reference, target, subject = session.resolve(options.reference)
    statement = Statement([Subject(reference.name, subject.digest)], options.type, predicate)
    made = attach(target, subject, statement, signer=signer, files=files)
    answer = describe(
        target, reference, made, (), subject=subject.digest, predicate_type=options.type, signed=signer is not None
    )
    session.answer(answer, f"attached {answer['reference']} to {subject.digest}")
    return 0


def _verify(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.evidence import attach
    from airflow_provider_kitops.evidence.signing import load_verifier

    verifier = load_verifier(options.key) if options.key else None
    _, reference, target, subject = session.resolve(options.reference)
    if not options.no_content:
        _check_content(session, target, subject)
    if verifier is not None:
        found = attach.verify(target, subject, verifier, options.type)
    else:
        found = attach.find(target, subject, options.type)
        if options.type and not found:
            raise VerificationFailed(f"No statement of type {options.type} is attached to {reference}.")
    statements: list[dict[str, Any]] = [
        {
            "digest": one.descriptor.digest,
            "predicate_type": one.statement.predicate_type,
            "signatures": [signature.key_id for signature in one.signatures],
            "verified_by": one.verified_by or None,
        }
        for one in found
    ]
    if options.dir:
        for one, each in zip(found, statements, strict=True):
            each["files"] = _write(session, options.dir, target, one)
    answer = describe(target, reference, subject, content_read=not options.no_content, statements=statements)
    content = f"{answer['size']} bytes as they should be" if answer["content_read"] else "content not read"
    lines = [f"{answer['reference']}: {content}"]
    for each in statements:
        signed = f"signed by {each['verified_by']}" if each["verified_by"] else "signature not checked"
        signed = signed if each["signatures"] else "not signed"
        lines.append(f"  {shown(each['predicate_type'])}  {each['digest']}  {signed}")
        lines += [f"    {shown(file)}" for file in each.get("files", ())]
    session.answer(answer, "\n".join(lines))
    return 0


def _write(session: Session, directory: Path, target: Target, found: Attestation) -> list[str]:
    """Write a statement's predicate and the files beside it into a directory of their own; the paths.

    No name of a directory, and no unusual letter, is taken from the artifact.
    """
    from airflow_provider_kitops.evidence.attach import read_file

    kind = _kind(found.statement.predicate_type)
    into = directory / f"{kind}-{found.descriptor.digest.removeprefix('sha256:')[:12]}"
    predicate = json.dumps(found.statement.predicate, indent=2, ensure_ascii=False, allow_nan=False)
    paths = [_write_file(into / _PREDICATE, predicate.encode() + b"\n")]
    taken = {_PREDICATE}
    for title, descriptor in sorted(found.files.items()):
        name = _file_name(title, taken)
        paths.append(_write_file(into / name, read_file(target, descriptor)))
        # One who has no key can store other files beside a statement that was signed.
        if found.verified_by and descriptor.digest.removeprefix("sha256:") not in predicate:
            session.note(f"modelkit: the signature does not cover {paths[-1]}: the statement does not name its digest.")
    return paths


def _kind(predicate_type: str) -> str:
    """A predicate type in a word: its last part that is no version."""
    parts = [part for part in re.split(r"[/:#?]+", predicate_type) if part and not _VERSION.fullmatch(part)]
    word = _UNSAFE.sub("-", parts[-1] if parts else "").strip(".-_")[:_LONGEST_NAME]
    return word or "statement"


def _file_name(title: str, taken: set[str]) -> str:
    """A title as the name of a file that is not taken yet, on a file system that ignores case, too."""
    plain = _UNSAFE.sub("_", title).lstrip(".-")[-_LONGEST_NAME:].lstrip(".-") or "file"
    name, number = plain, 1
    while name.lower() in taken:
        number += 1
        name = f"{number}-{plain}"
    taken.add(name.lower())
    return name


def _write_file(file: Path, data: bytes) -> str:
    """Write a file whole or not at all, through no link, and over none of somebody else's; its path.

    :raises Conflict: there is another one.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink() or file.exists():
        if file.is_symlink() or not file.is_file() or file.read_bytes() != data:
            raise Conflict(
                f"Cannot write {file}: there is something else already.", hint="Name another directory with --dir."
            )
        return str(file)
    write_file(file, data)
    return str(file)


def _check_content(session: Session, target: Target, subject: Descriptor) -> None:
    """Read manifest, config and layers to the end, which checks them: also layers of a type that is not known."""
    from airflow_provider_kitops.modelkit.modelkit import ModelKit
    from airflow_provider_kitops.oci.manifest import Links
    from airflow_provider_kitops.oci.target import Progress

    kit = ModelKit.read(target, subject.digest)
    with session.progress() as hook:
        for descriptor in Links.parse(subject.media_type, kit.manifest).blobs:
            done = 0
            with target.fetch(descriptor) as reader:
                while chunk := reader.read(1024 * 1024):
                    done += len(chunk)
                    hook(Progress("download", descriptor.digest[7:19], done, descriptor.size))
