"""Evidence of promotion: the decision beside the challenger, and the record that a tag was moved."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from airflow_provider_kitops.evidence.attach import (
    ATTESTATION,
    PREDICATE_TYPE_ANNOTATION,
    Attestation,
    attach,
    load,
    read_named_file,
    verify,
)
from airflow_provider_kitops.evidence.provenance import timestamp
from airflow_provider_kitops.evidence.result import result_predicate
from airflow_provider_kitops.evidence.signing import Signer, Verifier
from airflow_provider_kitops.evidence.statement import (
    PROMOTION,
    TEST_RESULT,
    ResourceDescriptor,
    Statement,
    Subject,
    digest_set,
)
from airflow_provider_kitops.oci.descriptor import Descriptor, digest_of
from airflow_provider_kitops.oci.errors import LimitExceeded, NotFound, VerificationFailed
from airflow_provider_kitops.oci.target import Target
from airflow_provider_kitops.promotion.decision import DecisionReport

logger = logging.getLogger(__name__)

#: Name of the decision report among the files of an attestation, and of its digest in the signed statement.
DECISION_FILE = "decision.json"

_RESULTS: Mapping[str, Literal["PASSED", "WARNED", "FAILED"]] = {
    "promote": "PASSED",
    "inconclusive": "WARNED",
    "reject": "FAILED",
}
_TEST = "challenger is better than champion"
# Annotations of a promotion statement: one listing of the referrers tells which move each is about.
_TAG = "airflow-provider-kitops.promotion.tag"
_ACTION = "airflow-provider-kitops.promotion.action"
_PREVIOUS = "airflow-provider-kitops.promotion.previous"
_HISTORY_TAG = "airflow-provider-kitops.promotion.history-tag"


@dataclass(frozen=True)
class Move:
    """One move of a tag.

    :param tag: the tag.
    :param action: by a decision, or back (or forward again) by hand.
    :param previous: digest that it named before; None when it did not exist.
    :param history_tag: immutable tag that keeps ``previous``.
    """

    tag: str
    action: Literal["promote", "rollback"]
    previous: str | None
    history_tag: str | None


def attach_decision(
    target: Target,
    decision: DecisionReport | bytes,
    *,
    files: Mapping[str, bytes] | None = None,
    signer: Signer | None = None,
    url: str = "",
) -> Descriptor:
    """Attach a decision to the challenger that it is about, as an in-toto test result.

    The signed statement names the digest of the decision and of every file, so that one signature covers them all.

    :param target: the repository that holds the challenger.
    :param decision: the report, or its bytes.
    :param files: what the decision was made from (the judge's report, its verdicts), by file name.
    :param url: where the run can be looked at.
    :return: the referrer; attaching the same again gives the same one.
    :raises NotFound: the challenger is not in ``target``.
    :raises VerificationFailed: the bytes are no valid decision.
    """
    report = DecisionReport.from_bytes(decision if isinstance(decision, bytes) else decision.to_bytes())
    data = report.to_bytes()
    subject = target.resolve(report.challenger)
    contents = {**(files or {}), DECISION_FILE: data}
    configuration = [
        ResourceDescriptor(name=name, digest=digest_of(content)) for name, content in sorted(contents.items())
    ]
    configuration.append(ResourceDescriptor(name="policy", digest=report.policy_digest))
    if report.champion:
        configuration.append(ResourceDescriptor(name="champion", digest=report.champion))
    result = _RESULTS[report.outcome]
    predicate = result_predicate(
        result,
        configuration=configuration,
        url=url,
        passed=[_TEST] if result == "PASSED" else (),
        warned=[_TEST] if result == "WARNED" else (),
        failed=[_TEST] if result == "FAILED" else (),
    )
    statement = Statement([Subject(target.name, subject.digest)], TEST_RESULT, predicate)
    return attach(target, subject, statement, signer=signer, files=contents)


def read_decision(target: Target, reference: str) -> bytes:
    """The decision report carried by an attestation.

    :param reference: digest of the attestation, as ``attach_decision`` returned it.
    :raises NotFound: there is no such attestation.
    :raises VerificationFailed: it is malformed, carries no decision about its subject, or one that its statement
        does not name.
    """
    attestation = load(target, target.resolve(reference))
    predicate = attestation.statement.predicate
    named = [predicate["decision"]] if "decision" in predicate else predicate.get("configuration")
    data = read_named_file(target, attestation, DECISION_FILE, named)
    challenger = DecisionReport.from_bytes(data).challenger
    if not attestation.statement.names(challenger):
        raise VerificationFailed(
            f"The attestation {target.name}@{reference} carries a decision about another challenger, {challenger}."
        )
    return data


def require_signed(target: Target, challenger: Descriptor, decision: bytes, verifier: Verifier) -> Attestation:
    """Demand that a trusted key has signed a passed test result about the challenger that names this decision.

    :raises VerificationFailed: there is none.
    """
    digest = digest_set(digest_of(decision))
    for attestation in verify(target, challenger, verifier, TEST_RESULT):
        predicate = attestation.statement.predicate
        named = [one.get("digest") for one in predicate.get("configuration", []) if isinstance(one, dict)]
        if predicate.get("result") == "PASSED" and digest in named:
            return attestation
    raise VerificationFailed(
        f"No test result about {target.name}@{challenger.digest} that a trusted key signed names the decision "
        f"{digest_of(decision)} as passed.",
        hint="Sign the decision where it is made, or promote with the decision that was signed.",
    )


def attach_move(
    target: Target,
    subject: Descriptor,
    move: Move,
    *,
    moved_on: datetime,
    decision: DecisionReport | None = None,
    details: Mapping[str, str] | None = None,
    signer: Signer | None = None,
) -> Descriptor:
    """Record beside the manifest that a tag was moved to it.

    :param subject: what the tag names now.
    :param move: what was done.
    :param moved_on: when, with a zone.
    :param decision: why; attached whole. None for a rollback.
    :param details: more to say, for example the address of the run.
    """
    predicate: dict[str, Any] = {
        "action": move.action,
        "tag": move.tag,
        "repository": target.name,
        "movedOn": timestamp(moved_on),
    }
    if move.previous is not None:
        predicate["previous"] = {"digest": digest_set(move.previous)}
    if move.history_tag is not None:
        predicate["historyTag"] = move.history_tag
    files = {}
    if decision is not None:
        files[DECISION_FILE] = decision.to_bytes()
        predicate["decision"] = {"name": DECISION_FILE, "digest": digest_set(digest_of(files[DECISION_FILE]))}
        predicate["policy"] = {"digest": digest_set(decision.policy_digest)}
    if details:
        predicate["details"] = dict(details)
    statement = Statement([Subject(target.name, subject.digest)], PROMOTION, predicate)
    annotations = {_TAG: move.tag, _ACTION: move.action}
    if move.previous is not None:
        annotations[_PREVIOUS] = move.previous
    if move.history_tag is not None:
        annotations[_HISTORY_TAG] = move.history_tag
    return attach(target, subject, statement, signer=signer, files=files, annotations=annotations)


def recorded(
    target: Target,
    subject: Descriptor,
    move: Move,
    *,
    decision: DecisionReport | None = None,
    signer: Signer | None = None,
) -> str | None:
    """Digest of the statement that records this move, or None.

    A promotion is recorded only by a statement of its own, which has the decision; for a rollback any will do.

    :param decision: why; the statement must name it. None = whichever.
    :param signer: must have signed the statement. None = a statement would not be signed, so no signature is asked.
    """
    verifier = signer.verifier if signer is not None else None
    for attestation in _moves(target, subject, move.tag, verifier):
        said = attestation.statement.predicate
        if (
            said.get("action") in (move.action, "promote")
            and said.get("previous") == (None if move.previous is None else {"digest": digest_set(move.previous)})
            and said.get("historyTag") == move.history_tag
            and (decision is None or _names(said, decision))
        ):
            return attestation.descriptor.digest
    return None


def used(target: Target, subject: Descriptor, tag: str, decision: DecisionReport, after: str | None) -> bool:
    """Whether the tag was moved to the subject by this decision before.

    Signatures are not asked for: a statement that somebody forged may hold a promotion up, never bring one about.

    :param after: history tag of a move to the subject that has been undone; one that no statement records may have
        been made by this decision too. None = there was no such move.
    """
    said = [attestation.statement.predicate for attestation in _moves(target, subject, tag)]
    return any(_names(one, decision) for one in said) or (
        after is not None and all(one.get("historyTag") != after for one in said)
    )


def _moves(target: Target, subject: Descriptor, tag: str, verifier: Verifier | None = None) -> Iterator[Attestation]:
    """The statements that this tag of this repository was moved to the subject.

    The annotations only save downloads. What is no such statement, or not signed as demanded, is passed over: it must
    not stand in for the statement that ought to be there.
    """
    for descriptor in target.referrers(subject, ATTESTATION):
        told = descriptor.annotations
        if told.get(PREDICATE_TYPE_ANNOTATION, PROMOTION) != PROMOTION or told.get(_TAG, tag) != tag:
            continue
        try:
            attestation = load(target, descriptor, verifier)
        except (VerificationFailed, LimitExceeded, NotFound) as error:
            logger.warning("A referrer is passed over, it records no move of %s:%s: %s", target.name, tag, error)
            continue
        said = attestation.statement
        if (
            attestation.subject.digest == subject.digest
            and said.predicate_type == PROMOTION
            and said.predicate.get("tag") == tag
            and said.predicate.get("repository") == target.name
        ):
            yield attestation


def _names(predicate: Mapping[str, Any], decision: DecisionReport) -> bool:
    named = predicate.get("decision")
    return isinstance(named, dict) and named.get("digest") == digest_set(decision.digest)
