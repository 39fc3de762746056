"""Moving a tag to a challenger, and back (docs/promotion.md says what is guaranteed and what is best effort)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_kitops.evidence.signing import Signer, Verifier
from airflow_provider_kitops.oci.target import Target

if TYPE_CHECKING:
    from airflow_provider_kitops.promotion.decision import DecisionReport


@dataclass(frozen=True)
class Promotion:
    """What a promotion or rollback did.

    :param tag: the tag.
    :param digest: what it names now.
    :param previous: what it named before; None when it did not exist.
    :param history_tag: immutable tag that keeps ``previous``; None when there is none.
    :param statement: digest of the promotion statement attached to ``digest``.
    :param changed: whether this call moved the tag; False when an earlier one had done it.
    """

    tag: str
    digest: str
    previous: str | None
    history_tag: str | None
    statement: str
    changed: bool


def promote(
    target: Target,
    challenger_digest: str,
    tag: str,
    expected: str | None,
    *,
    decision: DecisionReport | bytes | str | Path,
    lock_dir: Path | None = None,
    signer: Signer | None = None,
    verifier: Verifier | None = None,
    now: datetime | None = None,
    details: Mapping[str, str] | None = None,
) -> Promotion:
    """Move ``tag`` from ``expected`` to the challenger, if a valid decision says so.

    Done twice it gives the same result, moves nothing and attaches nothing the second time. Killed at any point and
    done again, with the same arguments, it ends in the same state. The number of requests depends neither on the
    size of the ModelKit nor on the number of earlier promotions, but for the pages of the tag list.

    :param target: the repository of the tag.
    :param challenger_digest: manifest to promote; it must be in ``target``.
    :param tag: tag to move.
    :param expected: what the tag must name now; None = it must not exist.
    :param decision: the decision report, its bytes, or the path of its file. It must be for exactly these two
        digests, with the outcome ``promote``.
    :param lock_dir: where the lock is (``lock.promotion_lock``); None = the user's default.
    :param signer: signs the promotion statement.
    :param verifier: demands that a trusted key has signed a test result about the challenger that names this
        decision (``attest.attach_decision``).
    :param now: time of the move, with a zone; for tests.
    :param details: more to say in the promotion statement, for example the address of the run.
    :raises VerificationFailed: the decision is not valid for these digests, or not signed as demanded.
    :raises NotFound: the challenger is not in ``target``.
    :raises Conflict: the tag does not name ``expected``, or moved meanwhile, or the lock is held.
    """
    raise NotImplementedError


def rollback(
    target: Target,
    tag: str,
    *,
    to: str | None = None,
    expected: str | None = None,
    lock_dir: Path | None = None,
    signer: Signer | None = None,
    now: datetime | None = None,
    details: Mapping[str, str] | None = None,
) -> Promotion:
    """Move ``tag`` back to a digest that it named before, by the same steps as ``promote`` but without a decision.

    :param to: digest to go to, older or newer; it must be in the tag's history. None = the last good one: what the
        tag named before the digest in service was first promoted. Rolling back twice thus goes back two steps, and
        never forward to what has just been taken out of service.
    :param expected: what the tag must name now. With it a repeated call is harmless: give it wherever something may
        retry. None = whatever it names.
    :raises NotFound: the tag does not exist, has no earlier digest, or never named ``to``.
    :raises Conflict: the tag does not name ``expected``, or moved meanwhile, or the lock is held.
    """
    raise NotImplementedError
