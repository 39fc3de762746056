"""Wait for a tag in the triggerer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.oci.errors import KitopsError, NotFound, RateLimited
from airflow_provider_kitops.triggers._condition import reached


class ModelKitTagWaitTrigger(BaseTrigger):
    """
    Send one event when a tag exists, has left a digest, or has reached one.

    The event is ``{"status": "reached", "found": <reference dictionary>}``, or ``{"status": "failed",
    "message": …}`` for an error that waiting does not cure. A registry that is away or asks to slow down is asked
    again, ever later, up to ten intervals.

    :param kitops_conn_id: the connection.
    :param reference: ``repository:tag``.
    :param moved_from: digest that the tag must have left.
    :param moved_to: digest that the tag must have reached.
    :param poll_interval: seconds between two looks, varied by a tenth so that many triggers do not ask at once.
    """

    def __init__(
        self,
        kitops_conn_id: str,
        reference: str,
        moved_from: str | None = None,
        moved_to: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()
        self.kitops_conn_id = kitops_conn_id
        self.reference = reference
        self.moved_from = moved_from
        self.moved_to = moved_to
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments; no credentials among them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "kitops_conn_id": self.kitops_conn_id,
                "reference": self.reference,
                "moved_from": self.moved_from,
                "moved_to": self.moved_to,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, wait, look again."""
        failures = 0
        while True:
            wait = _spread(self.poll_interval)
            try:
                # The store blocks, and so does reading a connection: both belong into a thread. One of asgiref's, out
                # of which Airflow's way of reading a connection finds back to this loop; and shielded, for before 3.3
                # the triggerer ends if that is interrupted.
                found = await asyncio.shield(sync_to_async(self._look, thread_sensitive=False)())
                failures = 0
            except AirflowFailException as error:  # the connection cannot be used
                yield TriggerEvent({"status": "failed", "message": str(error)})
                return
            except KitopsError as error:
                if not error.transient:
                    yield TriggerEvent({"status": "failed", "message": str(error)})
                    return
                failures += 1
                wait = _spread(self.poll_interval * min(2**failures, 10))
                if isinstance(error, RateLimited) and error.retry_after:
                    wait = max(wait, error.retry_after)
                self.log.warning("No answer about %s (%s); next look in %.0f s.", self.reference, error, wait)
                found = None
            if found is not None:
                yield TriggerEvent({"status": "reached", "found": found})
                return
            await asyncio.sleep(wait)

    def _look(self) -> dict[str, Any] | None:
        with KitopsHook(self.kitops_conn_id).store() as store:
            try:
                _, descriptor = store.resolve(self.reference)
                if not reached(descriptor.digest, self.moved_from, self.moved_to):
                    return None
                found = describe(store, self.reference)
            except NotFound:
                return None
        # The tag may have moved between the two calls: only what was read back counts.
        return found if reached(found["digest"], self.moved_from, self.moved_to) else None


def _spread(seconds: float) -> float:
    """About so long, so that what began at once does not ask at once for ever."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, keeps no secret
