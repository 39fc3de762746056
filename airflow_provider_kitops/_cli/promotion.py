"""Moving a tag by a decision, and back: promote, rollback."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from airflow_provider_kitops._cli.inspection import columns
from airflow_provider_kitops._cli.options import Verbs, add_verb, path
from airflow_provider_kitops._cli.session import Session
from airflow_provider_kitops.oci.description import describe
from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.reference import Reference

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.target import Target
    from airflow_provider_kitops.promotion.promote import Promotion


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    promote = add_verb(verbs, "promote", _promote, "move a tag to a challenger, if a decision report says so")
    promote.add_argument("reference", metavar="REPOSITORY@DIGEST", help="the challenger")
    promote.add_argument("--tag", required=True, metavar="TAG", help="tag to move")
    promote.add_argument(
        "--expected", metavar="DIGEST", help="what the tag must name now (default, or none: it must not exist)"
    )
    promote.add_argument("--report", required=True, type=path, metavar="FILE", help="decision report")
    promote.add_argument(
        "--verify-key", type=path, metavar="FILE", help="public keys (PEM): one must have signed the decision"
    )

    rollback = add_verb(
        verbs,
        "rollback",
        _rollback,
        "move a tag back to what it named before",
        "Move a tag back to the last good digest, or with --to to any digest that it named before, older or newer.",
    )
    rollback.add_argument("reference", metavar="REPOSITORY:TAG")
    rollback.add_argument("--to", metavar="DIGEST", help="digest to go to")
    rollback.add_argument("--expected", metavar="DIGEST", help="what the tag must name now; give it in scripts")
    rollback.add_argument("--list", action="store_true", help="show what the tag named before, and change nothing")
    for verb in (promote, rollback):
        verb.add_argument("--key", type=path, metavar="FILE", help="private key (PEM) to sign the statement with")
        verb.add_argument("--lock-dir", type=path, metavar="DIR", help="where the lock is, for all who share it")


def _promote(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.evidence.signing import load_signer, load_verifier
    from airflow_provider_kitops.promotion.promote import promote

    reference = Reference.parse(options.reference)
    if not reference.digest:
        raise InvalidReference(
            f"Cannot promote {options.reference!r}: it has no digest.",
            hint="A tag may have moved since the decision: write repository@sha256:...",
        )
    signer = load_signer(options.key) if options.key else None
    verifier = load_verifier(options.verify_key) if options.verify_key else None
    _, reference, target = session.target(options.reference)
    done = promote(
        target,
        reference.digest,
        options.tag,
        None if options.expected in (None, "", "none") else options.expected,
        decision=options.report,
        mutable_tags=session.mutable_tags,
        lock_dir=options.lock_dir,
        signer=signer,
        verifier=verifier,
    )
    return _report(session, reference, target, done)


def _rollback(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.evidence.signing import load_signer
    from airflow_provider_kitops.promotion.promote import rollback

    written = Reference.parse(options.reference)
    if not written.tag or written.digest:
        raise InvalidReference(f"{options.reference!r} names no tag to roll back.", hint="Write repository:tag.")
    signer = load_signer(options.key) if options.key else None
    _, reference, target = session.target(options.reference)
    if options.list:
        return _history(session, reference, target)
    done = rollback(
        target,
        reference.tag,
        to=options.to,
        expected=options.expected,
        mutable_tags=session.mutable_tags,
        lock_dir=options.lock_dir,
        signer=signer,
    )
    return _report(session, reference, target, done)


def _report(session: Session, reference: Reference, target: Target, done: Promotion) -> int:
    descriptor = target.resolve(done.digest)
    answer = describe(
        target,
        reference,
        descriptor,
        (done.tag,),
        previous=done.previous,
        history_tag=done.history_tag,
        statement=done.statement,
        changed=done.changed,
    )
    if done.changed:
        text = f"{target.name}:{done.tag} names {done.digest} now"
        text += f"; before: {done.previous}, kept as {done.history_tag}" if done.previous else ""
    else:
        text = f"{target.name}:{done.tag} names {done.digest} already"
    session.answer(answer, text)
    return 0


def _history(session: Session, reference: Reference, target: Target) -> int:
    from airflow_provider_kitops.promotion.history import history

    entries = history(target, reference.tag)
    rows = [{"tag": one.tag, "digest": one.digest, "displaced": one.displaced.isoformat()} for one in entries]
    table = [("DISPLACED", "DIGEST", "TAG"), *((each["displaced"], each["digest"], each["tag"]) for each in rows)]
    session.answer({"reference": str(reference), "history": rows}, columns(table))
    return 0
