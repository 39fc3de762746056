"""Decide from a judge's report whether a challenger may be promoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, SkipMixin

from airflow_provider_kitops.hooks._arguments import settings_of
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._errors import optional_feature
from airflow_provider_kitops.hooks._references import ReferenceLike, digest_text, reference_text
from airflow_provider_kitops.operators._base import KitopsBaseOperator, signer

if TYPE_CHECKING:
    from airflow.sdk import Context


class PromotionGateOperator(KitopsBaseOperator, SkipMixin):
    """
    Decide ``promote``, ``reject`` or ``inconclusive`` from a judge's report, and skip what follows unless ``promote``.

    The decision is attached to the challenger's digest, and its digest is returned, so that the promotion can check
    it.

    :param report: the judge's report: the output of ``LLMJudgeOperator``, or a reference by digest (templated).
    :param policy: settings of the gate; ``None`` means those that the report was made for. Others are an error
        (templated).
    :param champion: what the tag named when the challenger was compared with it: a digest, or the output of the task
        that resolved it; ``None`` if there was no champion and the challenger was compared with a baseline
        (templated).
    :param tag: the tag that the decision is for (templated).
    :param signing_key: path of a private key to sign the decision with (templated).
    :param fail_on_reject: fail the task unless the outcome is ``promote``, instead of skipping what follows.
    :param ignore_downstream_trigger_rules: skip all tasks downstream; if false, only the direct ones, and the trigger
        rules of those after them hold. As in ``ShortCircuitOperator``.
    :param kitops_conn_id: where the report is (templated).
    :return: the reference dictionary of the decision, with ``outcome``, ``reason``, ``n``, ``mean``, ``lower``,
        ``upper``, ``p_value``, and the digests of ``challenger``, ``champion``, ``baseline`` and ``report``.
    """

    template_fields: Sequence[str] = ("report", "policy", "champion", "tag", "signing_key", "kitops_conn_id")
    inherits_from_skipmixin = True
    ui_color = "#d7e8c5"

    def __init__(
        self,
        *,
        report: ReferenceLike,
        policy: Mapping[str, Any] | None = None,
        champion: ReferenceLike | None = None,
        tag: str = "champion",
        signing_key: str | Path | None = None,
        fail_on_reject: bool = False,
        ignore_downstream_trigger_rules: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.report = report
        self.policy = policy
        self.champion = champion
        self.tag = tag
        self.signing_key = signing_key
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
        with optional_feature("The gate", "judge"):
            from airflow_provider_kitops.judge.report import verdicts_to_bytes
            from airflow_provider_kitops.promotion.attest import attach_decision
            from airflow_provider_kitops.promotion.decision import DecisionReport
            from airflow_provider_kitops.promotion.gate import GatePolicy, decide_report
            from airflow_provider_kitops.promotion.judging import read_judged

            champion = digest_text(self.champion, "champion")
            with self.hook.store() as store:
                where, _ = store.resolve(reference_text(self.report, "report"))
                report, verdicts, policy = read_judged(store, str(where))
                if self.policy is not None:
                    policy = GatePolicy.parse(settings_of(self.policy, "policy"))
                decision = decide_report(report, verdicts, policy)
                target = store.target(where)
                document = DecisionReport.of(
                    decision, report, policy, repository=target.name, champion=champion, tag=self.tag
                )
                # One signature then covers what was decided and what it was decided from.
                files = {"report.json": report.to_bytes(), "verdicts.jsonl": verdicts_to_bytes(verdicts)}
                attached = attach_decision(target, document, files=files, signer=signer(self.signing_key))
                self.log.info("%s: %s", decision.outcome, decision.reason)
                return describe(
                    store,
                    where.at(attached.digest),
                    outcome=decision.outcome,
                    reason=decision.reason,
                    n=decision.n,
                    mean=decision.mean,
                    lower=decision.lower,
                    upper=decision.upper,
                    p_value=decision.p_value,
                    challenger=document.challenger,
                    champion=document.champion,
                    baseline=document.baseline,
                    report=where.digest,
                )
