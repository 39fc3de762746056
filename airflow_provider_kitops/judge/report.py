"""What a judge found: the report and the verdicts it rests on (DESIGN "Judge")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.oci.canonical import canonical
from airflow_provider_kitops.oci.descriptor import digest_of, is_digest
from airflow_provider_kitops.oci.errors import VerificationFailed

SCHEMA: Final = "airflow-provider-kitops/judge-report/v1"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)


class Reply(_Frozen):
    """What the judge said to one request.

    :param first: whose answer was shown first; in pointwise scoring, whose answer was shown.
    :param text: raw text of the answer.
    :param log_probabilities: of each letter (or score) as the endpoint gave them; empty if it gave none.
    :param preferred: P(the challenger's answer is better) by this order alone, or the expected score in [0, 1];
        None if the answer was unreadable.
    """

    first: Literal["champion", "challenger"]
    text: str
    log_probabilities: dict[str, float] = Field(default_factory=dict)
    preferred: float | None = None


class Verdict(_Frozen):
    """One item's verdict.

    :param id: of the item.
    :param cluster: of the item.
    :param outcome: for the challenger; ``identical`` answers are ties that no call was made for; ``unreadable``
        and ``error`` are no verdicts.
    :param probability: P(the challenger's answer is better), both orders combined.
    :param orders: both orders, the champion's answer first in the first.
    :param scores: pointwise replies, champion first, if there were any.
    :param differences: challenger minus champion by metric, in [-1, 1]: ``preference`` (-1, 0, 1),
        ``probability`` (2p - 1), ``score`` and ``exact_match``.
    :param error: why there is no verdict.
    """

    id: str
    cluster: str | None = None
    outcome: Literal["win", "tie", "loss", "identical", "unreadable", "error"]
    probability: float | None = None
    orders: tuple[Reply, ...] = ()
    scores: tuple[Reply, ...] = ()
    differences: dict[str, float] = Field(default_factory=dict)
    error: str = ""


class ContestantSummary(_Frozen):
    """One side.

    :param digest: of the ModelKit that answered.
    :param predictions: digest of its answers.
    :param predictions_modelkit: digest of the ModelKit that they are from, if they are from one.
    """

    digest: str
    predictions: str
    predictions_modelkit: str | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Reports from before the field was there keep their bytes, and so their digest."""
        value: dict[str, object] = serialize(self)
        if self.predictions_modelkit is None:
            del value["predictions_modelkit"]
        return value


class JudgeSummary(_Frozen):
    """Who judged, and how.

    :param model: its name at the endpoint.
    :param model_digest: of its weights, if known.
    :param endpoint: host.
    :param prompt: digest of the prompt's fixed text.
    :param parameters: the configuration that can change a verdict.
    :param seed: sent to the endpoint.
    """

    model: str
    model_digest: str
    endpoint: str
    prompt: str
    parameters: dict[str, object]
    seed: int


class Qualification(_Frozen):
    """How the judge did on labelled pairs.

    :param qualified: whether it passed.
    :param pairs_digest: of the set of pairs.
    :param pairs: how many got an answer, readable or not.
    :param correct: combined verdicts that prefer the better answer.
    :param ties: combined verdicts that prefer neither; not correct.
    :param unreadable: pairs without a readable answer; not correct.
    :param errors: pairs that the endpoint failed on; not among ``pairs``.
    :param accuracy: correct / pairs.
    :param accuracy_lower: one-sided lower bound of it.
    :param order_agreement: share of readable pairs where both orders prefer the same answer.
    :param first_shown_share: share of single orders that prefer the answer shown first.
    :param reason: why it did not pass, empty if it did.
    """

    qualified: bool
    pairs_digest: str
    pairs: int
    correct: int
    ties: int
    unreadable: int
    errors: int
    accuracy: float
    accuracy_lower: float
    confidence: float
    minimum_accuracy: float
    maximum_unreadable: float
    order_agreement: float | None
    first_shown_share: float | None
    reason: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.qualified and not (
            self.accuracy_lower > self.minimum_accuracy and self.unreadable <= self.maximum_unreadable * self.pairs
        ):
            raise ValueError("the judge is said to be qualified, but its figures do not say so")
        return self

    def sentence(self) -> str:
        """The figures, for people."""
        shares = [
            f"{name} {share:.2f}"
            for name, share in (
                ("order agreement", self.order_agreement),
                ("first-shown share", self.first_shown_share),
            )
            if share is not None
        ]
        return (
            f"{self.correct} of {self.pairs} labelled pairs right (accuracy {self.accuracy:.3f}, at least "
            f"{self.accuracy_lower:.3f} with {self.confidence:.0%} confidence, bar {self.minimum_accuracy:.2f}; "
            f"{self.ties} ties, {self.unreadable} unreadable, {self.errors} errors; {', '.join(shares)})"
        )


class Counts(_Frozen):
    """How the items came out. ``ties`` are judged ties, ``identical`` ties without a call; ``errors`` are the
    endpoint's failures, ``unreadable`` the judge's; the six add up to the number of items."""

    wins: int
    ties: int
    losses: int
    identical: int
    unreadable: int
    errors: int

    @property
    def judged(self) -> int:
        """Items with a verdict."""
        return self.wins + self.ties + self.losses + self.identical

    @property
    def items(self) -> int:
        """All items."""
        return self.judged + self.unreadable + self.errors


class Difference(_Frozen):
    """A metric's mean difference challenger minus champion, in [-1, 1].

    :param n: items it rests on.
    :param clusters: independent groups among them.
    :param lower: with ``upper`` the two-sided interval of ``confidence``.
    :param test: what ``p_value`` is from: two-sided, of no difference.
    """

    n: int
    clusters: int
    mean: float
    lower: float
    upper: float
    confidence: float
    test: str
    p_value: float


class Usage(_Frozen):
    """What the verdicts cost, also those that an earlier, interrupted run paid for."""

    calls: int = Field(ge=0)
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    cost: float = Field(ge=0)


class Report(_Frozen):
    """What a judge found.

    :param items_digest: of the item set; ``items`` is its size.
    :param qualification: of the pairwise verdict.
    :param score_qualification: of the pointwise score, if there was one.
    :param verdicts: digest of the verdicts' JSON Lines.
    :param differences: by metric.
    :param order_agreement: share of judged items (not identical ones) where both orders prefer the same answer.
    :param first_shown_share: share of single orders that prefer the answer shown first.
    :param truncated: items of which the judge saw only the beginning of a text.
    :param policy: digest of the gate's policy, fixed before the run; None if there was none.
    """

    schema_: Literal["airflow-provider-kitops/judge-report/v1"] = Field(default=SCHEMA, alias="schema")
    champion: ContestantSummary
    challenger: ContestantSummary
    items: int
    items_digest: str
    judge: JudgeSummary
    qualification: Qualification
    score_qualification: Qualification | None = None
    verdicts: str
    counts: Counts
    differences: dict[str, Difference]
    order_agreement: float | None
    first_shown_share: float | None
    truncated: int
    usage: Usage
    policy: str | None = None

    @field_validator("items_digest", "verdicts")
    @classmethod
    def _digest(cls, value: str) -> str:
        if not is_digest(value):
            raise ValueError("not a digest")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.counts.items != self.items:
            raise ValueError(f"there are {self.items} items, but {self.counts.items} are counted")
        return self

    def to_bytes(self) -> bytes:
        """JSON; the same report always gives the same bytes."""
        return canonical(self.model_dump(mode="json")) + b"\n"

    @property
    def digest(self) -> str:
        """Of :meth:`to_bytes`."""
        return digest_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Report:
        """Read it back.

        :raises VerificationFailed: not a report of this schema.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise VerificationFailed(
                f"Not a judge report of schema {SCHEMA}: {problems(error, cls, 'document')}."
            ) from error

    def outcome_row(self) -> dict[str, str | int | float]:
        """The figures that fit in one row of a table."""
        preference = self.differences.get("preference")
        row: dict[str, str | int | float] = {
            "champion": self.champion.digest,
            "challenger": self.challenger.digest,
            "items": self.items,
            **self.counts.model_dump(),
            "judge": self.judge.model,
            "judge_accuracy": self.qualification.accuracy,
            "judge_accuracy_lower": self.qualification.accuracy_lower,
        }
        if preference is not None:
            row |= {name: getattr(preference, name) for name in ("mean", "lower", "upper", "p_value")}
        return row


def verdicts_to_bytes(verdicts: Iterable[Verdict]) -> bytes:
    """JSON Lines in order of item id; the digest of it is in the report."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.id)
    return b"".join(canonical(verdict.model_dump(mode="json")) + b"\n" for verdict in ordered)


def verdicts_from_bytes(data: bytes) -> list[Verdict]:
    """Read them back.

    :raises VerificationFailed: a line is not a verdict.
    """
    try:
        return [Verdict.model_validate_json(line) for line in data.splitlines() if line.strip()]
    except ValidationError as error:
        raise VerificationFailed(f"Not a file of verdicts: {problems(error, Verdict, 'line')}.") from error


def clusters_of(verdicts: Sequence[Verdict]) -> list[str] | None:
    """One cluster name per verdict, None if there are no clusters. An item without one stands for itself."""
    if all(verdict.cluster is None for verdict in verdicts):
        return None
    return [f"item {verdict.id}" if verdict.cluster is None else f"cluster {verdict.cluster}" for verdict in verdicts]
