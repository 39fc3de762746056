"""May this judge judge: its verdicts on labelled pairs, against the bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from airflow_provider_kitops.judge.config import QualificationBar
from airflow_provider_kitops.judge.report import Qualification
from airflow_provider_kitops.judge.statistics import clopper_pearson_lower


@dataclass(frozen=True)
class PairResult:
    """How one labelled pair came out."""

    outcome: Literal["correct", "tie", "wrong", "unreadable", "error"]
    error: str = ""


def qualify(
    results: Sequence[PairResult],
    bar: QualificationBar,
    *,
    pairs_digest: str,
    max_error_rate: float,
    order_agreement: float | None,
    first_shown_share: float | None,
) -> Qualification:
    """Hold the results against the bar. What counts is the combined verdict; liking the first place is reported,
    and fails a judge only where its combined verdicts do."""
    outcomes = [result.outcome for result in results]
    correct, ties = outcomes.count("correct"), outcomes.count("tie")
    unreadable, errors = outcomes.count("unreadable"), outcomes.count("error")
    pairs = len(results) - errors
    accuracy = correct / pairs if pairs else 0.0
    lower = clopper_pearson_lower(correct, pairs, bar.confidence) if pairs else 0.0
    reasons = []
    if errors > max_error_rate * len(results):
        said = next(result.error for result in results if result.outcome == "error")
        reasons.append(f"{errors} of {len(results)} labelled pairs failed ({said})")
    if pairs < bar.minimum_pairs:
        reasons.append(f"{pairs} labelled pairs got an answer, {bar.minimum_pairs} are needed")
    if unreadable > bar.maximum_unreadable * pairs:
        reasons.append(f"{unreadable} of {pairs} answers are unreadable, {bar.maximum_unreadable:.0%} may be")
    if lower <= bar.minimum_accuracy:
        reasons.append(f"its accuracy may be as low as {lower:.3f}, it must be above {bar.minimum_accuracy:.2f}")
    return Qualification(
        qualified=not reasons,
        pairs_digest=pairs_digest,
        pairs=pairs,
        correct=correct,
        ties=ties,
        unreadable=unreadable,
        errors=errors,
        accuracy=accuracy,
        accuracy_lower=lower,
        confidence=bar.confidence,
        minimum_accuracy=bar.minimum_accuracy,
        maximum_unreadable=bar.maximum_unreadable,
        order_agreement=order_agreement,
        first_shown_share=first_shown_share,
        reason="; ".join(reasons),
    )
