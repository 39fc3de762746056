"""How to judge: every option in one validated model; an unknown key is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.oci.errors import InvalidInput


class QualificationBar(BaseModel):
    """What a judge must show on labelled pairs before it may judge anything.

    :param minimum_pairs: fewer pairs prove nothing.
    :param minimum_accuracy: the lower bound of the combined verdict's accuracy must exceed it. A tie is not right.
    :param confidence: of that one-sided bound (Clopper and Pearson).
    :param maximum_unreadable: share of pairs to which the judge gave no readable answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_pairs: int = Field(default=30, ge=5)
    minimum_accuracy: float = Field(default=0.7, ge=0.5, lt=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    maximum_unreadable: float = Field(default=0.05, ge=0, lt=1)


class ScoreConfig(BaseModel):
    """Pointwise scoring beside the pairwise verdict.

    :param rubric: what each score means, in words.
    :param lowest: worst score, one digit.
    :param highest: best score, one digit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rubric: str = (
        "1: wrong or useless. 2: mostly wrong. 3: partly right. 4: mostly right. 5: right, complete and to the point."
    )
    lowest: int = Field(default=1, ge=0, le=9)
    highest: int = Field(default=5, ge=0, le=9)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be smaller than highest")
        return self


class JudgeConfig(BaseModel):
    """How to judge.

    :param model: the name by which the endpoint knows the judge; empty leaves it to the endpoint's own setting.
    :param criteria: what makes an answer the better one, in a sentence or two.
    :param show_prompt: show the judge the item's prompt. Without it the judge sees only the reference and the
        answers, which costs less where the reference says all; each item then needs one.
    :param show_reference: show the item's reference answer, where it has one.
    :param maximum_prompt_characters: longer prompts are cut (the report counts them).
    :param maximum_answer_characters: the same for references and answers.
    :param tie_band: |p - 0.5| up to this is a tie, p being the probability that the challenger's answer is better.
        Small judges are right by small margins, so a wide band makes ties of all that they say.
    :param logprobs: ``auto`` uses log-probabilities when the endpoint gives them and the letter otherwise;
        ``require`` makes an answer without them unreadable; ``never`` does not ask for them.
    :param top_logprobs: how many alternatives to ask for; endpoints commonly allow 20.
    :param minimum_mass: the share of probability on the two letters below which an answer is unreadable.
    :param maximum_tokens: length of the answer in tokens; one letter needs one.
    :param token_limit_parameter: the name that the endpoint has for that limit.
    :param temperature: of the judge.
    :param seed: sent to the endpoint.
    :param score: also score each answer by itself; None does not.
    :param concurrency: items judged at a time. Both orders of one item follow each other, for prompt caches.
    :param timeout: seconds per request.
    :param retries: further attempts of a request that failed for a passing reason.
    :param max_error_rate: share of labelled pairs that may fail without a verdict; of items, the gate's policy says.
    :param qualification: the bar.
    :param input_price: per million input tokens, in any currency.
    :param output_price: per million output tokens.
    :param maximum_cost: no further request once the cost has reached this; those under way end. None is no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = ""
    criteria: str = "The better answer is the one that is correct. If both are, the clearer and more complete one."
    show_prompt: bool = True
    show_reference: bool = True
    maximum_prompt_characters: int = Field(default=4000, ge=100)
    maximum_answer_characters: int = Field(default=4000, ge=100)
    tie_band: float = Field(default=0.01, ge=0, lt=0.5)
    logprobs: Literal["auto", "require", "never"] = "auto"
    top_logprobs: int = Field(default=20, ge=2, le=20)
    minimum_mass: float = Field(default=0.1, ge=0, lt=1)
    maximum_tokens: int = Field(default=1, ge=1)
    token_limit_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # noqa: S105
    temperature: float = Field(default=0, ge=0, le=2)
    seed: int = 0
    score: ScoreConfig | None = None
    concurrency: int = Field(default=4, ge=1, le=256)
    timeout: float = Field(default=120, gt=0)
    retries: int = Field(default=4, ge=0, le=20)
    max_error_rate: float = Field(default=0.05, ge=0, lt=1)
    qualification: QualificationBar = QualificationBar()
    input_price: float = Field(default=0, ge=0)
    output_price: float = Field(default=0, ge=0)
    maximum_cost: float | None = Field(default=None, gt=0)

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> JudgeConfig:
        """Read it from a mapping.

        :raises InvalidInput: unknown keys or unusable values, with all that is wrong.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidInput(f"The judge's configuration cannot be used: {problems(error, cls, 'judge')}.") from error
