"""May the tag move: promote, reject or inconclusive, with a stated error rate (DESIGN "Gate")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from airflow_provider_kitops.judge.canonical import json_digest
from airflow_provider_kitops.judge.report import Report, Verdict

Outcome = Literal["promote", "reject", "inconclusive"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GatePolicy(_Frozen):
    """When a challenger may take over; fixed before the judge runs.

    :param metric: what the decision is about: ``preference`` (win, tie, loss), ``probability``, ``score``,
        ``exact_match`` or a metric of the contestants' own.
    :param margin: the challenger must be better by more than this, in the metric's difference in [-1, 1].
    :param confidence: of the two-sided interval. A challenger that is no better than ``margin`` is promoted with
        probability (1 - confidence) / 2 at most.
    :param minimum_items: fewer items with a verdict are inconclusive.
    :param max_error_rate: a larger share of items without a verdict is inconclusive.
    :param guards: metric -> how much worse the challenger may be in it (non-inferiority margin).
    """

    metric: str = Field(default="preference", min_length=1)
    margin: float = Field(default=0.0, ge=0, lt=1)
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    minimum_items: int = Field(default=30, ge=1)
    max_error_rate: float = Field(default=0.05, ge=0, lt=1)
    guards: dict[str, float] = Field(default_factory=dict)

    @field_validator("guards")
    @classmethod
    def _margins(cls, value: dict[str, float]) -> dict[str, float]:
        if not all(0 <= margin < 1 for margin in value.values()):
            raise ValueError("a guard's margin must be in [0, 1)")
        return value

    def to_json(self) -> dict[str, object]:
        """Every field, defaults included: what ``judge(policy=…)`` and decision reports take."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Names the policy by all of its fields."""
        return json_digest(self.to_json())


@dataclass(frozen=True)
class Guard:
    """A metric that must not get worse.

    :param differences: per item, challenger minus champion, in [-1, 1].
    :param margin: how much worse the challenger may be.
    :param clusters: as for :func:`decide`.
    """

    differences: Sequence[float]
    margin: float = 0.0
    clusters: Sequence[str] | None = None


class GuardDecision(_Frozen):
    """How a guard came out.

    :param outcome: ``held`` (shown to be no worse than the margin), ``violated`` (shown to be worse, after Holm's
        correction over all guards) or ``open``.
    :param p_value: one-sided, of the challenger being no worse than the margin; adjusted by Holm.
    """

    name: str
    outcome: Literal["held", "violated", "open"]
    n: int
    margin: float
    mean: float
    lower: float
    upper: float
    p_value: float


class GateDecision(_Frozen):
    """What the gate says.

    :param n: items with a verdict.
    :param clusters: independent groups among them; equal to ``n`` without clusters.
    :param errors: items without a verdict.
    :param mean: of the per-item differences, challenger minus champion, in [-1, 1].
    :param lower: with ``upper`` the two-sided interval of ``confidence``.
    :param p_value: one-sided, of the challenger being no better than ``margin``.
    :param test: how interval and p-value were found.
    :param reason: the outcome in a sentence.
    """

    outcome: Outcome
    n: int
    clusters: int
    errors: int = 0
    mean: float
    lower: float
    upper: float
    p_value: float
    margin: float
    confidence: float
    test: str
    reason: str
    guards: tuple[GuardDecision, ...] = ()


def decide(
    differences: Sequence[float],
    *,
    margin: float = 0.0,
    confidence: float = 0.95,
    clusters: Sequence[str] | None = None,
    minimum_items: int = 30,
    errors: int = 0,
    max_error_rate: float = 0.05,
    guards: Mapping[str, Guard] | None = None,
) -> GateDecision:
    """Decide on per-item differences challenger minus champion.

    :param differences: in [-1, 1]; items without a verdict are left out and counted in ``errors``.
    :param clusters: one name per difference; items of one cluster are no independent evidence.
    :raises InvalidInput: a difference outside [-1, 1], not one cluster per difference, unusable thresholds.
    """
    raise NotImplementedError


def decide_report(report: Report, verdicts: Sequence[Verdict], policy: GatePolicy) -> GateDecision:
    """Decide on a judge's report; the language model is not asked again.

    :raises JudgeUnqualified: the report's judge did not qualify for a metric of the policy.
    :raises VerificationFailed: the verdicts are not those of the report, or the policy is not the one that the
        report was made for.
    :raises InvalidInput: the verdicts have no such metric.
    """
    raise NotImplementedError
