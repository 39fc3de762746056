"""Wait for a workload's Job in the triggerer."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kitops.hooks._jobs import giving_up, of_uid
from airflow_provider_kitops.triggers._connection import said
from airflow_provider_kitops.triggers._follow import Followed, follow_job

if TYPE_CHECKING:
    from kubernetes_asyncio.client import BatchV1Api

    from airflow_provider_kitops.cluster.outcome import Outcome

log = logging.getLogger(__name__)

_NOT_THERE = (404, 409)  # what the API answers where a Job is gone, or another one has its name
_LATER_SECONDS, _LATER_PAUSE = 24 * 3600.0, 60.0  # for what nobody else would do; between two tries
_unfinished: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive
_GIVE_UP_SECONDS = 30.0  # that the task waits for its Job to be ended, before a worker sees to it


class WorkloadJobTrigger(BaseTrigger):
    """
    Follow a Job, write its log into the task's, and send one event when it has ended or is to be given up.

    However many of these wait, the API server holds one watch for each namespace. The event is ``{"outcome": …,
    "progress": …, "handle": …, "output": …}``, all as plain values. If the task is marked or cleared meanwhile, the Job
    is deleted.

    :param kubernetes_conn_id: the cluster.
    :param in_cluster: whether to use the account of the pod that this runs in; ``None``: as the connection says.
    :param namespace: the Job's namespace.
    :param name: its name.
    :param uid: its uid.
    :param output: goes into the event as it is: what the task has to know of the result besides.
    :param limits: the settings of ``JobSettings`` that say how long is waited for what.
    :param deadline: time (Unix) after which the Job is given up, whatever it does.
    """

    def __init__(
        self,
        kubernetes_conn_id: str,
        namespace: str,
        name: str,
        uid: str,
        output: Mapping[str, Any],
        limits: Mapping[str, Any],
        in_cluster: bool | None = None,
        deadline: float | None = None,
    ) -> None:
        super().__init__()
        self.kubernetes_conn_id = kubernetes_conn_id
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.output = output
        self.limits = limits
        self.in_cluster = in_cluster
        self.deadline = deadline
        self._over = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments; no credentials among them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "kubernetes_conn_id": self.kubernetes_conn_id,
                "namespace": self.namespace,
                "name": self.name,
                "uid": self.uid,
                "output": dict(self.output),
                "limits": dict(self.limits),
                "in_cluster": self.in_cluster,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the Job."""
        begun = time.monotonic()
        followed = await self.follow()
        if followed.outcome.given_up and not followed.outcome.succeeded:
            await self._give_up(followed.outcome)
        await asyncio.sleep(begun + _worker_lingers() - time.monotonic())
        self._over = True
        yield TriggerEvent(self.event(followed))

    async def follow(self) -> Followed:
        """The same, for a task that waits on its worker."""
        from airflow_provider_kitops.cluster.settings import JobSettings

        await asyncio.to_thread(_load_clients)
        return await follow_job(
            self._hook,
            self.namespace,
            self.name,
            self.uid,
            JobSettings.model_validate(dict(self.limits)),
            lambda line: self.log.info("%s", line),
            deadline=self.deadline,
        )

    def event(self, followed: Followed) -> dict[str, Any]:
        """What came of the Job, and which Job that was, as plain values.

        All that the task needs is in the event, for ``airflow dags test`` keeps nothing else of a deferral.
        """
        return {
            "outcome": followed.outcome.to_json(),
            "progress": None if followed.progress is None else asdict(followed.progress),
            "handle": {"namespace": self.namespace, "name": self.name, "uid": self.uid},
            "output": dict(self.output),
        }

    async def on_kill(self) -> None:
        """End the Job, because a person marked or cleared the task (Airflow 3.3 and later)."""
        if not self._over:
            await self._delete()

    async def cleanup(self) -> None:
        """Do the same in Airflow before 3.3, which tells nothing but that the trigger is not needed any more."""
        if AIRFLOW_V_3_3_PLUS or self._over:
            return
        # That Airflow cancels a trigger again every second until it is gone, and the triggerer ends with an error if a
        # question to its supervisor is interrupted.
        await asyncio.shield(self._clean_up())

    async def _clean_up(self) -> None:
        if not await self._still_deferred():  # else the triggerer stops, or hands the trigger to another one
            await self._delete()

    async def _give_up(self, outcome: Outcome) -> None:
        """End the Job at once: until a worker is free for the task it would hold its GPU, or get one at last."""
        try:
            async with asyncio.timeout(_GIVE_UP_SECONDS):
                body = of_uid(giving_up(outcome), self.uid)
                await self._ask(lambda jobs: jobs.patch_namespaced_job(self.name, self.namespace, body))
        except Exception as error:  # noqa: BLE001 - the worker does it again, and says what it could not do
            self.log.warning("The Job %s could not be ended yet: %s", self.name, said(error))

    async def _delete(self) -> None:
        await asyncio.to_thread(_load_clients)
        from kubernetes_asyncio.client import V1DeleteOptions, V1Preconditions

        self.log.info("Deleting the Job %s in namespace %s.", self.name, self.namespace)
        body = V1DeleteOptions(propagation_policy="Background", preconditions=V1Preconditions(uid=self.uid))

        async def delete() -> None:
            await self._ask(lambda jobs: jobs.delete_namespaced_job(self.name, self.namespace, body=body))

        try:
            await delete()
        except Exception as error:
            if getattr(error, "status", None) == 403:
                raise
            text = "The Job %s could not be deleted yet, and may still run; that is tried again for a day: %s"
            self.log.error(text, self.name, said(error))  # noqa: TRY400 - one line says it all
            # Nobody comes back to a task that has ended, and Airflow does not wait for long.
            later = asyncio.create_task(_later(delete, f"delete the Job {self.name}"), context=contextvars.Context())
            _unfinished.add(later)
            later.add_done_callback(_unfinished.discard)

    async def _ask(self, call: Callable[[BatchV1Api], Awaitable[Any]]) -> None:
        """Ask for a change of the Job, again while the API server is away. That the Job is gone is as good."""
        from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
        from kubernetes_asyncio.client import ApiException, BatchV1Api

        async def once() -> None:
            async with self._hook().get_conn() as connection:
                try:
                    await call(BatchV1Api(connection))
                except ApiException as error:
                    if error.status not in _NOT_THERE:
                        raise

        await generic_api_retry(once)()

    def _hook(self) -> Any:
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

        return AsyncKubernetesHook(conn_id=self.kubernetes_conn_id, in_cluster=self.in_cluster)

    async def _still_deferred(self) -> bool:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from airflow.utils.state import TaskInstanceState
        from asgiref.sync import sync_to_async

        ti = self.task_instance
        if ti is None:
            return True
        # Not asyncio.to_thread: what asks the triggerer's supervisor finds its way back to this loop only out of here.
        states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id,
            task_ids=[ti.task_id],
            run_ids=[ti.run_id],
            map_index=ti.map_index,
        )
        name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
        return bool(states.get(ti.run_id, {}).get(name) == TaskInstanceState.DEFERRED)


async def _later(what: Callable[[], Awaitable[None]], name: str) -> None:
    """Try again until it is done, or is not worth it any more."""
    end = time.monotonic() + _LATER_SECONDS
    while time.monotonic() < end:
        await asyncio.sleep(_LATER_PAUSE * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
        try:
            await what()
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("Cannot %s: %s", name, said(error))
        else:
            log.info("Done at last: %s.", name)
            return
    log.error("Cannot %s, and it is not tried any more.", name)


def _load_clients() -> None:
    """Import what takes seconds, for which no other trigger of this process is to wait."""
    for module in ("airflow.providers.cncf.kubernetes.hooks.kubernetes", "kubernetes_asyncio"):
        import_module(module)


def _worker_lingers() -> float:
    """Seconds after the deferral for which the worker's process may still be there.

    Airflow 3.3 may notice one heartbeat late that the process has ended. If the task is queued again by then, the
    scheduler takes the end of the one for that of the other, and fails the task.
    """
    return float(conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)) + 3.0
