"""Let an LLM compare two models' answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._arguments import settings_of
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._errors import optional_feature, require
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text
from airflow_provider_kitops.hooks.llm import endpoint_settings
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.operators._base import KitopsBaseOperator, remove_scratch, scratch_directory, signer
from airflow_provider_kitops.operators._settings import check_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_kitops.judge.config import JudgeConfig
    from airflow_provider_kitops.judge.endpoint import Endpoint
    from airflow_provider_kitops.judge.run import JudgeProgress
    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.oci.target import ProgressHook

_LOG_INTERVAL = 10.0  # seconds between two lines of progress


def _check(config: Any, policy: Any, task_id: str) -> None:
    from airflow_provider_kitops.judge.config import JudgeConfig
    from airflow_provider_kitops.promotion.gate import GatePolicy

    check_settings(config, "config", task_id, JudgeConfig)
    check_settings(policy, "policy", task_id, GatePolicy)


class LLMJudgeOperator(KitopsBaseOperator):
    """
    Let an LLM compare the answers of a challenger with those of the champion, item by item.

    Where a ModelKit of predictions has provenance, it must name the model that the predictions are credited to.

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
    :param judge_model: instead of a connection, a GGUF model to serve inside this task: an absolute path, a ModelKit,
        or the output of another task (templated).
    :param judge_threads: cores for ``judge_model``.
    :param config: settings of the judge: its model's name, rubric, seed, concurrency, the bar to qualify, …
        (templated).
    :param policy: settings of the gate, fixed before the run and hashed into the report (templated). In both, an
        unknown name, or a value that cannot be used and is no template, is an error where the DAG is read.
    :param items_file: path of the items in their ModelKit.
    :param pairs_file: path of the labelled pairs in their ModelKit.
    :param predictions_file: path of the answers in both ModelKits of predictions.
    :param signing_key: path of a private key to sign the report with (templated).
    :param scratch: directory for what is kept between tries; ``None`` means the option ``[kitops]
        scratch_directory`` (templated).
    :param kitops_conn_id: where the ModelKits are (templated).
    :return: the reference dictionary of the report, with the digests of ``challenger`` and ``champion``, the numbers of
        ``items``, ``wins``, ``ties``, ``losses``, ``identical``, ``unreadable`` and ``errors``, the ``judge`` and its
        accuracy, and the ``mean`` difference with its ``lower`` and ``upper`` bound and ``p_value``.
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
        "signing_key",
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
        judge_model: ReferenceLike | Path | None = None,
        judge_threads: int = 2,
        config: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        items_file: str = "items.jsonl",
        pairs_file: str = "pairs.jsonl",
        predictions_file: str = "predictions.jsonl",
        signing_key: str | Path | None = None,
        scratch: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if llm_conn_id is None and judge_model is None:
            raise ValueError("Give llm_conn_id or judge_model.")
        _check(config, policy, self.task_id)
        self.challenger = challenger
        self.champion = champion
        self.challenger_predictions = challenger_predictions
        self.champion_predictions = champion_predictions
        self.items = items
        self.pairs = pairs
        self.llm_conn_id = llm_conn_id
        self.judge_model = judge_model
        self.judge_threads = judge_threads
        self.config = config
        self.policy = policy
        self.items_file = items_file
        self.pairs_file = pairs_file
        self.predictions_file = predictions_file
        self.signing_key = signing_key
        self.scratch = scratch

    def _execute(self, context: Context) -> dict[str, Any]:
        with optional_feature("Judging", "judge"):
            from airflow_provider_kitops.judge.config import JudgeConfig
            from airflow_provider_kitops.oci import progress
            from airflow_provider_kitops.promotion.gate import GatePolicy
            from airflow_provider_kitops.promotion.judging import JudgeInputs, judge_modelkits

            scratch = scratch_directory(context, self.scratch)
            inputs = JudgeInputs(
                challenger=reference_text(self.challenger, "challenger"),
                champion=reference_text(self.champion, "champion"),
                challenger_predictions=reference_text(self.challenger_predictions, "challenger_predictions"),
                champion_predictions=reference_text(self.champion_predictions, "champion_predictions"),
                items=reference_text(self.items, "items"),
                pairs=reference_text(self.pairs or self.items, "pairs"),
                items_file=self.items_file,
                pairs_file=self.pairs_file,
                predictions_file=self.predictions_file,
            )
            config = JudgeConfig.parse(settings_of(self.config, "config"))
            policy = GatePolicy.parse(settings_of(self.policy, "policy"))
            with (
                self.hook.store() as store,
                progress.lines(self.log) as on_transfer,
                self._endpoint(store, scratch, config, on_transfer) as endpoint,
            ):
                reference, report = judge_modelkits(
                    store,
                    inputs,
                    endpoint=endpoint,
                    config=config,
                    policy=policy,
                    scratch=scratch,
                    signer=signer(self.signing_key),
                    on_progress=self._log_progress(),
                    on_transfer=on_transfer,
                )
                answer = describe(store, reference, tags=[], **report.outcome_row())
        remove_scratch(scratch)
        return answer

    def _endpoint(
        self, store: Store, scratch: Path, config: JudgeConfig, on_transfer: ProgressHook
    ) -> AbstractContextManager[Endpoint]:
        # Both may be templates, of which one renders to nothing.
        conn_id, model = (
            None if value in (None, "", "None") else value for value in (self.llm_conn_id, self.judge_model)
        )
        if (conn_id is None) == (model is None):
            raise InvalidInput("A judge is either llm_conn_id or judge_model.", hint="Give exactly one of them.")
        if conn_id is None:
            from airflow_provider_kitops.promotion.judging import local_judge

            require("A judge inside the task", "local-judge", "xllamacpp")
            text = str(model) if isinstance(model, Path) else reference_text(model, "judge_model")
            return local_judge(store, text, scratch, self.judge_threads, on_transfer, config=config)
        from airflow_provider_kitops.judge.endpoint import Endpoint

        settings = endpoint_settings(self.hook.get_connection(conn_id))
        return nullcontext(Endpoint(settings.base_url, model=settings.model, api_key=settings.api_key))

    def _log_progress(self) -> Callable[[JudgeProgress], None]:
        last = 0.0

        def on_progress(progress: JudgeProgress) -> None:
            nonlocal last
            if progress.done == progress.total or time.monotonic() - last >= _LOG_INTERVAL:
                last = time.monotonic()
                self.log.info("%s: %d of %d", progress.phase, progress.done, progress.total)

        return on_progress
