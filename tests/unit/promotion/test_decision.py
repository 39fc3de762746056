"""The decision report: what it holds, and what it refuses to hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_kitops.oci.descriptor import digest_of
from airflow_provider_kitops.oci.errors import VerificationFailed
from airflow_provider_kitops.promotion.decision import DecisionReport
from airflow_provider_kitops.promotion.gate import GatePolicy, decide_report
from tests.unit.promotion.test_gate import POLICY, judged

CHAMPION = digest_of(b"champion")


def made(wins: int = 30, losses: int = 10, champion: str | None = CHAMPION) -> DecisionReport:
    report, verdicts = judged(wins, 60, losses)
    decision = decide_report(report, verdicts, POLICY)
    return DecisionReport.of(decision, report, POLICY, repository="demo/model", champion=champion)


def test_it_reads_back_and_always_has_the_same_bytes() -> None:
    decision = made()
    assert DecisionReport.from_bytes(decision.to_bytes()) == decision
    assert decision.to_bytes() == made().to_bytes()
    assert decision.outcome == "promote"
    assert decision.challenger == digest_of(b"challenger")
    assert decision.judge_report == judged(30, 60, 10)[0].digest


def test_without_a_champion_the_baseline_is_what_was_compared() -> None:
    decision = made(champion=None)
    assert decision.champion is None
    assert decision.baseline == CHAMPION


def test_a_champion_that_was_not_compared_is_refused() -> None:
    with pytest.raises(VerificationFailed, match="compared with another"):
        made(champion=digest_of(b"somebody else"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"policy_digest": digest_of(b"x")}, "policy"),
        ({"policy": {**POLICY.to_json(), "margin": 0.1}}, "policy"),
        ({"challenger": "latest"}, "not a digest"),
        ({"schema": "airflow-provider-kitops/decision/v9"}, "schema"),
        ({"unknown": 1}, "unknown"),
        ({"repository": "Not A Repository"}, "not a repository"),
        ({"repository": "demo/model:v1"}, "not a repository"),
        ({"tag": "a b"}, "not a tag"),
        ({"decision": {"outcome": "yes"}}, "decision.outcome"),
        ({"decision": {"n": 5}}, "contradict each other"),
        ({"decision": {"mean": -1.0, "upper": -1.0}}, "contradict each other"),
        ({"decision": {"upper": 2.0}}, "contradict each other"),
        ({"decision": {"p_value": 0.9}}, "bear out"),
        ({"decision": {"p_value": -1.0}}, "contradict each other"),
        ({"decision": {"clusters": -1}}, "contradict each other"),
        ({"decision": {"errors": 50}}, "bear out"),
        ({"decision": {"margin": 0.3}}, "another margin"),
        ({"decision": {"lower": -0.2}}, "bear out"),
        ({"decision": {"lower": float("nan")}}, "lower"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    value = json.loads(made().to_bytes())
    for name, new in change.items():
        value[name] = {**value[name], **new} if name == "decision" else new
    with pytest.raises(VerificationFailed, match=said):
        DecisionReport.from_bytes(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("change", "said"), [({"mean": -0.9}, "contradict each other"), ({"lower": -0.5, "mean": 0.0}, "bear out")]
)
def test_figures_of_a_guard_must_agree_too(change: dict[str, Any], said: str) -> None:
    value = json.loads(made().to_bytes())
    policy = GatePolicy(**{**POLICY.to_json(), "guards": {"exact_match": 0.1}})
    guard = {"name": "exact_match", "outcome": "held", "n": 100, "margin": 0.1, "p_value": 1.0}
    value["policy"], value["policy_digest"] = policy.to_json(), policy.digest
    value["decision"]["guards"] = [{**guard, "lower": -0.05, "mean": 0.0, "upper": 0.05}]
    DecisionReport.from_bytes(json.dumps(value).encode())
    value["decision"]["guards"][0].update(change)
    with pytest.raises(VerificationFailed, match=said):
        DecisionReport.from_bytes(json.dumps(value).encode())


def test_an_outcome_cannot_be_turned_into_a_promotion() -> None:
    value = json.loads(made(wins=12, losses=10).to_bytes())
    assert value["decision"]["outcome"] == "inconclusive"
    value["decision"]["outcome"] = "promote"
    with pytest.raises(VerificationFailed, match="bear out"):
        DecisionReport.from_bytes(json.dumps(value).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"schema": 1}'])
def test_junk_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationFailed):
        DecisionReport.from_bytes(data)
