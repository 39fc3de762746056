from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_kitops.evidence.attach import find, read_file
from airflow_provider_kitops.evidence.signing import load_signer, load_verifier
from airflow_provider_kitops.evidence.statement import PROMOTION
from airflow_provider_kitops.oci.errors import Conflict, InvalidInput, NotFound, StorageError, VerificationFailed
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.promotion import promote as promote_module
from airflow_provider_kitops.promotion.attest import DECISION_FILE, attach_decision, read_decision
from airflow_provider_kitops.promotion.decision import DecisionReport
from airflow_provider_kitops.promotion.history import history
from airflow_provider_kitops.promotion.lock import default_lock_dir, promotion_lock
from airflow_provider_kitops.promotion.promote import promote, rollback
from tests.unit.evidence.conftest import make_keys, put_manifest
from tests.unit.promotion.decisions import decision

TAG = "champion"
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def target(tmp_path) -> Layout:
    return Layout(tmp_path / "layout", "demo/model")


@pytest.fixture
def a(target) -> str:
    return put_manifest(target, "a").digest


@pytest.fixture
def b(target) -> str:
    return put_manifest(target, "b").digest


@pytest.fixture
def c(target) -> str:
    return put_manifest(target, "c").digest


def move(target, challenger: str, expected: str | None, **more):
    return promote(target, challenger, TAG, expected, decision=decision(challenger, expected), **more)


def another_decision(challenger: str, expected: str | None, number: int = 0) -> DecisionReport:
    """A decision about the same two, from another report of the judge."""
    return decision(challenger, expected).model_copy(update={"judge_report": f"sha256:{number:064x}"})


def statements(target, digest: str):
    return [one.statement.predicate for one in find(target, target.resolve(digest), PROMOTION)]


def state(target) -> tuple:
    """All that a promotion leaves behind: what each tag names, and what is attached to it."""
    tags = {tag: target.resolve(tag).digest for tag in target.tags()}
    return tags, {digest: statements(target, digest) for digest in sorted(set(tags.values()))}


# --- promotion


def test_the_first_champion_needs_no_history(target, a):
    done = move(target, a, None)
    assert (done.digest, done.previous, done.history_tag, done.changed) == (a, None, None, True)
    assert target.tags() == [TAG]
    assert target.resolve(TAG).digest == a


def test_the_old_champion_is_kept_under_an_immutable_tag(target, a, b):
    move(target, a, None)
    done = move(target, b, a, now=NOON)
    assert done.history_tag == f"champion-20260102T120000Z-{a[7:19]}"
    assert target.resolve(done.history_tag).digest == a
    assert target.resolve(TAG).digest == b
    assert [(one.digest, one.displaced) for one in history(target, TAG)] == [(a, NOON)]


def test_the_move_is_recorded_beside_the_new_champion_with_its_decision(target, a, b):
    move(target, a, None)
    done = move(target, b, a, now=NOON, details={"run": "https://airflow/runs/1"})
    [found] = find(target, target.resolve(b), PROMOTION)
    report = decision(b, a)
    assert found.descriptor.digest == done.statement
    assert found.statement.predicate == {
        "action": "promote",
        "tag": TAG,
        "repository": target.name,
        "movedOn": "2026-01-02T12:00:00Z",
        "previous": {"digest": {"sha256": a[7:]}},
        "historyTag": done.history_tag,
        "decision": {"name": DECISION_FILE, "digest": {"sha256": report.digest[7:]}},
        "policy": {"digest": {"sha256": report.policy_digest[7:]}},
        "details": {"run": "https://airflow/runs/1"},
    }
    assert DecisionReport.from_bytes(read_file(target, found.files[DECISION_FILE])) == report


def test_promoting_twice_gives_the_same_result_and_leaves_nothing_more(target, a, b):
    move(target, a, None)
    first = move(target, b, a)
    before = state(target)
    second = move(target, b, a, now=datetime.now(UTC) + timedelta(hours=1))
    assert (second.digest, second.previous, second.history_tag) == (first.digest, first.previous, first.history_tag)
    assert second.statement == first.statement
    assert not second.changed
    assert state(target) == before


def test_the_first_promotion_twice_is_one_promotion(target, a):
    first = move(target, a, None)
    before = state(target)
    assert move(target, a, None).statement == first.statement
    assert state(target) == before


def test_a_tag_that_moved_meanwhile_is_a_conflict_and_nothing_changes(target, a, b, c):
    move(target, a, None)
    move(target, b, a)
    before = state(target)
    with pytest.raises(Conflict, match=f"names {b}, not {a}"):
        move(target, c, a)
    assert state(target) == before


def test_a_tag_that_should_not_exist_but_does_is_a_conflict(target, a, b):
    move(target, a, None)
    before = state(target)
    with pytest.raises(Conflict):
        move(target, b, None)
    assert state(target) == before


def test_a_tag_that_should_exist_but_does_not_is_a_conflict(target, a, b):
    with pytest.raises(Conflict, match="names nothing"):
        move(target, b, a)
    assert target.tags() == []


def test_a_tag_that_somebody_else_moved_to_the_challenger_is_a_conflict(target, a, b, c):
    move(target, a, None)
    target.tag(target.resolve(b), TAG)
    with pytest.raises(Conflict, match="was not moved there from"):
        move(target, b, c)


def test_a_tag_that_moves_between_reading_and_writing_is_a_conflict(target, a, b, c):
    """Somebody without our lock writes the tag while the old champion is being kept."""
    move(target, a, None)

    class Racing(_Wrapped):
        def tag(self, descriptor, tag):
            self.real.tag(descriptor, tag)
            if tag != TAG:
                self.real.tag(self.real.resolve(c), TAG)

    with pytest.raises(Conflict, match=f"names {c}, not {a}"):
        move(Racing(target), b, a)
    assert target.resolve(TAG).digest == c
    assert statements(target, b) == []


def test_a_tag_that_is_written_at_the_same_moment_is_found_out_by_reading_back(target, a, b, c):
    move(target, a, None)

    class Racing(_Wrapped):
        def tag(self, descriptor, tag):
            self.real.tag(descriptor, tag)
            if tag == TAG:
                self.real.tag(self.real.resolve(c), TAG)

    with pytest.raises(Conflict, match=f"was set to {b}, but names {c}"):
        move(Racing(target), b, a)
    assert statements(target, b) == []


def test_a_challenger_that_is_not_there_is_not_found(target, a):
    move(target, a, None)
    missing = "sha256:" + "1" * 64
    with pytest.raises(NotFound):
        move(target, missing, a)
    assert target.resolve(TAG).digest == a


@pytest.mark.parametrize("tag", ["", "a b", "x" * 99, "-x"])
def test_a_tag_that_can_have_no_history_is_refused(target, a, b, tag):
    target.tag(target.resolve(a), "x" * 99)
    with pytest.raises(InvalidInput, match="no tag to promote to"):
        promote(target, b, tag, a, decision=decision(b, a))
    assert target.tags() == ["x" * 99]
    assert target.resolve("x" * 99).digest == a


def test_promotion_is_by_digest(target, a):
    with pytest.raises(InvalidInput, match="is no digest"):
        promote(target, "v1", TAG, None, decision=decision(a, None))
    with pytest.raises(InvalidInput, match="is no digest"):
        promote(target, a, TAG, "v1", decision=decision(a, None))


# --- the decision


@pytest.mark.parametrize("outcome", ["reject", "inconclusive"])
def test_only_a_decision_to_promote_promotes(target, a, b, outcome):
    move(target, a, None)
    with pytest.raises(VerificationFailed, match=outcome):
        promote(target, b, TAG, a, decision=decision(b, a, outcome))
    assert target.resolve(TAG).digest == a


def test_a_decision_about_another_challenger_is_refused(target, a, b, c):
    move(target, a, None)
    with pytest.raises(VerificationFailed, match=c):
        promote(target, b, TAG, a, decision=decision(c, a))
    assert target.resolve(TAG).digest == a


@pytest.mark.parametrize("champion", [None, "sha256:" + "9" * 64])
def test_a_decision_against_another_champion_is_refused(target, a, b, champion):
    move(target, a, None)
    with pytest.raises(VerificationFailed, match="made against"):
        promote(target, b, TAG, a, decision=decision(b, champion))
    assert target.resolve(TAG).digest == a


def test_a_decision_is_read_from_a_file(target, tmp_path, a):
    path = tmp_path / "decision.json"
    path.write_bytes(decision(a, None).to_bytes())
    assert promote(target, a, TAG, None, decision=path).changed
    assert not promote(target, a, TAG, None, decision=str(path)).changed


def test_a_missing_or_tampered_decision_file_is_refused(target, tmp_path, a):
    path = tmp_path / "decision.json"
    with pytest.raises(InvalidInput, match=r"decision\.json"):
        promote(target, a, TAG, None, decision=path)
    value = json.loads(decision(a, None, "reject").to_bytes())
    value["decision"]["outcome"] = "promote"
    path.write_text(json.dumps(value))
    with pytest.raises(VerificationFailed):
        promote(target, a, TAG, None, decision=path)
    assert target.tags() == []


def test_a_decision_changed_in_memory_is_checked_again(target, a):
    rejected = decision(a, None, "reject")
    forged = rejected.model_copy(update={"decision": rejected.decision.model_copy(update={"outcome": "promote"})})
    with pytest.raises(VerificationFailed):
        promote(target, a, TAG, None, decision=forged)


def test_a_signed_decision_is_accepted_and_an_unsigned_one_is_not(target, tmp_path, a, b):
    keys = make_keys(tmp_path / "keys", "ed25519")
    signer, verifier = load_signer(keys.private), load_verifier(keys.public)
    report = decision(a, None)
    attach_decision(target, report)
    with pytest.raises(VerificationFailed, match="is signed by a trusted key"):
        promote(target, a, TAG, None, decision=report, verifier=verifier)
    assert target.tags() == []
    attach_decision(target, report, signer=signer, files={"report.json": b"{}"})
    assert promote(target, a, TAG, None, decision=report, verifier=verifier, signer=signer).changed
    [moved] = find(target, target.resolve(a), PROMOTION)
    assert moved.signatures[0].key_id == signer.key_id


def test_a_signature_under_another_decision_does_not_count(target, tmp_path, a):
    keys = make_keys(tmp_path / "keys", "ed25519")
    attach_decision(target, decision(a, None, "reject"), signer=load_signer(keys.private))
    with pytest.raises(VerificationFailed, match="names the decision"):
        promote(target, a, TAG, None, decision=decision(a, None), verifier=load_verifier(keys.public))
    assert target.tags() == []


def test_an_attached_decision_is_read_back(target, a):
    made = attach_decision(target, decision(a, None), files={"report.json": b"{}"})
    assert DecisionReport.from_bytes(read_decision(target, made.digest)) == decision(a, None)


def test_what_carries_no_decision_is_refused(target, a, b):
    move(target, a, None)
    rollback_statement = rollback_to(target, b, a)
    with pytest.raises(VerificationFailed, match="carries no"):
        read_decision(target, rollback_statement)


def rollback_to(target, new: str, old: str) -> str:
    move(target, new, old)
    statement = rollback(target, TAG).statement
    assert statement is not None
    return statement


# --- rollback


def test_rollback_goes_to_the_last_good_digest_and_keeps_the_other(target, a, b):
    move(target, a, None)
    move(target, b, a)
    done = rollback(target, TAG, expected=b)
    assert (done.digest, done.previous, done.changed) == (a, b, True)
    assert target.resolve(TAG).digest == a
    assert [one.digest for one in history(target, TAG)] == [a, b]
    assert statements(target, a)[-1]["action"] == "rollback"


def test_forward_again_is_a_rollback_to_the_newer_digest(target, a, b):
    move(target, a, None)
    move(target, b, a)
    rollback(target, TAG)
    assert rollback(target, TAG, to=b).digest == b
    assert target.resolve(TAG).digest == b
    assert [one.digest for one in history(target, TAG)] == [a, b, a]


def test_rolling_back_twice_goes_two_steps_and_never_to_what_was_taken_out(target, a, b, c):
    move(target, a, None)
    move(target, b, a)
    move(target, c, b)
    assert rollback(target, TAG).digest == b
    assert rollback(target, TAG).digest == a
    with pytest.raises(NotFound, match="no digest before"):
        rollback(target, TAG)
    assert target.resolve(TAG).digest == a


def test_rollback_after_going_forward_again_goes_back_again(target, a, b):
    move(target, a, None)
    move(target, b, a)
    rollback(target, TAG)
    rollback(target, TAG, to=b)
    assert rollback(target, TAG).digest == a


def test_a_repeated_rollback_with_expected_is_one_rollback(target, a, b, c):
    move(target, a, None)
    move(target, b, a)
    move(target, c, b)
    first = rollback(target, TAG, expected=c)
    before = state(target)
    second = rollback(target, TAG, expected=c)
    assert second.statement == first.statement
    assert (second.digest, second.previous, second.changed) == (b, c, False)
    assert state(target) == before


def test_a_repeated_rollback_to_a_digest_is_one_rollback(target, a, b):
    move(target, a, None)
    move(target, b, a)
    rollback(target, TAG, to=a)
    before = state(target)
    assert not rollback(target, TAG, to=a).changed
    assert state(target) == before


def test_rollback_of_a_tag_that_moved_meanwhile_is_a_conflict(target, a, b, c):
    move(target, a, None)
    move(target, b, a)
    move(target, c, b)
    before = state(target)
    with pytest.raises(Conflict):
        rollback(target, TAG, expected=b)
    assert state(target) == before


def test_rollback_to_what_was_never_promoted_is_refused(target, a, b, c):
    move(target, a, None)
    move(target, b, a)
    with pytest.raises(NotFound, match="never promoted"):
        rollback(target, TAG, to=c)


def test_rollback_without_history_is_refused(target, a):
    with pytest.raises(NotFound, match="no such tag"):
        rollback(target, TAG)
    move(target, a, None)
    with pytest.raises(NotFound, match="no digest before"):
        rollback(target, TAG)


def test_a_new_promotion_after_a_rollback_is_recorded_as_another(target, a, b):
    move(target, a, None)
    move(target, b, a)
    rollback(target, TAG)
    assert promote(target, b, TAG, a, decision=another_decision(b, a)).changed
    assert [one["action"] for one in statements(target, b)].count("promote") == 2


# --- the history


def test_moves_in_the_same_second_and_by_a_slow_clock_keep_their_order(target, a, b, c):
    move(target, a, None, now=NOON)
    move(target, b, a, now=NOON)
    move(target, c, b, now=NOON)
    rollback(target, TAG, now=NOON - timedelta(days=1))
    assert [one.digest for one in history(target, TAG)] == [a, b, c]
    assert [one.displaced for one in history(target, TAG)] == [NOON + timedelta(seconds=n) for n in range(3)]


def test_tags_that_only_look_like_history_are_left_alone(target, a, b):
    for tag in ("champion-20261399T250000Z-" + "0" * 12, "champion-v2", "xchampion-20260102T120000Z-" + "0" * 12):
        target.tag(target.resolve(b), tag)
    move(target, a, None)
    assert history(target, TAG) == []


def test_tags_have_their_own_histories(target, a, b):
    movable = ("champion*",)
    for challenger, expected in ((a, None), (b, a)):
        made = decision(challenger, expected, tag="champion-eu")
        promote(target, challenger, "champion-eu", expected, decision=made, mutable_tags=movable)
    assert history(target, TAG) == []
    assert [one.digest for one in history(target, "champion-eu")] == [a]


@pytest.mark.parametrize("tag", ["v1", "champion-20261121T120000Z-0123456789ab"])
def test_a_tag_that_must_not_move_is_neither_promoted_to_nor_rolled_back(target, a, b, tag):
    target.tag(target.resolve(a), tag)
    movable = ("champion*",)
    with pytest.raises(Conflict, match="must not move"):
        promote(target, b, tag, a, decision=decision(b, a, tag=tag), mutable_tags=movable)
    with pytest.raises(Conflict, match="must not move"):
        rollback(target, tag, to=b, mutable_tags=movable)
    assert target.resolve(tag).digest == a


def test_a_decision_for_another_repository_promotes_nothing(target, a):
    elsewhere = decision(a, None).model_copy(update={"repository": "totally/different"})
    with pytest.raises(VerificationFailed, match="about the repository totally/different"):
        promote(target, a, TAG, None, decision=elsewhere)
    assert TAG not in target.tags()


def test_what_is_no_modelkit_is_not_promoted(target, a):
    statement = attach_decision(target, decision(a, None)).digest
    with pytest.raises(InvalidInput, match="not a ModelKit"):
        promote(target, statement, TAG, None, decision=decision(statement, None))
    assert TAG not in target.tags()


def test_a_decision_about_another_tag_promotes_nothing(target, a):
    with pytest.raises(VerificationFailed, match="about the tag 'staging'"):
        promote(target, a, TAG, None, decision=decision(a, None, tag="staging"))
    assert TAG not in target.tags()


def test_a_decision_survives_a_copy_to_another_registry(target, a):
    staged = decision(a, None).model_copy(update={"repository": f"staging.example.com/{target.name}"})
    assert promote(target, a, TAG, None, decision=staged).changed


def test_no_statement_says_that_there_was_no_champion_when_there_was_one(target, a, b):
    move(target, a, None)
    move(target, b, a)
    before = target.referrers(target.resolve(b))
    with pytest.raises(Conflict, match="had named 1 other before"):
        promote(target, b, TAG, None, decision=decision(b, None))
    assert target.referrers(target.resolve(b)) == before


# --- killed, and done again


class _Wrapped:
    """A target that passes everything on; tests put something in between."""

    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)


class _Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


class _Dying(_Wrapped):
    """Ends the process after so many calls, just before or just after the call has taken effect."""

    def __init__(self, real, calls: int, *, after: bool):
        super().__init__(real)
        self.calls, self.after = calls, after

    def _count(self, call, *arguments):
        self.calls -= 1
        if self.calls == 0 and not self.after:
            raise _Killed
        result = call(*arguments)
        if self.calls == 0:
            raise _Killed
        return result

    def resolve(self, *arguments):
        return self._count(self.real.resolve, *arguments)

    def push(self, *arguments):
        return self._count(self.real.push, *arguments)

    def tag(self, *arguments):
        return self._count(self.real.tag, *arguments)

    def tags(self, *arguments):
        return self._count(self.real.tags, *arguments)

    def referrers(self, *arguments):
        return self._count(self.real.referrers, *arguments)


def _end_state_after(tmp_path: Path, name: str, steps, calls: int | None, *, after: bool) -> tuple[tuple, bool]:
    """What a layout looks like when ``steps`` was killed at its n-th call and then done again, and if it was killed."""
    real = Layout(tmp_path / name, "demo/model")
    kits = [put_manifest(real, text).digest for text in "abc"]
    move(real, kits[0], None, now=NOON)
    move(real, kits[1], kits[0], now=NOON)
    killed = False
    if calls is not None:
        try:
            steps(_Dying(real, calls, after=after), kits, NOON + timedelta(hours=1))
        except _Killed:
            killed = True
    # Time goes on between the two tries; where the first left a history tag, its time is the one that stays.
    steps(real, kits, NOON + timedelta(hours=1))
    return state(real), killed


def _promote_c(target, kits, now):
    move(target, kits[2], kits[1], now=now)


def _roll_back(target, kits, now):
    rollback(target, TAG, expected=kits[1], now=now)


@pytest.mark.parametrize("after", [False, True], ids=["before-the-call", "after-the-call"])
@pytest.mark.parametrize("steps", [_promote_c, _roll_back])
def test_killed_at_any_call_and_done_again_the_end_is_the_same(tmp_path, steps, after):
    wanted, _ = _end_state_after(tmp_path, "whole", steps, None, after=after)
    for calls in range(1, 100):
        end, killed = _end_state_after(tmp_path, f"killed-{calls}", steps, calls, after=after)
        assert end == wanted, f"killed at call {calls}"
        if not killed:
            break
    assert calls > 8, "the steps make more calls than that: the test did not reach them"


def _promote_forever(root: str, kits: list[str]) -> None:
    target = Layout(Path(root), "demo/model")
    while True:
        fresh = another_decision(kits[2], kits[1], time.time_ns())
        try:
            promote(target, kits[2], TAG, kits[1], decision=fresh, now=NOON + timedelta(hours=1))
        except Conflict:
            # A promotion was killed before its statement and undone since: it may have been by this decision.
            rollback(target, TAG, expected=kits[1], to=kits[2], now=NOON + timedelta(hours=1))
        rollback(target, TAG, expected=kits[2], now=NOON + timedelta(hours=2))


def _cut_off_before_its_statement(
    target, monkeypatch, new: str, old: str, report: DecisionReport | None = None
) -> None:
    def die(*arguments, **named):
        raise _Killed

    with monkeypatch.context() as patched:
        patched.setattr(promote_module, "attach_move", die)
        with pytest.raises(_Killed):
            promote(target, new, TAG, old, decision=report or decision(new, old))
    assert target.resolve(TAG).digest == new


def test_a_rollback_to_what_is_in_service_leaves_the_statement_to_the_promotion(target, a, b, monkeypatch):
    move(target, a, None)
    _cut_off_before_its_statement(target, monkeypatch, b, a)
    before = state(target)
    done = rollback(target, TAG, to=b)
    assert (done.digest, done.previous, done.statement, done.changed) == (b, a, None, False)
    assert state(target) == before
    statement = move(target, b, a).statement
    [said] = statements(target, b)
    assert (said["action"], "decision" in said) == ("promote", True)
    assert rollback(target, TAG, to=b).statement == statement


def test_a_rollback_does_not_take_a_first_promotion_for_its_own(target, a, b, monkeypatch):
    move(target, a, None)
    _cut_off_before_its_statement(target, monkeypatch, b, a)
    before = state(target)
    with pytest.raises(Conflict, match=f"names {b}, not {a}"):
        rollback(target, TAG, to=b, expected=a)
    assert state(target) == before


def test_a_promotion_is_recorded_with_its_decision_even_if_a_rollback_claimed_the_move(target, a, b, monkeypatch):
    move(target, a, None)
    move(target, b, a)
    rollback(target, TAG)
    again = another_decision(b, a)
    _cut_off_before_its_statement(target, monkeypatch, b, a, again)
    # b was in service before: this cannot be told from a rollback that was cut off.
    rollback(target, TAG, to=b, expected=a)
    first = promote(target, b, TAG, a, decision=again)
    assert [said["action"] for said in statements(target, b)].count("promote") == 2
    assert promote(target, b, TAG, a, decision=again).statement == first.statement


def test_after_a_real_kill_the_lock_is_free_and_the_layout_is_whole(tmp_path):
    root = tmp_path / "layout"
    target = Layout(root, "demo/model")
    kits = [put_manifest(target, text).digest for text in "abc"]
    move(target, kits[0], None)
    move(target, kits[1], kits[0])
    for attempt in range(4):
        process = multiprocessing.get_context("spawn").Process(target=_promote_forever, args=(str(root), kits))
        process.start()
        before = len(target.tags())
        while len(target.tags()) < before + 1 + attempt:
            assert process.is_alive()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        current = target.resolve(TAG).digest
        assert current in (kits[1], kits[2])
        if current == kits[2]:
            rollback(target, TAG, expected=kits[2])
        assert target.resolve(TAG).digest == kits[1]
        assert all(target.resolve(one).digest in kits for one in target.tags())


# --- the lock


def test_of_two_promotions_at_once_one_wins_and_the_other_is_a_conflict(target, a, b, c):
    move(target, a, None)
    results = {}
    barrier = threading.Barrier(2)

    def run(challenger):
        barrier.wait()
        try:
            results[challenger] = move(target, challenger, a).changed
        except Conflict:
            results[challenger] = False

    threads = [threading.Thread(target=run, args=(one,)) for one in (b, c)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results.values()) == [False, True]
    winner = b if results[b] else c
    assert target.resolve(TAG).digest == winner
    assert len(history(target, TAG)) == 1


def test_a_lock_that_is_held_too_long_is_a_conflict(target):
    with (
        promotion_lock(target, TAG),
        pytest.raises(Conflict, match="has held the lock"),
        promotion_lock(target, TAG, timeout=0.05),
    ):
        pytest.fail("the lock was given twice")


def test_another_tag_has_another_lock(target, tmp_path):
    with promotion_lock(target, TAG, tmp_path), promotion_lock(target, "x", tmp_path, timeout=0.05):
        assert len(list(tmp_path.glob("*.lock"))) == 2


def test_all_who_share_a_layout_share_its_lock_however_they_spell_its_path(target, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "layout")
    same = Layout(tmp_path / "link", "demo/model")
    with promotion_lock(target, TAG), pytest.raises(Conflict), promotion_lock(same, TAG, timeout=0.05):
        pytest.fail("the lock was given twice")


def test_the_lock_directory_may_be_named_by_the_environment(target, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELKIT_LOCK_DIR", str(tmp_path / "shared"))
    with promotion_lock(target, TAG):
        assert list((tmp_path / "shared").glob("*.lock"))


def test_without_a_home_the_lock_directory_must_be_named(tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("MODELKIT_LOCK_DIR", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(InvalidInput, match="lock_dir"):
        default_lock_dir(_Wrapped(Layout(tmp_path, "demo/model")))


def test_a_file_system_without_locks_is_an_error_that_names_it(tmp_path, target, monkeypatch):
    def acquire(*arguments, **named):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("airflow_provider_kitops.promotion.lock.FileLock.acquire", acquire)
    with pytest.raises(StorageError, match=f"{tmp_path}.*support flock"), promotion_lock(target, "champion", tmp_path):
        pass


def test_a_lock_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path, target, a):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/locks"):
        move(target, a, None, lock_dir=tmp_path / "file" / "locks")
    assert target.tags() == []


# --- cost


def _calls(target, steps) -> int:
    counting = _Dying(target, -1, after=False)
    steps(counting)
    return -1 - counting.calls


def test_the_number_of_calls_does_not_grow_with_the_history(target):
    kits = [put_manifest(target, f"model {n}").digest for n in range(12)]
    move(target, kits[0], None)
    counts = [_calls(target, lambda it, n=n: move(it, kits[n], kits[n - 1])) for n in range(1, len(kits))]
    assert len(set(counts)) == 1
    assert counts[0] <= 12
