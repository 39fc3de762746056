"""Wait for a tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, conf
from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._errors import airflow_errors
from airflow_provider_kitops.hooks._references import ReferenceLike, digest_text, reference_text
from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.oci.errors import InvalidInput, NotFound
from airflow_provider_kitops.triggers._condition import reached

if TYPE_CHECKING:
    from airflow.sdk import Context


class ModelKitTagSensor(BaseSensorOperator):
    """
    Wait for a tag to exist, to move away from a digest, or to reach one.

    :param reference: ``repository:tag`` (templated).
    :param moved_from: wait until the tag names another digest than this one: a digest, or the output of a task that
        resolved the tag before. ``None`` (also as the output of a task that found no tag): until the tag exists
        (templated).
    :param moved_to: wait until the tag names this digest (templated).
    :param kitops_conn_id: the connection (templated).
    :param deferrable: wait in the triggerer and hold no worker.
    :return: the reference dictionary of what the tag names then.
    """

    template_fields: Sequence[str] = ("reference", "moved_from", "moved_to", "kitops_conn_id")
    ui_color = "#e6f1f2"

    def __init__(
        self,
        *,
        reference: str,
        moved_from: ReferenceLike | None = None,
        moved_to: ReferenceLike | None = None,
        kitops_conn_id: str = KitopsHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if moved_from is not None and moved_to is not None:
            raise ValueError("Give moved_from or moved_to, not both.")
        self.reference = reference
        self.moved_from = moved_from
        self.moved_to = moved_to
        self.kitops_conn_id = kitops_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait here, or defer if the tag is not there yet."""
        if not self.deferrable:
            return super().execute(context)
        found = self.poke(context)
        if found:
            return found.xcom_value
        from airflow_provider_kitops.triggers.tag import ModelKitTagWaitTrigger

        reference, moved_from, moved_to = self._condition()
        self.defer(
            trigger=ModelKitTagWaitTrigger(
                kitops_conn_id=self.kitops_conn_id,
                reference=reference,
                moved_from=moved_from,
                moved_to=moved_to,
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    @airflow_errors()
    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        reference, moved_from, moved_to = self._condition()
        with KitopsHook(self.kitops_conn_id).store() as store:
            try:
                found = describe(store, reference)
            except NotFound:
                self.log.info("%s does not exist yet.", reference)
                return PokeReturnValue(is_done=False)
        if reached(found["digest"], moved_from, moved_to):
            return PokeReturnValue(is_done=True, xcom_value=found)
        self.log.info("%s still names %s.", reference, found["digest"])
        return PokeReturnValue(is_done=False)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the trigger found, or fail with its reason."""
        if event["status"] != "reached":
            raise AirflowFailException(event["message"])
        found: dict[str, Any] = event["found"]
        self.log.info("%s names %s.", self.reference, found["digest"])
        return found

    def _condition(self) -> tuple[str, str | None, str | None]:
        with airflow_errors():
            reference = reference_text(self.reference, "reference")
            if "@" in reference:
                raise InvalidInput(f"{reference} names a digest, which never moves.", hint="Give repository:tag.")
            return reference, digest_text(self.moved_from, "moved_from"), digest_text(self.moved_to, "moved_to")
