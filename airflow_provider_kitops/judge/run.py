"""Judging a set of items, from the first labelled pair to the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airflow_provider_kitops.judge import pairwise, pointwise
from airflow_provider_kitops.judge.config import JudgeConfig
from airflow_provider_kitops.judge.endpoint import CallFailed, ChatClient, Endpoint
from airflow_provider_kitops.judge.items import (
    Contestant,
    Item,
    LabelledPair,
    check_predictions,
    items_digest,
    pairs_digest,
)
from airflow_provider_kitops.judge.journal import open_journal
from airflow_provider_kitops.judge.qualification import PairResult, qualify
from airflow_provider_kitops.judge.report import (
    ContestantSummary,
    Counts,
    Difference,
    JudgeSummary,
    Qualification,
    Reply,
    Report,
    Verdict,
    clusters_of,
    verdicts_to_bytes,
)
from airflow_provider_kitops.judge.session import Session
from airflow_provider_kitops.judge.statistics import mean_difference
from airflow_provider_kitops.oci.canonical import json_digest
from airflow_provider_kitops.oci.descriptor import digest_of, is_digest
from airflow_provider_kitops.oci.errors import InvalidInput, JudgeUnqualified

#: Confidence of the intervals in the report; the gate computes its own from the verdicts.
_CONFIDENCE = 0.95

#: What can change a verdict. Prices, patience and concurrency cannot.
_PARAMETERS = (
    "criteria",
    "show_prompt",
    "show_reference",
    "maximum_prompt_characters",
    "maximum_answer_characters",
    "tie_band",
    "logprobs",
    "top_logprobs",
    "minimum_mass",
    "maximum_tokens",
    "temperature",
    "score",
)


@dataclass(frozen=True)
class JudgeProgress:
    """How far a run is.

    :param phase: qualifying the judge, or judging.
    :param done: of ``total`` pairs or items.
    """

    phase: Literal["qualification", "verdicts"]
    done: int
    total: int


@dataclass(frozen=True)
class JudgeRun:
    """A finished run.

    :param report: what was found.
    :param verdicts: one per item, in the order of the items.
    """

    report: Report
    verdicts: list[Verdict]


def judge(
    items: Sequence[Item],
    *,
    champion: Contestant,
    challenger: Contestant,
    pairs: Sequence[LabelledPair],
    endpoint: Endpoint,
    config: JudgeConfig | None = None,
    journal: Path | None = None,
    policy: Mapping[str, object] | None = None,
    on_progress: Callable[[JudgeProgress], None] | None = None,
) -> JudgeRun:
    """Qualify the judge on ``pairs``, then let it compare the contestants' answers to ``items``.

    :param journal: a file that keeps every answer as it comes, so that a run that was killed goes on where it was.
    :param policy: the gate's policy (``GatePolicy.to_json()``); its digest goes into the report, so that the
        thresholds are known to have been fixed before the run.
    :param on_progress: called from worker threads, one call at a time.
    :raises InvalidInput: items, predictions or pairs that do not fit; an endpoint that knows no such model.
    :raises JudgeUnqualified: the judge did not pass; the message has the figures.
    :raises JudgeUnavailable: the endpoint gives no answers.
    :raises Unauthorized: the endpoint refuses the key (HTTP 401); ``Forbidden`` for HTTP 403.
    :raises Conflict: another run is writing ``journal``.
    :raises LimitExceeded: ``config.maximum_cost`` is used up; what was paid for is in the journal.
    """
    config = config or JudgeConfig()
    model = _model(endpoint, config)
    _check(items, champion, challenger, pairs, config)
    tell = on_progress or (lambda progress: None)
    with open_journal(journal) as kept, closing(ChatClient(endpoint, model, config)) as client:
        session = Session(endpoint, model, config, client, kept)
        qualification, scoring = _qualify(session, pairs, config, tell)
        if not qualification.qualified:
            raise JudgeUnqualified(
                f"The judge {model!r} at {endpoint.base_url} may not decide: {qualification.reason}. "
                f"{qualification.sentence()}.",
                hint="Use a stronger judge, give it reference answers, or look at the labelled pairs.",
            )
        by_score = scoring is not None and scoring.qualified
        judged = session.each(
            lambda item: _verdict(session, item, champion, challenger, config, by_score),
            items,
            lambda done: tell(JudgeProgress("verdicts", done, len(items))),
        )
        usage = session.usage()
    verdicts = [one.verdict for one in judged]
    agreement, first_shown = pairwise.agreement([one.orders for one in judged if one.orders])
    report = Report(
        champion=_summary(champion),
        challenger=_summary(challenger),
        items=len(items),
        items_digest=items_digest(items),
        judge=JudgeSummary(
            model=model,
            model_digest=endpoint.model_digest,
            endpoint=endpoint.host,
            prompt=json_digest([pairwise.FORM, pointwise.FORM if config.score else None]),
            parameters=config.model_dump(mode="json", include=set(_PARAMETERS)),
            seed=config.seed,
        ),
        qualification=qualification,
        score_qualification=scoring,
        verdicts=digest_of(verdicts_to_bytes(verdicts)),
        counts=_count(verdicts),
        differences=_differences(verdicts),
        order_agreement=agreement,
        first_shown_share=first_shown,
        truncated=sum(one.cut for one in judged),
        usage=usage,
        policy=None if policy is None else json_digest(dict(policy)),
    )
    return JudgeRun(report, verdicts)


def _count(verdicts: Sequence[Verdict]) -> Counts:
    """How many came out which way."""
    outcomes = [verdict.outcome for verdict in verdicts]
    return Counts(
        wins=outcomes.count("win"),
        ties=outcomes.count("tie"),
        losses=outcomes.count("loss"),
        identical=outcomes.count("identical"),
        unreadable=outcomes.count("unreadable"),
        errors=outcomes.count("error"),
    )


@dataclass(frozen=True)
class _Judged:
    verdict: Verdict
    orders: tuple[pairwise.Reading, pairwise.Reading] | None = None
    cut: bool = False


@dataclass(frozen=True)
class _Compared:
    probability: float | None
    orders: tuple[pairwise.Reading, pairwise.Reading]
    texts: tuple[str, str]
    cut: bool


def _compare(
    session: Session, prompt: str, reference: str | None, one: str, other: str, config: JudgeConfig
) -> _Compared:
    """Both orders of two answers; the probability is that of ``other`` being better."""
    plain, cut = pairwise.messages(prompt, reference, one, other, config)
    swapped, _ = pairwise.messages(prompt, reference, other, one, config)
    completions = session.ask(plain), session.ask(swapped)
    readings = pairwise.read(completions[0], config), pairwise.read(completions[1], config)
    return _Compared(pairwise.combine(*readings), readings, (completions[0].text, completions[1].text), cut)


def _score(
    session: Session, prompt: str, reference: str | None, answer: str, config: JudgeConfig
) -> tuple[float | None, str, dict[str, float]]:
    assert config.score is not None
    completion = session.ask(pointwise.messages(prompt, reference, answer, config, config.score))
    value, found = pointwise.read(completion, config, config.score)
    return value, completion.text, found


def _qualify(
    session: Session, pairs: Sequence[LabelledPair], config: JudgeConfig, tell: Callable[[JudgeProgress], None]
) -> tuple[Qualification, Qualification | None]:
    def compared(pair: LabelledPair) -> tuple[PairResult, _Compared | None]:
        try:
            result = _compare(session, pair.prompt, pair.reference, pair.worse, pair.better, config)
        except CallFailed as error:
            return PairResult("error", str(error)), None
        return PairResult(_label(result.probability, config.tie_band)), result

    def scored(pair: LabelledPair) -> PairResult:
        try:
            better = _score(session, pair.prompt, pair.reference, pair.better, config)[0]
            worse = _score(session, pair.prompt, pair.reference, pair.worse, config)[0]
        except CallFailed as error:
            return PairResult("error", str(error))
        if better is None or worse is None:
            return PairResult("unreadable")
        return PairResult("correct" if better > worse else "tie" if better == worse else "wrong")

    total = len(pairs) * (2 if config.score else 1)
    results = session.each(compared, pairs, lambda done: tell(JudgeProgress("qualification", done, total)))
    agreement, first_shown = pairwise.agreement([found.orders for _, found in results if found is not None])
    digest = pairs_digest(pairs)
    qualification = qualify(
        [result for result, _ in results],
        config.qualification,
        pairs_digest=digest,
        max_error_rate=config.max_error_rate,
        order_agreement=agreement,
        first_shown_share=first_shown,
    )
    if config.score is None or not qualification.qualified:
        return qualification, None
    scores = session.each(scored, pairs, lambda done: tell(JudgeProgress("qualification", len(pairs) + done, total)))
    return qualification, qualify(
        scores,
        config.qualification,
        pairs_digest=digest,
        max_error_rate=config.max_error_rate,
        order_agreement=None,
        first_shown_share=None,
    )


def _verdict(
    session: Session, item: Item, champion: Contestant, challenger: Contestant, config: JudgeConfig, by_score: bool
) -> _Judged:
    answers = champion.predictions[item.id], challenger.predictions[item.id]
    differences = _given_differences(item, champion, challenger)
    if answers[0].strip() == answers[1].strip():
        differences |= {"preference": 0.0, "probability": 0.0} | ({"score": 0.0} if by_score else {})
        return _Judged(
            Verdict(id=item.id, cluster=item.cluster, outcome="identical", probability=0.5, differences=differences)
        )
    try:
        found = _compare(session, item.prompt, item.reference, *answers, config)
        scores = [_score(session, item.prompt, item.reference, answer, config) for answer in answers if by_score]
    except CallFailed as error:
        return _Judged(
            Verdict(id=item.id, cluster=item.cluster, outcome="error", differences=differences, error=str(error))
        )
    plain, swapped = found.orders
    orders = (
        Reply(
            first="champion",
            text=found.texts[0],
            log_probabilities=plain.log_probabilities,
            preferred=None if plain.first is None else 1 - plain.first,
        ),
        Reply(
            first="challenger",
            text=found.texts[1],
            log_probabilities=swapped.log_probabilities,
            preferred=swapped.first,
        ),
    )
    replies = tuple(
        Reply(first=who, text=text, log_probabilities=given, preferred=value)
        for who, (value, text, given) in zip(_SIDES, scores, strict=False)
    )
    if len(scores) == 2 and scores[0][0] is not None and scores[1][0] is not None:
        differences["score"] = scores[1][0] - scores[0][0]
    label = _label(found.probability, config.tie_band)
    if found.probability is not None:
        differences |= {"preference": _PREFERENCE[label], "probability": 2 * found.probability - 1}
    verdict = Verdict(
        id=item.id,
        cluster=item.cluster,
        outcome=_OUTCOME[label],
        probability=found.probability,
        orders=orders,
        scores=replies,
        differences=differences,
        error="" if found.probability is not None else "The judge's answer cannot be read.",
    )
    return _Judged(verdict, found.orders, found.cut)


_SIDES: tuple[Literal["champion", "challenger"], ...] = ("champion", "challenger")
_Label = Literal["correct", "tie", "wrong", "unreadable"]
_OUTCOME: dict[_Label, Literal["win", "tie", "loss", "unreadable"]] = {
    "correct": "win",
    "tie": "tie",
    "wrong": "loss",
    "unreadable": "unreadable",
}
_PREFERENCE: dict[_Label, float] = {"correct": 1.0, "tie": 0.0, "wrong": -1.0}


def _label(probability: float | None, band: float) -> _Label:
    """What the probability of the better (or the challenger's) answer being better amounts to."""
    if probability is None:
        return "unreadable"
    if pairwise.is_tie(probability, band):
        return "tie"
    return "correct" if probability > 0.5 else "wrong"


def _given_differences(item: Item, champion: Contestant, challenger: Contestant) -> dict[str, float]:
    """The metric that needs no judge."""
    if item.reference is None:
        return {}
    right = [contestant.predictions[item.id].strip() == item.reference.strip() for contestant in (champion, challenger)]
    return {"exact_match": float(right[1]) - float(right[0])}


def _differences(verdicts: Sequence[Verdict]) -> dict[str, Difference]:
    summaries = {}
    for name in sorted({name for verdict in verdicts for name in verdict.differences}):
        having = [verdict for verdict in verdicts if name in verdict.differences]
        found = mean_difference([verdict.differences[name] for verdict in having], clusters_of(having))
        lower, upper = found.interval(_CONFIDENCE)
        summaries[name] = Difference(
            n=found.n,
            clusters=found.clusters,
            mean=found.mean,
            lower=lower,
            upper=upper,
            confidence=_CONFIDENCE,
            test=found.test,
            p_value=found.p_two_sided(),
        )
    return summaries


def _summary(contestant: Contestant) -> ContestantSummary:
    return ContestantSummary(
        digest=contestant.digest,
        predictions=json_digest(dict(contestant.predictions)),
        predictions_modelkit=contestant.predictions_modelkit,
    )


def _model(endpoint: Endpoint, config: JudgeConfig) -> str:
    if endpoint.model and config.model and endpoint.model != config.model:
        raise InvalidInput(f"The judge's configuration names {config.model!r}, its endpoint {endpoint.model!r}.")
    if not (endpoint.model or config.model):
        raise InvalidInput("No judge is named.", hint="Set model in the judge's configuration or its endpoint.")
    return endpoint.model or config.model


def _check(
    items: Sequence[Item],
    champion: Contestant,
    challenger: Contestant,
    pairs: Sequence[LabelledPair],
    config: JudgeConfig,
) -> None:
    check_sets(items, pairs, config)
    for who, contestant in (("champion", champion), ("challenger", challenger)):
        if not is_digest(contestant.digest):
            raise InvalidInput(f"The {who} is not named by a digest but by {contestant.digest!r}.")
        check_predictions(items, contestant.predictions, who)


def check_sets(items: Sequence[Item], pairs: Sequence[LabelledPair], config: JudgeConfig) -> None:
    """See whether these items can be judged by a judge that qualifies on these pairs, as far as can be seen before.

    :raises InvalidInput: they cannot.
    """
    if not items:
        raise InvalidInput("There are no items to judge.")
    for kind, ids in (("items", [item.id for item in items]), ("labelled pairs", [pair.id for pair in pairs])):
        if len(set(ids)) < len(ids):
            raise InvalidInput(f"Two of the {kind} have the same id.")
    if len(pairs) < config.qualification.minimum_pairs:
        raise InvalidInput(
            f"{len(pairs)} labelled pairs cannot qualify a judge, {config.qualification.minimum_pairs} are needed.",
            hint="Add pairs, or lower qualification.minimum_pairs.",
        )
    if not config.show_prompt:
        references = [(item.id, item.reference) for item in items] + [(pair.id, pair.reference) for pair in pairs]
        without = [name for name, reference in references if reference is None or not config.show_reference]
        if without:
            raise InvalidInput(f"With show_prompt off, every item and pair needs a reference; {without[0]!r} has none.")
