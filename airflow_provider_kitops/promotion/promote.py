"""Moving a tag to a challenger, and back (docs/promotion.md says what is guaranteed and what is best effort)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from airflow_provider_kitops.evidence.signing import Signer, Verifier
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.descriptor import Descriptor, is_digest
from airflow_provider_kitops.oci.errors import Conflict, InvalidInput, NotFound, VerificationFailed
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS, is_mutable
from airflow_provider_kitops.oci.target import Target
from airflow_provider_kitops.promotion.attest import Move, attach_move, recorded, require_signed, used
from airflow_provider_kitops.promotion.decision import DecisionReport
from airflow_provider_kitops.promotion.history import (
    Kept,
    check_tag,
    displaced_at,
    history_tag,
    is_history_tag,
    kept,
    last_good,
)
from airflow_provider_kitops.promotion.lock import promotion_lock


@dataclass(frozen=True)
class Promotion:
    """What a promotion or rollback did.

    :param tag: the tag.
    :param digest: what it names now.
    :param previous: what it named before; None when it did not exist.
    :param history_tag: immutable tag that keeps ``previous``; None when there is none.
    :param statement: digest of the statement attached to ``digest`` that records the move.
    :param changed: whether this call moved the tag; False when an earlier one had done it.
    """

    tag: str
    digest: str
    previous: str | None
    history_tag: str | None
    statement: str | None
    changed: bool


def promote(
    target: Target,
    challenger_digest: str,
    tag: str,
    expected: str | None,
    *,
    decision: DecisionReport | bytes | str | Path,
    mutable_tags: Sequence[str] = DEFAULT_MUTABLE_TAGS,
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
    :param decision: the decision report, its bytes, or the path of its file. It must be for this repository,
        this tag and exactly these two digests, with the outcome ``promote``. A registry's host may differ: a decision
        stays valid when a repository is copied to another registry.
    :param mutable_tags: patterns of the tags that may move.
    :param lock_dir: where the lock is (``lock.promotion_lock``); None = ``lock.default_lock_dir``.
    :param signer: signs the promotion statement.
    :param verifier: demands that a trusted key has signed a test result about the challenger that names this
        decision (``attest.attach_decision``).
    :param now: time of the move, with a zone; for tests.
    :param details: more to say in the promotion statement, for example the address of the run.
    :raises VerificationFailed: the decision is not valid for this repository, tag and digests, or not signed as
        demanded.
    :raises InvalidInput: the challenger is no ModelKit.
    :raises NotFound: the challenger is not in ``target``.
    :raises Conflict: the tag does not name ``expected``, must not move, or moved meanwhile, or the lock is held;
        or this decision has moved the tag before, and somebody moved it away since.
    """
    check_tag(tag)
    for digest in (challenger_digest, expected):
        if digest is not None and not is_digest(digest):
            raise InvalidInput(
                f"Cannot promote to {target.name}:{tag}: {digest[:100]!r} is no digest.",
                hint="Resolve references first; promotion is by digest.",
            )
    report = _load(decision)
    _require(report, target, tag, challenger_digest, expected)
    check_mutable(target, tag, mutable_tags)
    with promotion_lock(target, tag, lock_dir):
        # Whoever pulls the tag expects a ModelKit: a statement, or any other manifest, must not come into service.
        challenger = ModelKit.read(target, challenger_digest).descriptor
        if verifier is not None:
            require_signed(target, challenger, report.to_bytes(), verifier)
        mover = _Mover(target, tag, "promote", report, signer, now or datetime.now(UTC), details)
        current, entries = mover.look()
        if current is not None and current.digest == challenger.digest:
            return mover.finish(challenger, expected, entries)
        mover.compare(current, expected)
        mover.require_unused(report, challenger, expected, entries)
        return mover.move(challenger, current, expected, entries)


def rollback(
    target: Target,
    tag: str,
    *,
    to: str | None = None,
    expected: str | None = None,
    mutable_tags: Sequence[str] = DEFAULT_MUTABLE_TAGS,
    lock_dir: Path | None = None,
    signer: Signer | None = None,
    now: datetime | None = None,
    details: Mapping[str, str] | None = None,
) -> Promotion:
    """Move ``tag`` back to a digest that it named before, by the same steps as ``promote`` but without a decision.

    :param to: digest to go to, older or newer; it must be in the tag's history. None = the last good one: what the
        tag named before the digest in service was first promoted. Rolling back twice thus goes back two steps, and
        never forward to what has just been taken out of service.
        The digest in service is left as it is, and so is its evidence.
    :param expected: what the tag must name now. With it a repeated call is harmless: give it wherever something may
        retry. None = whatever it names.
    :param mutable_tags: patterns of the tags that may move.
    :raises NotFound: the tag does not exist, has no earlier digest, or never named ``to``.
    :raises Conflict: the tag does not name ``expected``, must not move, or moved meanwhile, or the lock is held.
    """
    check_tag(tag)
    for digest in (to, expected):
        if digest is not None and not is_digest(digest):
            raise InvalidInput(f"Cannot roll {target.name}:{tag} back: {digest[:100]!r} is no digest.")
    check_mutable(target, tag, mutable_tags)
    with promotion_lock(target, tag, lock_dir):
        mover = _Mover(target, tag, "rollback", None, signer, now or datetime.now(UTC), details)
        current, entries = mover.look()
        if current is None:
            raise NotFound(f"Cannot roll {target.name}:{tag} back: there is no such tag.")
        if to is not None and current.digest == to and expected in (None, to):
            return mover.stay(current, entries)
        if expected is not None and current.digest != expected and mover.came_from(expected, current, to, entries):
            return mover.finish(current, expected, entries)
        if expected is not None:
            mover.compare(current, expected)
        destination = mover.destination(current, to, entries)
        return mover.move(destination, current, expected or current.digest, entries)


@dataclass(frozen=True)
class _Mover:
    """The steps that promotion and rollback share; the lock is held around all of them."""

    target: Target
    tag: str
    action: Literal["promote", "rollback"]
    decision: DecisionReport | None
    signer: Signer | None
    now: datetime
    details: Mapping[str, str] | None

    @property
    def name(self) -> str:
        return f"{self.target.name}:{self.tag}"

    def look(self) -> tuple[Descriptor | None, list[Kept]]:
        """What the tag names now, and the names of its history tags."""
        return self.named(), kept(self.target.tags(), self.tag)

    def named(self) -> Descriptor | None:
        try:
            return self.target.resolve(self.tag)
        except NotFound:
            return None

    def move(
        self, destination: Descriptor, current: Descriptor | None, expected: str | None, entries: list[Kept]
    ) -> Promotion:
        """Keep what the tag names, move it, read it back, record the move."""
        self.compare(current, expected)
        keep = None
        if current is not None:
            keep = self.keeping(current.digest, entries)
            if keep is None:
                keep = history_tag(self.tag, current.digest, self.now, entries[-1] if entries else None)
                self.target.tag(current, keep)
            # Registries cannot compare and swap: reading again at the last moment leaves others who write this tag
            # without our lock no more than the time of the write itself, which fetches the manifest first.
            self.compare(self.named(), expected)
        self.target.tag(destination, self.tag)
        after = self.named()
        if after is None or after.digest != destination.digest:
            raise Conflict(
                f"{self.name} was set to {destination.digest}, but names {after.digest if after else 'nothing'} now.",
                hint="Somebody else writes this tag at the same time: look who, then decide anew.",
            )
        return self.record(destination, expected, keep, changed=True)

    def finish(self, current: Descriptor, previous: str | None, entries: list[Kept]) -> Promotion:
        """The tag is where it should be: give the result of the call that moved it, and what that left undone."""
        if previous == current.digest:
            return Promotion(self.tag, current.digest, previous, None, None, changed=False)
        keep = None
        if previous is None and entries:
            raise Conflict(
                f"{self.name} names {current.digest} already, but it had named {len(entries)} other before.",
                hint="It was promoted by another decision; nothing was changed.",
            )
        if previous is not None:
            keep = self.keeping(previous, entries)
            if keep is None:
                raise Conflict(
                    f"{self.name} names {current.digest} already, but was not moved there from {previous}.",
                    hint="Somebody else moved it; nothing was changed. Compare anew with what it names now.",
                )
        return self.record(current, previous, keep, changed=False)

    def stay(self, current: Descriptor, entries: list[Kept]) -> Promotion:
        """Nothing to do: what the last move did, whoever made it.

        A statement that it did not come to attach is left to it: a promotion's has a decision, which is not known here.
        """
        keep = entries[-1].tag if entries else None
        previous = self.target.resolve(keep).digest if keep else current.digest
        if previous == current.digest:
            return Promotion(self.tag, current.digest, previous, None, None, changed=False)
        statement = recorded(self.target, current, Move(self.tag, self.action, previous, keep), signer=self.signer)
        return Promotion(self.tag, current.digest, previous, keep, statement, changed=False)

    def record(self, current: Descriptor, previous: str | None, keep: str | None, *, changed: bool) -> Promotion:
        move = Move(self.tag, self.action, previous, keep)
        # Only the time in the history tag is the same for a call that was cut off and for the one that finishes it.
        moved_on = (displaced_at(keep, self.tag) if keep else None) or self.now
        statement = None
        if not changed:
            statement = recorded(self.target, current, move, decision=self.decision, signer=self.signer)
        if statement is None:
            statement = attach_move(
                self.target,
                current,
                move,
                moved_on=moved_on,
                decision=self.decision,
                details=self.details,
                signer=self.signer,
            ).digest
        return Promotion(self.tag, current.digest, previous, keep, statement, changed)

    def require_unused(
        self, decision: DecisionReport, challenger: Descriptor, expected: str | None, entries: list[Kept]
    ) -> None:
        """Raise ``Conflict`` if this decision has moved the tag before: whoever moved it away since meant it."""
        undone = None
        if len(entries) > 1 and self.keeping(challenger.digest, entries) and self.keeping(expected or "", entries[:-1]):
            undone = entries[-2].tag
        if used(self.target, challenger, self.tag, decision, undone):
            raise Conflict(
                f"{self.name} was moved to {challenger.digest} before, by this decision or by one that was cut off "
                "before it was recorded, and has been moved away since; it was not moved again.",
                hint="A decision is good for one promotion. Judge again on new items, or put the digest back by hand: "
                f"modelkit rollback {self.name} --to {challenger.digest}.",
            )

    def compare(self, current: Descriptor | None, expected: str | None) -> None:
        """Raise ``Conflict`` unless the tag names what was expected."""
        if (current.digest if current else None) != expected:
            raise Conflict(
                f"{self.name} names {current.digest if current else 'nothing'}, not {expected or 'nothing'} as "
                "expected; it was not moved.",
                hint="It moved since the decision was made: compare the challenger with what it names now."
                if self.action == "promote"
                else f"Look with modelkit rollback {self.name} --list, then give what it names now as --expected.",
            )

    def keeping(self, digest: str, entries: list[Kept]) -> str | None:
        """The newest history tag, if it keeps ``digest``: made by the last move, or by one that was cut off."""
        if entries and entries[-1].may_be(digest) and self.target.resolve(entries[-1].tag).digest == digest:
            return entries[-1].tag
        return None

    def came_from(self, expected: str, current: Descriptor, to: str | None, entries: list[Kept]) -> bool:
        """Whether the last move is the rollback that is asked for, made by an earlier call."""
        if self.keeping(expected, entries) is None:
            return False
        if to is not None:
            # What was in service for the first time came by a promotion: there was nothing to go back to.
            return current.digest == to and self.entry_of(to, entries[:-1]) is not None
        good = last_good(entries[:-1], expected)
        return good is not None and good.may_be(current.digest)

    def entry_of(self, digest: str, entries: list[Kept]) -> Descriptor | None:
        """The manifest with that digest, if a history tag keeps it."""
        for entry in reversed(entries):
            if entry.may_be(digest):
                found = self.target.resolve(entry.tag)
                if found.digest == digest:
                    return found
        return None

    def destination(self, current: Descriptor, to: str | None, entries: list[Kept]) -> Descriptor:
        """The manifest to go back (or forward again) to."""
        if to is None:
            good = last_good(entries, current.digest)
            if good is None:
                raise NotFound(
                    f"Cannot roll {self.name} back: its history has no digest before {current.digest}.",
                    hint="Name the digest to go to." if entries else "There is nothing to go back to.",
                )
            return self.target.resolve(good.tag)
        found = self.entry_of(to, entries)
        if found is not None:
            return found
        raise NotFound(
            f"Cannot roll {self.name} back to {to}: no history tag keeps it, so it was never promoted.",
            hint="A new digest needs a decision: promote it.",
        )


def _load(decision: DecisionReport | bytes | str | Path) -> DecisionReport:
    if isinstance(decision, (str, Path)):
        path = Path(decision)
        try:
            decision = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"Cannot read the decision report {path}: {error.strerror}.") from error
    # A model can be copied with changes without being checked again; what is read from bytes has been.
    return DecisionReport.from_bytes(decision if isinstance(decision, bytes) else decision.to_bytes())


def check_mutable(target: Target, tag: str, mutable_tags: Sequence[str]) -> None:
    """Refuse a tag that names one digest for good, and the history that rollback trusts.

    :raises Conflict: it must not move.
    """
    if is_history_tag(tag) or not is_mutable(tag, mutable_tags):
        raise Conflict(
            f"The tag {tag} of {target.name} must not move.",
            hint=f"Tags that may move are: {', '.join(mutable_tags) or 'none'}.",
        )


def _require(report: DecisionReport, target: Target, tag: str, challenger: str, expected: str | None) -> None:
    """Raise ``VerificationFailed`` unless the decision is to promote this challenger over this champion, here."""
    if Reference.parse(report.repository).repository != Reference.parse(target.name).repository:
        raise VerificationFailed(f"The decision is about the repository {report.repository}, not {target.name}.")
    if report.tag != tag:
        raise VerificationFailed(
            f"The decision is about the tag {report.tag!r}, not about {tag!r}.",
            hint="Name the tag to the gate: each tag needs a decision of its own.",
        )
    if report.challenger != challenger:
        raise VerificationFailed(f"The decision is about {report.challenger}, not about the challenger {challenger}.")
    if report.champion != expected:
        raise VerificationFailed(
            f"The decision was made against {report.champion or 'no champion'}, "
            f"not against {expected or 'no champion'}."
        )
    if report.outcome != "promote":
        raise VerificationFailed(f"The decision about {challenger} is {report.outcome!r}, not 'promote'.")
