"""Decision reports as a gate would make them."""

from __future__ import annotations

from airflow_provider_kitops.promotion.decision import DecisionReport
from airflow_provider_kitops.promotion.gate import GateDecision, GatePolicy

POLICY = GatePolicy()


def decision(
    challenger: str,
    champion: str | None,
    outcome: str = "promote",
    *,
    repository: str = "demo/model",
    tag: str = "champion",
) -> DecisionReport:
    """A decision that the figures bear out."""
    lower, upper = {"promote": (0.1, 0.3), "reject": (-0.3, -0.1), "inconclusive": (-0.1, 0.3)}[outcome]
    return DecisionReport(
        repository=repository,
        tag=tag,
        challenger=challenger,
        champion=champion,
        baseline=champion or "sha256:" + "b" * 64,
        judge_report="sha256:" + "e" * 64,
        policy=POLICY,
        policy_digest=POLICY.digest,
        decision=GateDecision(
            outcome=outcome,
            n=100,
            clusters=100,
            mean=(lower + upper) / 2,
            lower=lower,
            upper=upper,
            p_value=0.001,
            margin=POLICY.margin,
            confidence=POLICY.confidence,
            test="bootstrap",
            reason="as told",
        ),
    )
