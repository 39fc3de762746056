"""Naming and removing ModelKits: tag, untag, remove."""

from __future__ import annotations

import argparse

from airflow_provider_kitops._cli.options import Verbs, add_verb
from airflow_provider_kitops._cli.session import Session, spoken
from airflow_provider_kitops.oci.description import describe, described
from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.reference import Reference, shown


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    tag = add_verb(verbs, "tag", _tag, "give a ModelKit another tag, or another name in the same registry or layout")
    tag.add_argument("reference", metavar="REF")
    tag.add_argument("destination", metavar="REPOSITORY:TAG", help="or :TAG; further tags after commas")

    untag = add_verb(verbs, "untag", _untag, "remove tags and leave the ModelKit")
    untag.add_argument("reference", metavar="REPOSITORY:TAG", help="further tags after commas")

    remove = add_verb(
        verbs,
        "remove",
        _remove,
        "remove a ModelKit from its repository",
        "Remove a ModelKit. By tag: the tag, and the ModelKit too if that was its last one. By digest, or with "
        "--force: the ModelKit and all its tags. What is attached to it stays.",
    )
    remove.add_argument("reference", metavar="REF")
    remove.add_argument("--force", action="store_true", help="whatever other tags it has, and though an index holds it")


def _tag(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.oci.retag import retag

    _, reference, target, descriptor = session.resolve(options.reference)
    text = options.destination
    if text.startswith(":"):
        text = f"{reference.name}{text}"
    _, given, destination, tags = session.destination(text, default=())
    if not tags:
        hint = "Write repository:tag." if "/" in text else f"For a tag in the same repository write :{text}"
        raise InvalidReference(f"{text!r} names no tag.", hint=hint)
    if given.registry != reference.registry:
        raise InvalidReference(
            f"Cannot tag {reference} as {text}: that is elsewhere.", hint="Copy it there: modelkit copy."
        )
    retag(target, descriptor, destination, tags, mutable_tags=session.mutable_tags, concurrency=options.concurrency)
    answer = describe(destination, given, descriptor, tags)
    session.answer(answer, f"tagged {spoken(answer)} as {', '.join(tags)}")
    return 0


def _untag(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.oci.removal import untag

    if "@" in options.reference:
        raise InvalidReference(
            f"{shown(options.reference)!r} names a digest, and only tags are taken away here.",
            hint="Write repository:tag[,tag…]. To remove the ModelKit itself: modelkit remove.",
        )
    _, reference, target, tags = session.destination(options.reference, default=())
    if not tags:
        raise InvalidReference(f"{options.reference!r} names no tag.", hint="Write repository:tag.")
    untagged = {tag: descriptor.digest for tag, descriptor in untag(target, tags).items()}
    said = "\n".join(f"untagged {reference}:{tag}, which named {digest}" for tag, digest in untagged.items())
    session.answer({"repository": reference.name, "untagged": untagged}, said)
    return 0


def _remove(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.oci.removal import remove

    if "," in options.reference:
        raise InvalidReference(
            f"{shown(options.reference)!r} names more than one tag; one ModelKit is removed at a time.",
            hint="Write repository:tag or repository@sha256:…. To take several tags away: modelkit untag.",
        )
    if not Reference.parse(options.reference).selector:
        # Nothing is ever removed by a default.
        raise InvalidReference(f"{options.reference!r} names neither tag nor digest.", hint="Write repository:tag.")
    _, reference, target = session.target(options.reference)
    done = remove(target, reference, force=options.force)
    answer = described(reference, done.descriptor, done.tags, size=done.size, removed=done.removed)
    if done.removed:
        said = f"removed {spoken(answer)}"
    else:
        said = f"untagged {reference}; {', '.join(done.tags)} still names {done.descriptor.digest}"
    session.answer(answer, said)
    return 0
