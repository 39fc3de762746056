"""Let an LLM compare two models' answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._references import ReferenceLike
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class LLMJudgeOperator(KitopsBaseOperator):
    """
    Let an LLM compare the answers of a challenger with those of the champion, item by item.

    The judge must first qualify on labelled pairs; if it does not, the task fails and nothing is decided. The report
    and all verdicts are attached to the challenger's digest. A task that was killed goes on with the verdicts that it
    has when it is cleared or retried on the same machine.

    :param challenger: the model that may be promoted: a reference, or the output of another task (templated).
    :param champion: the model it is compared with: the one in service, or a baseline if there is none (templated).
    :param challenger_predictions: ModelKit with the challenger's answers (templated).
    :param champion_predictions: ModelKit with the champion's answers to the same items (templated).
    :param items: ModelKit with the items, held out from training (templated).
    :param pairs: ModelKit with the labelled pairs that the judge must qualify on; ``None`` means the one with the
        items (templated).
    :param llm_conn_id: connection with the judge's endpoint, of type ``pydanticai``, ``openai``, ``http`` or
        ``generic``: host is the base URL, password the key (templated).
    :param judge_model: instead of a connection, a GGUF model to serve inside this task: a file, a ModelKit, or the
        output of another task (templated).
    :param config: settings of the judge: its model's name, rubric, seed, concurrency, the bar to qualify, …
        (templated).
    :param policy: settings of the gate, fixed before the run and hashed into the report (templated).
    :param items_file: path of the items in their ModelKit.
    :param pairs_file: path of the labelled pairs in their ModelKit.
    :param predictions_file: path of the answers in both ModelKits of predictions.
    :param scratch: directory for what is kept between tries; ``None`` means the option ``[kitops]
        scratch_directory`` (templated).
    :param kitops_conn_id: where the ModelKits are (templated).
    :return: the reference dictionary of the report, with the ``challenger``'s and ``champion``'s digests, the number
        of ``items``, ``wins``, ``losses``, ``ties`` and ``errors``, the ``mean`` difference and its ``lower`` and
        ``upper`` bound.
    """

    template_fields: Sequence[str] = (
        "challenger",
        "champion",
        "challenger_predictions",
        "champion_predictions",
        "items",
        "pairs",
        "llm_conn_id",
        "judge_model",
        "config",
        "policy",
        "scratch",
        "kitops_conn_id",
    )

    def __init__(
        self,
        *,
        challenger: ReferenceLike,
        champion: ReferenceLike,
        challenger_predictions: ReferenceLike,
        champion_predictions: ReferenceLike,
        items: ReferenceLike,
        pairs: ReferenceLike | None = None,
        llm_conn_id: str | None = None,
        judge_model: ReferenceLike | None = None,
        config: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        items_file: str = "items.jsonl",
        pairs_file: str = "pairs.jsonl",
        predictions_file: str = "predictions.jsonl",
        scratch: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (llm_conn_id is None) == (judge_model is None):
            raise ValueError("Give either llm_conn_id or judge_model.")
        self.challenger = challenger
        self.champion = champion
        self.challenger_predictions = challenger_predictions
        self.champion_predictions = champion_predictions
        self.items = items
        self.pairs = pairs
        self.llm_conn_id = llm_conn_id
        self.judge_model = judge_model
        self.config = config
        self.policy = policy
        self.items_file = items_file
        self.pairs_file = pairs_file
        self.predictions_file = predictions_file
        self.scratch = scratch

    def _execute(self, context: Context) -> dict[str, Any]:
        raise NotImplementedError
