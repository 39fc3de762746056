"""Move a tag to a challenger that won, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._references import ReferenceLike, digest_text, reference_text
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.operators._base import KitopsBaseOperator, signer, verifier
from airflow_provider_kitops.operators._outlets import announce, withhold

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.promotion.promote import Promotion


class ModelKitPromoteOperator(KitopsBaseOperator):
    """
    Move a tag to the challenger, if a valid decision says so and the tag still names what was expected.

    The digest that the tag named before is kept under a tag of its own. Promoting again what is promoted already
    changes nothing. Each asset in ``outlets`` gets an event with the digest in its extra, unless another task had
    promoted the challenger before; a second try of the same task sends one, because it cannot know whether the first
    came that far.

    :param challenger: the ModelKit to promote: a reference, or the output of another task (templated).
    :param decision: the decision: the output of ``PromotionGateOperator``, or a reference by digest (templated).
    :param expected: what the tag must still name: a digest, or the output of the task that resolved it; ``None``: the
        tag must not exist yet (templated).
    :param tag: the tag to move (templated).
    :param signing_key: path of a private key to sign the statement of promotion with (templated).
    :param verification_key: path of a public key; the decision must then be signed by its private key (templated).
    :param kitops_conn_id: where the ModelKit is (templated).
    :return: the reference dictionary, with the ``previous`` digest, the ``history_tag`` that keeps it, the digest of
        the ``statement``, and whether anything ``changed``.
    """

    template_fields: Sequence[str] = (
        "challenger",
        "decision",
        "expected",
        "tag",
        "signing_key",
        "verification_key",
        "kitops_conn_id",
    )
    ui_color = "#c5dfe8"

    def __init__(
        self,
        *,
        challenger: ReferenceLike,
        decision: ReferenceLike,
        expected: ReferenceLike | None = None,
        tag: str = "champion",
        signing_key: str | Path | None = None,
        verification_key: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.challenger = challenger
        self.decision = decision
        self.expected = expected
        self.tag = tag
        self.signing_key = signing_key
        self.verification_key = verification_key

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.promotion.attest import read_decision
        from airflow_provider_kitops.promotion.promote import promote

        challenger = reference_text(self.challenger, "challenger")
        decision = reference_text(self.decision, "decision")
        with self.hook.store() as store:
            pinned, descriptor = store.resolve(challenger)
            target = store.target(pinned)
            report, _ = store.resolve(decision)
            promotion = promote(
                target,
                descriptor.digest,
                self.tag,
                digest_text(self.expected, "expected"),
                decision=read_decision(store.target(report), report.digest),
                mutable_tags=store.config.mutable_tags,
                signer=signer(self.signing_key),
                verifier=verifier(self.verification_key),
                details=_run(context),
            )
            answer = _answer(store, pinned, promotion)
        _announce(context, answer)
        return answer


class ModelKitRollbackOperator(KitopsBaseOperator):
    """
    Move a tag back to the digest that it named before its last promotion, or to any other of its history.

    Each asset in ``outlets`` gets an event with the digest in its extra.

    :param repository: repository of the tag, without tag or digest (templated).
    :param expected: what the tag must still name, and is to leave: a digest, or the output of the task that resolved
        it. It keeps a second try from going back two steps (templated).
    :param tag: the tag to move (templated).
    :param to: digest to go back to, which the tag must have named before; ``None`` means the last good one
        (templated).
    :param signing_key: path of a private key to sign the statement of promotion with (templated).
    :param kitops_conn_id: where the ModelKit is (templated).
    :return: the reference dictionary, with the ``previous`` digest, the ``history_tag`` that keeps it, the digest of
        the ``statement``, and whether anything ``changed``.
    """

    template_fields: Sequence[str] = ("repository", "tag", "to", "expected", "signing_key", "kitops_conn_id")
    ui_color = "#c5dfe8"

    def __init__(
        self,
        *,
        repository: str,
        expected: ReferenceLike,
        tag: str = "champion",
        to: ReferenceLike | None = None,
        signing_key: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.tag = tag
        self.to = to
        self.expected = expected
        self.signing_key = signing_key

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.promotion.promote import rollback

        expected = digest_text(self.expected, "expected")
        if expected is None:
            raise InvalidInput(
                "expected is empty: without it, a task that is retried would go back twice.",
                hint="Give the digest that is to leave service, or the output of a task that resolved the tag.",
            )
        repository = Reference.parse(reference_text(self.repository, "repository"))
        if repository.tag or repository.digest:
            raise InvalidReference(
                f"repository is {self.repository!r}, which names more than a repository.",
                hint="Give the tag to roll back as tag, and the digest to go to as to.",
            )
        with self.hook.store() as store:
            where = store.reference(repository)
            promotion = rollback(
                store.target(where),
                self.tag,
                to=digest_text(self.to, "to"),
                expected=expected,
                mutable_tags=store.config.mutable_tags,
                signer=signer(self.signing_key),
                details=_run(context),
            )
            answer = _answer(store, where, promotion)
        _announce(context, answer)
        return answer


def _answer(store: Store, where: Reference, promotion: Promotion) -> dict[str, Any]:
    return describe(
        store,
        where.at(promotion.digest),
        tags=[promotion.tag],
        previous=promotion.previous,
        history_tag=promotion.history_tag,
        statement=promotion.statement,
        changed=promotion.changed,
    )


def _announce(context: Context, answer: dict[str, Any]) -> None:
    """Tell the assets what happened, or keep Airflow from telling them of what has not happened.

    A first try that finds the tag moved already tells nothing. A later one does: it cannot know whether the try before
    was killed between moving the tag and telling.
    """
    task = context["task"]
    if not answer["changed"] and context["ti"].try_number <= 1:
        withhold(task)
        return
    announce(task, context, answer, previous=answer["previous"], tag=answer["tags"][0])


def _run(context: Context) -> dict[str, str]:
    """Which run this is, for the statement; the try is left out, so that a second try makes the same statement."""
    ti = context["ti"]
    return {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id}
