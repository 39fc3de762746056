"""Judging a set of items, from the first labelled pair to the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from airflow_provider_kitops.judge.config import JudgeConfig
from airflow_provider_kitops.judge.endpoint import Endpoint
from airflow_provider_kitops.judge.items import Contestant, Item, LabelledPair
from airflow_provider_kitops.judge.report import Report, Verdict


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
    :raises InvalidInput: items, predictions or pairs that do not fit.
    :raises JudgeUnqualified: the judge did not pass; the message has the figures.
    :raises JudgeUnavailable: the endpoint gives no answers.
    :raises Unauthorized: the endpoint refuses the key (HTTP 401); ``Forbidden`` for HTTP 403.
    :raises Conflict: another run is writing ``journal``.
    :raises LimitExceeded: ``config.maximum_cost`` is used up; what was paid for is in the journal.
    """
    raise NotImplementedError
