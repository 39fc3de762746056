"""May the tag move: promote, reject or inconclusive, with a stated error rate (DESIGN "Gate")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.judge.report import Report, Verdict, clusters_of, verdicts_to_bytes
from airflow_provider_kitops.oci.canonical import canonical
from airflow_provider_kitops.oci.descriptor import digest_of
from airflow_provider_kitops.oci.errors import InvalidInput, JudgeUnqualified, VerificationFailed

if TYPE_CHECKING:
    from airflow_provider_kitops.judge.statistics import MeanDifference

Outcome = Literal["promote", "reject", "inconclusive"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GatePolicy(_Frozen):
    """When a challenger may take over; fixed before the judge runs.

    :param metric: what the decision is about: ``preference`` (win, tie, loss), ``probability``, ``score``
        or ``exact_match``.
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
        if not all(0 < margin < 1 for margin in value.values()):
            raise ValueError("a guard's margin must be above 0 (or no equal challenger can hold it) and below 1")
        return value

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> GatePolicy:
        """Read it from a mapping.

        :raises InvalidInput: unknown keys or unusable values, with all that is wrong.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidInput(f"The gate's policy cannot be used: {problems(error, cls, 'policy')}.") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> GatePolicy:
        """Read back what was written by :meth:`to_bytes`.

        :raises VerificationFailed: not a policy.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise VerificationFailed(f"Not a gate's policy: {problems(error, cls, 'document')}.") from error

    def to_bytes(self) -> bytes:
        """JSON; the same policy always gives the same bytes, of which ``digest`` is the digest."""
        return canonical(self.to_json())

    def to_json(self) -> dict[str, object]:
        """Every field, defaults included: what ``judge(policy=…)`` and decision reports take."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Names the policy by all of its fields."""
        return digest_of(self.to_bytes())


@dataclass(frozen=True)
class Guard:
    """A metric that must not get worse.

    :param differences: per item, challenger minus champion, in [-1, 1].
    :param margin: how much worse the challenger may be.
    :param clusters: as for :func:`decide`.
    :param errors: items that should have the metric and lack it; a guard with too many of them stays open.
    """

    differences: Sequence[float]
    margin: float
    clusters: Sequence[str] | None = None
    errors: int = 0


class GuardDecision(_Frozen):
    """How a guard came out.

    :param outcome: ``held`` (shown to be no worse than the margin), ``violated`` (shown to be worse, after Holm's
        correction over all guards) or ``open``.
    :param p_value: one-sided, of the challenger being no worse than the margin; adjusted by Holm. A small one
        means harm.
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
    # Importing scipy takes a second, and whoever only reads decisions does without it.
    from airflow_provider_kitops.judge.statistics import holm, mean_difference

    _check_thresholds(margin, confidence, minimum_items, errors, max_error_rate)
    level = (1 - confidence) / 2
    total = len(differences) + errors
    if not len(differences):
        return GateDecision(
            outcome="inconclusive",
            n=0,
            clusters=0,
            errors=errors,
            mean=0.0,
            lower=-1.0,
            upper=1.0,
            p_value=1.0,
            margin=margin,
            confidence=confidence,
            test="none",
            reason=f"None of {total} items has a verdict.",
        )
    found = mean_difference(differences, clusters)
    lower, upper = found.interval(confidence)
    judged = {name: mean_difference(guard.differences, guard.clusters) for name, guard in (guards or {}).items()}
    harm = holm({name: judged[name].p_not_below(-guard.margin) for name, guard in (guards or {}).items()})
    guarded = tuple(
        _guard(name, guard, judged[name], harm[name], confidence, minimum_items, max_error_rate)
        for name, guard in sorted((guards or {}).items())
    )
    violated = [guard.name for guard in guarded if guard.outcome == "violated"]
    still_open = [guard.name for guard in guarded if guard.outcome == "open"]

    figures = f"mean difference {found.mean:+.3f}, {confidence:.0%} interval [{lower:+.3f}, {upper:+.3f}]"
    outcome: Outcome = "inconclusive"
    if errors > max_error_rate * total:
        reason = f"{errors} of {total} items have no verdict, {max_error_rate:.0%} may be without."
    elif found.n < minimum_items:
        reason = f"{found.n} items have a verdict, {minimum_items} are needed."
    elif upper < -margin:
        outcome, reason = "reject", f"The challenger is worse: {figures}, margin {margin:g}."
    elif violated:
        outcome, reason = "reject", f"The challenger is worse than allowed in {', '.join(violated)}."
    elif lower <= margin or found.p_not_above(margin) > level:
        reason = f"Neither better nor worse by more than {margin:g} is shown: {figures}."
    elif still_open:
        reason = f"The challenger is better ({figures}), but may be worse than allowed in {', '.join(still_open)}."
    else:
        outcome, reason = "promote", f"The challenger is better: {figures}, margin {margin:g}."
    return GateDecision(
        outcome=outcome,
        n=found.n,
        clusters=found.clusters,
        errors=errors,
        mean=found.mean,
        lower=lower,
        upper=upper,
        p_value=found.p_not_above(margin),
        margin=margin,
        confidence=confidence,
        test=found.test,
        reason=reason,
        guards=guarded,
    )


def decide_report(report: Report, verdicts: Sequence[Verdict], policy: GatePolicy) -> GateDecision:
    """Decide on a judge's report; the language model is not asked again.

    :raises JudgeUnqualified: the report's judge did not qualify for a metric of the policy.
    :raises VerificationFailed: the verdicts are not those of the report, or the policy is not the one that the
        report was made for.
    :raises InvalidInput: the verdicts have no such metric.
    """
    if report.verdicts != digest_of(verdicts_to_bytes(verdicts)) or report.items != len(verdicts):
        raise VerificationFailed(
            "The verdicts are not the ones that the judge's report names.", hint="Hand in the files of one run."
        )
    if report.policy != policy.digest:
        raise VerificationFailed(
            f"The judge's report was made for the policy {report.policy or '(none)'}, not for {policy.digest}.",
            hint="Thresholds are fixed before the judge runs: judge again with this policy.",
        )
    for name in (policy.metric, *policy.guards):
        qualification = report.score_qualification if name == "score" else report.qualification
        if qualification is None or not qualification.qualified:
            raise JudgeUnqualified(f"The report's judge is not qualified for the metric {name!r}.")
    errors = sum(verdict.outcome in ("error", "unreadable") for verdict in verdicts)
    chosen = [verdict for verdict in verdicts if verdict.outcome not in ("error", "unreadable")]
    main, clusters = _metric(chosen, policy.metric)
    guards = {}
    for name, margin in policy.guards.items():
        values, groups = _metric(chosen, name)
        # Only an exact match may be missing with good reason: the item has no reference.
        lacking = 0 if name == "exact_match" else len(chosen) - len(values)
        guards[name] = Guard(values, margin, groups, lacking)
    return decide(
        main,
        margin=policy.margin,
        confidence=policy.confidence,
        clusters=clusters,
        minimum_items=policy.minimum_items,
        # A judged item that the metric lacks (an unreadable score) is one without a verdict.
        errors=errors + len(chosen) - len(main),
        max_error_rate=policy.max_error_rate,
        guards=guards,
    )


def _guard(
    name: str,
    guard: Guard,
    found: MeanDifference,
    harm: float,
    confidence: float,
    minimum_items: int,
    max_error_rate: float,
) -> GuardDecision:
    """All guards must hold for a promotion, so each is tested at the whole level (intersection-union); any one of
    them can turn a challenger down, so for that their p-values are adjusted."""
    lower, upper = found.interval(confidence)
    outcome: Literal["held", "violated", "open"] = "open"
    enough = found.n >= minimum_items and guard.errors <= max_error_rate * (found.n + guard.errors)
    if enough and lower > -guard.margin:
        outcome = "held"
    elif enough and harm <= (1 - confidence) / 2:
        outcome = "violated"
    return GuardDecision(
        name=name,
        outcome=outcome,
        n=found.n,
        margin=guard.margin,
        mean=found.mean,
        lower=lower,
        upper=upper,
        p_value=harm,
    )


def _metric(verdicts: Sequence[Verdict], name: str) -> tuple[list[float], list[str] | None]:
    having = [verdict for verdict in verdicts if name in verdict.differences]
    if verdicts and not having:
        known = sorted({key for verdict in verdicts for key in verdict.differences})
        raise InvalidInput(f"The verdicts have no metric {name!r}; they have {', '.join(known)}.")
    return [verdict.differences[name] for verdict in having], clusters_of(having)


def _check_thresholds(margin: float, confidence: float, minimum_items: int, errors: int, max_error_rate: float) -> None:
    if not (
        0 <= margin < 1 and 0.5 <= confidence < 1 and minimum_items >= 1 and errors >= 0 and 0 <= max_error_rate < 1
    ):
        raise InvalidInput(
            f"The gate's thresholds cannot be used: margin {margin}, confidence {confidence}, minimum_items "
            f"{minimum_items}, errors {errors}, max_error_rate {max_error_rate}."
        )
