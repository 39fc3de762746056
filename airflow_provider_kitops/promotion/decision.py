"""The document that allows a tag to move: who was compared, by which report and policy, with which outcome."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.judge.report import Report
from airflow_provider_kitops.oci.canonical import canonical
from airflow_provider_kitops.oci.descriptor import digest_of, is_digest
from airflow_provider_kitops.oci.errors import InvalidReference, VerificationFailed
from airflow_provider_kitops.oci.reference import Reference, is_tag
from airflow_provider_kitops.promotion.gate import GateDecision, GatePolicy, GuardDecision, Outcome

_ROUNDING: Final = 1e-9
SCHEMA: Final = "airflow-provider-kitops/decision/v1"


class DecisionReport(BaseModel):
    """A gate's decision about one challenger and one champion, for one tag of one repository.

    :param repository: where the tag is to move, as ``[registry/]repository``; the registry is for people, since the
        decision stays good where the repository is copied to another one.
    :param tag: the tag that is to move.
    :param challenger: digest of the ModelKit that wants the tag.
    :param champion: digest that holds the tag; None if nobody does.
    :param baseline: digest that the challenger was compared with: the champion if there is one.
    :param judge_report: digest of the judge's report.
    :param policy: the gate's policy, and ``policy_digest`` its digest.
    :param decision: what the gate said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)

    schema_: Literal["airflow-provider-kitops/decision/v1"] = Field(default=SCHEMA, alias="schema")
    repository: str
    tag: str = "champion"
    challenger: str
    champion: str | None
    baseline: str
    judge_report: str
    policy: GatePolicy
    policy_digest: str
    decision: GateDecision

    @field_validator("repository")
    @classmethod
    def _is_repository(cls, value: str) -> str:
        try:
            reference = Reference.parse(value)
        except InvalidReference as error:
            raise ValueError("not a repository") from error
        if reference.selector:
            raise ValueError("not a repository, but a manifest in one")
        return value

    @field_validator("tag")
    @classmethod
    def _is_tag(cls, value: str) -> str:
        if not is_tag(value):
            raise ValueError("not a tag")
        return value

    @field_validator("challenger", "champion", "baseline", "judge_report")
    @classmethod
    def _digest(cls, value: str | None) -> str | None:
        if value is not None and not is_digest(value):
            raise ValueError("not a digest")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.champion is not None and self.champion != self.baseline:
            raise ValueError("there is a champion, but the challenger was compared with another ModelKit")
        if self.policy_digest != self.policy.digest:
            raise ValueError("the policy does not have the digest that is written beside it")
        said, policy = self.decision, self.policy
        if said.margin != policy.margin or said.confidence != policy.confidence:
            raise ValueError("the decision was made with another margin or confidence than the policy's")
        if {guard.name: guard.margin for guard in said.guards} != policy.guards and said.outcome != "inconclusive":
            raise ValueError("the decision was made with other guards than the policy's")
        figures: list[GateDecision | GuardDecision] = [said, *said.guards]
        if not 0 <= said.clusters <= said.n or not all(
            -1 <= one.lower <= one.mean <= one.upper <= 1 and 0 <= one.p_value <= 1 for one in figures
        ):
            raise ValueError("the figures of the decision contradict each other")
        if said.outcome == "promote" and not (
            said.lower > policy.margin
            and said.p_value <= (1 - policy.confidence) / 2 + _ROUNDING
            and said.n >= policy.minimum_items
            and said.errors <= policy.max_error_rate * (said.n + said.errors)
            and all(guard.outcome == "held" and guard.lower > -guard.margin for guard in said.guards)
        ):
            raise ValueError("the figures of the decision do not bear out a promotion")
        return self

    @classmethod
    def of(
        cls,
        decision: GateDecision,
        report: Report,
        policy: GatePolicy,
        *,
        repository: str,
        champion: str | None,
        tag: str = "champion",
    ) -> DecisionReport:
        """Put the document together.

        :param champion: the digest that holds the tag, None if nobody does.
        :param tag: the tag that is to move.
        :raises VerificationFailed: the parts contradict each other.
        """
        try:
            return cls(
                repository=repository,
                tag=tag,
                challenger=report.challenger.digest,
                champion=champion,
                baseline=report.champion.digest,
                judge_report=report.digest,
                policy=policy,
                policy_digest=policy.digest,
                decision=decision,
            )
        except ValidationError as error:
            raise VerificationFailed(
                f"No decision report can be made of this: {problems(error, cls, 'document')}."
            ) from error

    @property
    def outcome(self) -> Outcome:
        """``promote``, ``reject`` or ``inconclusive``."""
        return self.decision.outcome

    def to_bytes(self) -> bytes:
        """JSON; the same decision always gives the same bytes."""
        return canonical(self.model_dump(mode="json")) + b"\n"

    @property
    def digest(self) -> str:
        """Of :meth:`to_bytes`."""
        return digest_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> DecisionReport:
        """Read and check it.

        :raises VerificationFailed: not a decision report of this schema, or one that contradicts itself.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise VerificationFailed(
                f"Not a valid decision report ({SCHEMA}): {problems(error, cls, 'document')}."
            ) from error
