"""Decide from a judge's report whether a challenger may be promoted."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, SkipMixin

from airflow_provider_kitops.hooks._references import ReferenceLike
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class PromotionGateOperator(KitopsBaseOperator, SkipMixin):
    """
    Decide ``promote``, ``reject`` or ``inconclusive`` from a judge's report, and skip what follows unless ``promote``.

    The decision is attached to the challenger's digest, and its digest is returned, so that the promotion can check
    it.

    :param report: the judge's report: the output of ``LLMJudgeOperator``, or a reference by digest (templated).
    :param policy: settings of the gate; they must be those that were hashed into the report (templated).
    :param champion: what the tag named when the challenger was compared with it: a digest, or the output of the task
        that resolved it; ``None`` if there was no champion and the challenger was compared with a baseline
        (templated).
    :param fail_on_reject: fail the task unless the outcome is ``promote``, instead of skipping what follows.
    :param ignore_downstream_trigger_rules: skip all tasks downstream; if false, only the direct ones, and the trigger
        rules of those after them hold. As in ``ShortCircuitOperator``.
    :param kitops_conn_id: where the report is (templated).
    :return: the reference dictionary of the decision, with ``outcome``, ``mean``, ``lower``, ``upper``, ``n``,
        ``p_value``, ``reason``, and the digests of ``challenger``, ``champion`` and ``baseline``.
    """

    template_fields: Sequence[str] = ("report", "policy", "champion", "kitops_conn_id")
    inherits_from_skipmixin = True
    ui_color = "#d7e8c5"

    def __init__(
        self,
        *,
        report: ReferenceLike,
        policy: Mapping[str, Any] | None = None,
        champion: ReferenceLike | None = None,
        fail_on_reject: bool = False,
        ignore_downstream_trigger_rules: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.report = report
        self.policy = policy
        self.champion = champion
        self.fail_on_reject = fail_on_reject
        self.ignore_downstream_trigger_rules = ignore_downstream_trigger_rules

    def _execute(self, context: Context) -> dict[str, Any]:
        answer = self._decide()
        if answer["outcome"] == "promote":
            return answer
        if self.fail_on_reject:
            raise AirflowFailException(f"{answer['outcome']}: {answer['reason']}")
        # Skipping ends the task before its return value would be stored, so it is stored first.
        context["ti"].xcom_push(key="return_value", value=answer)
        task = context["task"]
        relatives = (task.get_flat_relatives if self.ignore_downstream_trigger_rules else task.get_direct_relatives)(
            upstream=False
        )
        self.skip(context["ti"], [each for each in relatives if not each.is_teardown])
        return answer

    def _decide(self) -> dict[str, Any]:
        raise NotImplementedError
