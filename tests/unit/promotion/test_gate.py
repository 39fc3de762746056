"""The gate: three outcomes, and promotion no more often than stated where there is nothing to promote."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.judge.report import (
    ContestantSummary,
    Counts,
    JudgeSummary,
    Qualification,
    Report,
    Usage,
    Verdict,
    verdicts_to_bytes,
)
from airflow_provider_kitops.oci.descriptor import digest_of
from airflow_provider_kitops.oci.errors import InvalidInput, JudgeUnqualified, VerificationFailed
from airflow_provider_kitops.promotion.gate import GateDecision, GatePolicy, Guard, decide, decide_report

POLICY = GatePolicy(minimum_items=10)


def wtl(wins: int, ties: int, losses: int) -> list[float]:
    return [1.0] * wins + [0.0] * ties + [-1.0] * losses


def test_a_clear_winner_is_promoted_a_clear_loser_rejected_and_the_rest_left_open() -> None:
    assert decide(wtl(30, 60, 10)).outcome == "promote"
    assert decide(wtl(10, 60, 30)).outcome == "reject"
    assert decide(wtl(22, 60, 18)).outcome == "inconclusive"
    assert decide(wtl(0, 100, 0)).outcome == "inconclusive"


def test_the_margin_must_be_passed_on_either_side() -> None:
    assert decide(wtl(30, 60, 10), margin=0.1).outcome == "inconclusive"
    assert decide(wtl(60, 30, 10), margin=0.1).outcome == "promote"
    assert decide(wtl(10, 60, 30), margin=0.1).outcome == "inconclusive"


def test_too_few_items_decide_nothing() -> None:
    assert decide(wtl(20, 0, 0)).outcome == "inconclusive"
    assert decide(wtl(20, 0, 0), minimum_items=20).outcome == "promote"
    none = decide([], errors=3)
    assert (none.outcome, none.lower, none.upper) == ("inconclusive", -1, 1)


def test_too_many_errors_decide_nothing() -> None:
    assert decide(wtl(60, 30, 5), errors=5).outcome == "promote"
    assert decide(wtl(60, 30, 4), errors=6).outcome == "inconclusive"
    assert decide(wtl(5, 30, 60), errors=50).outcome == "inconclusive"


def test_items_of_few_clusters_are_little_evidence() -> None:
    differences = wtl(30, 60, 10)
    assert decide(differences, clusters=[str(number // 25) for number in range(100)]).outcome == "inconclusive"
    assert decide(differences, clusters=[str(number) for number in range(100)]).outcome == "promote"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.0, 0.05, 0.2]))
def test_the_outcome_agrees_with_the_interval(wins: int, ties: int, losses: int, margin: float) -> None:
    if wins + ties + losses == 0:
        return
    found = decide(wtl(wins, ties, losses), margin=margin, minimum_items=1)
    assert (found.outcome == "promote") == (found.lower > margin)
    assert (found.outcome == "reject") == (found.upper < -margin)
    assert found.lower <= found.mean <= found.upper


@pytest.mark.parametrize("ties", [0.0, 0.5, 0.9])
def test_without_a_difference_promotion_and_rejection_are_as_rare_as_stated(ties: float) -> None:
    random = np.random.default_rng(5)
    outcomes = [
        decide(
            list(random.choice([-1.0, 0.0, 1.0], 60, p=[(1 - ties) / 2, ties, (1 - ties) / 2])), confidence=0.9
        ).outcome
        for _ in range(400)
    ]
    # 5 % are allowed: 20 of 400; more than 34 have a chance below 0.002.
    assert outcomes.count("promote") <= 34
    assert outcomes.count("reject") <= 34


def test_without_a_difference_in_scores_promotion_is_as_rare_as_stated() -> None:
    random = np.random.default_rng(6)
    promoted = sum(
        decide(list(np.clip(random.normal(0, 0.2, 40), -1, 1)), confidence=0.8).outcome == "promote" for _ in range(100)
    )
    # 10 % are allowed; more than 20 of 100 have a chance of 0.001.
    assert promoted <= 20


def test_at_a_true_difference_of_the_margin_promotion_is_as_rare_as_stated() -> None:
    random = np.random.default_rng(7)
    promoted = sum(
        decide(list(random.choice([-1.0, 0.0, 1.0], 60, p=[0.2, 0.5, 0.3])), margin=0.1, confidence=0.9).outcome
        == "promote"
        for _ in range(400)
    )
    assert promoted <= 34


def test_a_guard_must_hold_for_a_promotion() -> None:
    better = wtl(30, 60, 10)
    same, unclear, worse = wtl(2, 196, 2), wtl(10, 20, 14), wtl(5, 30, 65)
    held = decide(better, guards={"speed": Guard(same, 0.1)})
    assert (held.outcome, held.guards[0].outcome) == ("promote", "held")
    left_open = decide(better, guards={"speed": Guard(unclear, 0.1)})
    assert (left_open.outcome, left_open.guards[0].outcome) == ("inconclusive", "open")
    violated = decide(better, guards={"speed": Guard(worse, 0.1)})
    assert (violated.outcome, violated.guards[0].outcome) == ("reject", "violated")
    assert "speed" in violated.reason


def test_a_guard_that_many_items_lack_stays_open() -> None:
    same = [0.0] * 100
    assert decide(wtl(30, 60, 10), guards={"score": Guard(same, 0.1, errors=5)}).outcome == "promote"
    left_open = decide(wtl(30, 60, 10), guards={"score": Guard(same, 0.1, errors=6)})
    assert (left_open.outcome, left_open.guards[0].outcome) == ("inconclusive", "open")


def test_many_guards_do_not_turn_a_challenger_down_by_chance() -> None:
    # One-sided p = 0.018 on its own; among five guards Holm asks for 0.005.
    harmful = wtl(11, 0, 25)
    alone = decide(wtl(30, 60, 10), guards={"a": Guard(harmful, 1e-9)})
    among = decide(
        wtl(30, 60, 10),
        guards={"a": Guard(harmful, 1e-9)} | {f"b{number}": Guard(wtl(2, 196, 2), 0.1) for number in range(4)},
    )
    assert alone.guards[0].outcome == "violated"
    assert among.guards[0].outcome == "open"
    assert among.guards[0].p_value == pytest.approx(5 * alone.guards[0].p_value)


def test_the_same_differences_give_the_same_decision() -> None:
    differences = [0.3, -0.1, 0.2, 0.4, 0.0] * 10
    assert decide(differences) == decide(differences)


@pytest.mark.parametrize(
    "wrong", [{"margin": -0.1}, {"margin": 1}, {"confidence": 1}, {"minimum_items": 0}, {"errors": -1}]
)
def test_unusable_thresholds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        decide(wtl(30, 0, 0), **wrong)


def test_a_difference_outside_the_range_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\[-1, 1\]"):
        decide([2.0] * 40)


def test_the_policy_is_named_by_every_field() -> None:
    digests = {
        GatePolicy(**values).digest
        for values in ({}, {"margin": 0.1}, {"confidence": 0.9}, {"guards": {"speed": 0.1}}, {"metric": "score"})
    }
    assert len(digests) == 5
    assert GatePolicy.model_validate(GatePolicy(margin=0.1).to_json()).digest == GatePolicy(margin=0.1).digest


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_a_guard_that_cannot_be_held_or_broken_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="guard"):
        GatePolicy(guards={"speed": margin})


def qualification(**changes: Any) -> Qualification:
    return Qualification(
        **{
            "qualified": True,
            "pairs_digest": digest_of(b"pairs"),
            "pairs": 60,
            "correct": 60,
            "ties": 0,
            "unreadable": 0,
            "errors": 0,
            "accuracy": 1.0,
            "accuracy_lower": 0.95,
            "confidence": 0.95,
            "minimum_accuracy": 0.7,
            "maximum_unreadable": 0.05,
            "order_agreement": 0.0,
            "first_shown_share": 1.0,
            **changes,
        }
    )


def judged(
    wins: int, ties: int, losses: int, errors: int = 0, policy: GatePolicy = POLICY
) -> tuple[Report, list[Verdict]]:
    outcomes = ["win"] * wins + ["tie"] * ties + ["loss"] * losses
    verdicts = [
        Verdict(
            id=f"i{number}",
            outcome=outcome,
            probability=0.5,
            differences={"preference": {"win": 1.0, "tie": 0.0, "loss": -1.0}[outcome]},
        )
        for number, outcome in enumerate(outcomes)
    ]
    verdicts += [Verdict(id=f"e{number}", outcome="error", error="down") for number in range(errors)]
    report = Report(
        champion=ContestantSummary(digest=digest_of(b"champion"), predictions=digest_of(b"1")),
        challenger=ContestantSummary(digest=digest_of(b"challenger"), predictions=digest_of(b"2")),
        items=len(verdicts),
        items_digest=digest_of(b"items"),
        judge=JudgeSummary(model="m", model_digest="", endpoint="h", prompt=digest_of(b"p"), parameters={}, seed=0),
        qualification=qualification(),
        verdicts=digest_of(verdicts_to_bytes(verdicts)),
        counts=Counts(wins=wins, ties=ties, losses=losses, identical=0, unreadable=0, errors=errors),
        differences={},
        order_agreement=None,
        first_shown_share=None,
        truncated=0,
        usage=Usage(calls=0, input_tokens=0, output_tokens=0, cost=0),
        policy=policy.digest,
    )
    return report, verdicts


def test_a_report_is_decided_from_its_verdicts() -> None:
    report, verdicts = judged(30, 60, 10)
    found = decide_report(report, verdicts, POLICY)
    assert isinstance(found, GateDecision)
    assert (found.outcome, found.n, found.mean) == ("promote", 100, 0.2)


def test_errors_of_a_report_count() -> None:
    report, verdicts = judged(30, 60, 10, errors=6)
    found = decide_report(report, verdicts, POLICY)
    assert (found.outcome, found.errors) == ("inconclusive", 6)


def test_another_policy_than_the_report_was_made_for_decides_nothing() -> None:
    report, verdicts = judged(30, 60, 10)
    with pytest.raises(VerificationFailed, match="judge again with this policy"):
        decide_report(report, verdicts, GatePolicy(minimum_items=9))
    with pytest.raises(VerificationFailed, match=r"\(none\)"):
        decide_report(report.model_copy(update={"policy": None}), verdicts, POLICY)


def test_other_verdicts_than_the_report_names_decide_nothing() -> None:
    report, verdicts = judged(30, 60, 10)
    better = [verdict.model_copy(update={"differences": {"preference": 1.0}}) for verdict in verdicts]
    for others in (better, verdicts[:-1], [*verdicts, verdicts[0]]):
        with pytest.raises(VerificationFailed, match="not the ones"):
            decide_report(report, others, POLICY)


def test_an_unqualified_judge_decides_nothing() -> None:
    report, verdicts = judged(30, 60, 10)
    failed = qualification(
        qualified=False, correct=30, accuracy=0.5, accuracy_lower=0.4, reason="no better than chance"
    )
    with pytest.raises(JudgeUnqualified):
        decide_report(report.model_copy(update={"qualification": failed}), verdicts, POLICY)


def test_a_qualification_that_its_figures_do_not_bear_out_is_refused() -> None:
    with pytest.raises(ValueError, match="figures do not say so"):
        qualification(accuracy_lower=0.6)
    with pytest.raises(ValueError, match="figures do not say so"):
        qualification(unreadable=10)


def test_a_score_needs_a_qualification_of_its_own() -> None:
    policy = GatePolicy(metric="score", minimum_items=10)
    report, verdicts = judged(30, 60, 10, policy=policy)
    with pytest.raises(JudgeUnqualified, match="'score'"):
        decide_report(report, verdicts, policy)


def test_an_unknown_metric_is_named_with_the_known_ones() -> None:
    policy = GatePolicy(metric="speed", minimum_items=10)
    report, verdicts = judged(30, 60, 10, policy=policy)
    with pytest.raises(InvalidInput, match=r"no metric 'speed'; they have preference"):
        decide_report(report, verdicts, policy)


@pytest.mark.parametrize(("name", "outcome"), [("score", "open"), ("exact_match", "held")])
def test_scores_that_could_not_be_read_count_against_their_guard(name: str, outcome: str) -> None:
    policy = GatePolicy(minimum_items=10, guards={name: 0.2})
    report, verdicts = judged(30, 60, 10, policy=policy)
    half = [
        one.model_copy(update={"differences": {**one.differences, name: 0.0}}) if number % 2 else one
        for number, one in enumerate(verdicts)
    ]
    changed = {"verdicts": digest_of(verdicts_to_bytes(half)), "score_qualification": qualification()}
    found = decide_report(report.model_copy(update=changed), half, policy)
    assert found.guards[0].outcome == outcome
