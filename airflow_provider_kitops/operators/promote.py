"""Move a tag to a challenger that won, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._references import ReferenceLike
from airflow_provider_kitops.operators._base import KitopsBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


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
    :return: the reference dictionary, with the ``previous`` digest, the ``history_tag`` that keeps it, and whether
        anything ``changed``.
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
        raise NotImplementedError


class ModelKitRollbackOperator(KitopsBaseOperator):
    """
    Move a tag back to the digest that it named before its last promotion, or to an earlier one.

    :param repository: repository of the tag (templated).
    :param tag: the tag to move (templated).
    :param to: digest to go back to, which the tag must have named before; ``None`` means the last good one
        (templated).
    :param expected: what the tag must still name; ``None`` means whatever it names now (templated).
    :param signing_key: path of a private key to sign the statement of promotion with (templated).
    :param kitops_conn_id: where the ModelKit is (templated).
    :return: the reference dictionary, with the ``previous`` digest, the ``history_tag`` that keeps it, and whether
        anything ``changed``.
    """

    template_fields: Sequence[str] = ("repository", "tag", "to", "expected", "signing_key", "kitops_conn_id")
    ui_color = "#c5dfe8"

    def __init__(
        self,
        *,
        repository: str,
        tag: str = "champion",
        to: ReferenceLike | None = None,
        expected: ReferenceLike | None = None,
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
        raise NotImplementedError
