"""One watch for all Jobs of a namespace: however many triggers wait, the API server holds one connection.

Pods are watched, for nearly all that happens to a Job happens to its pod first. The Jobs themselves are listed: when a
pod has ended, and now and then, for what changes no pod (a queue, a deadline). Both lists are of the Jobs of this
package only, by label.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_kitops.cluster.job import is_held
from airflow_provider_kitops.cluster.names import JOB_NAME, MANAGED_BY, selector
from airflow_provider_kitops.cluster.reading import created, is_finished, owner_of
from airflow_provider_kitops.triggers._connection import said, said_in

if TYPE_CHECKING:
    from airflow_provider_kitops.triggers._connection import ClusterConnection

log = logging.getLogger(__name__)

_WATCH_SECONDS = 300  # then the server ends the watch
_CONNECT_SECONDS = 30
_LIST_SECONDS = 30.0  # between two looks at the Jobs while no pod changes
_SOON_SECONDS = 1.0  # the same at first when a pod has ended and its Job has not yet said what that means
_STEADY_SECONDS = 10.0  # a watch that lasted so long was none that fails again and again
_LONGEST_WAIT = 30.0  # between two tries while the API server is away
_REFUSED_SECONDS = 300.0  # of nothing but 401 and 403, before that is taken for an answer
_POLL_SECONDS = 10.0  # between two lists of pods where watching them is forbidden,
_POLLED_SECONDS = 600.0  # for so long, until the watch is tried again
_FINAL = ("Succeeded", "Failed")
_SELECTOR = selector(dict(MANAGED_BY))


@dataclass(eq=False)
class View:
    """What is known about one Job.

    :param name: its name.
    :param job: as the API gives it; ``None`` if it is not there, whatever else is there under its name.
    :param pods: by name. A pod that has been deleted stays as it was last seen.
    :param changed: set when something has changed.
    :param listed: whether ``job`` has been looked for since the view was opened.
    :param pods_listed: whether its pods have been looked for: if not, that there are none says nothing.
    :param trouble: why it cannot be looked for just now, where that is so for longer than a moment.
    :param refused: what the cluster has said for minutes, where it does not let the triggerer look for it.
    :param uid: of this very Job.
    :param look: asks for its pods at once; raises what comes of it.
    """

    name: str
    job: dict[str, Any] | None = None
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    listed: bool = False
    pods_listed: bool = False
    trouble: str = ""
    refused: str = ""
    uid: str = ""
    look: Callable[[], Awaitable[None]] = field(init=False, repr=False)

    @property
    def unsettled(self) -> bool:
        """Whether a pod has ended of which the Job is yet to take note."""
        if self.job is None or is_finished(self.job):
            return False
        return bool(self.pods) and all(_ended(pod) for pod in self.pods.values())


class NamespaceWatch:
    """The pods and Jobs of this package in one namespace, for any number of views.

    :param cluster: how it is reached.
    :param namespace: the namespace.
    """

    def __init__(self, cluster: ClusterConnection, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.views: set[View] = set()
        # The pods that are there, by their Job's uid and name, so that a view that is opened later knows them.
        self._known: dict[str, dict[str, dict[str, Any]]] = {}
        self._pods_listed = False
        self._refused: dict[str, float] = {}  # what the cluster does not tell, and since when (monotonic)
        self._trouble: dict[str, str] = {}  # what it does not tell just now, and why
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, name: str, uid: str) -> View:
        """A view of one Job; the first one begins the watch."""
        view = View(name, pods=dict(self._known.get(uid, {})), pods_listed=self._pods_listed, uid=uid)
        view.look = partial(self._look_at, view)
        self.views.add(view)
        if self._tasks:
            self._look.set()
        else:
            # In a context of its own: what it logs is not the log of the task that happened to be the first.
            for run in (self._watch, self._list):
                self._tasks.append(asyncio.create_task(run(), context=contextvars.Context()))
        return view

    async def close(self, view: View) -> None:
        """Close a view; the last one ends the watch."""
        self.views.discard(view)
        if not self.views:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        failures, poll_until = 0, 0.0
        while True:
            began = time.monotonic()
            poll = began < poll_until
            failed: Exception | None = None
            listed = False
            try:
                async with self.cluster.open() as connection:
                    version = await self._pods(connection)
                    listed = True
                    self._answered("pods")
                    if not poll:
                        await self._stream(connection, version)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the Jobs run on and are looked for again
                failed = error
            status = getattr(failed, "status", None)
            if status == 403 and listed:
                poll_until = began + _POLLED_SECONDS
                log.warning("Pods of namespace %s may not be watched; they are listed instead.", self.namespace)
                continue
            if failed:
                self._answered("pods", failed, tell=failures > 0 and not listed)
            if poll and failed is None:
                failures = 0
                await asyncio.sleep(_POLL_SECONDS)
                continue
            steady = time.monotonic() - began >= _STEADY_SECONDS
            failures = 0 if steady else failures + 1
            if status == 410:  # what was seen last is too old to go on from
                failed = None
            if failed or not steady:  # a watch that ends at once is not asked for at once
                await self._wait(max(failures, 1), failed)

    async def _pods(self, connection: Any) -> str:
        """Take note of all pods; the version to watch from."""
        from kubernetes_asyncio import client

        answer = await client.CoreV1Api(connection).list_namespaced_pod(
            self.namespace, label_selector=_SELECTOR, _preload_content=False
        )
        found = await read(answer)
        items = found.get("items") or []
        for pod in items:
            self._seen(pod)
        there = {pod["metadata"]["name"] for pod in items}
        for owner, pods in list(self._known.items()):
            self._known[owner] = {name: pod for name, pod in pods.items() if name in there}
            if not self._known[owner]:
                del self._known[owner]
        self._pods_listed = True
        for view in self.views:
            if not view.pods_listed:
                view.pods_listed = True
                view.changed.set()
            for name, pod in list(view.pods.items()):
                if name not in there and not pod["deleted"]:
                    view.pods[name] = _gone(pod)
                    view.changed.set()
                    self._look.set()
        return str(found["metadata"]["resourceVersion"])

    async def _stream(self, connection: Any, version: str) -> None:
        from kubernetes_asyncio import client, watch

        # Ends after a while, so that the next one is asked for with the credentials of then.
        async with watch.Watch(return_type="object").stream(
            client.CoreV1Api(connection).list_namespaced_pod,
            self.namespace,
            label_selector=_SELECTOR,
            resource_version=version,
            timeout_seconds=_WATCH_SECONDS,
            allow_watch_bookmarks=True,
            _request_timeout=(_CONNECT_SECONDS, _WATCH_SECONDS + _CONNECT_SECONDS),
        ) as events:
            async for event in events:
                if event["type"] != "BOOKMARK":
                    self._seen(event["raw_object"], deleted=event["type"] == "DELETED")

    def _seen(self, pod: dict[str, Any], *, deleted: bool = False) -> None:
        owner, name, kept = owner_of(pod), pod["metadata"]["name"], _kept(pod)
        if deleted:
            kept = _gone(kept)
            self._known.get(owner, {}).pop(name, None)
        else:
            self._known.setdefault(owner, {})[name] = kept
        for view in self.views:
            if view.uid != owner:
                continue
            if view.job and is_finished(view.job):
                continue  # its pods were looked at after it had: what the watch tells later is older
            view.pods[name] = kept
            view.changed.set()
            if deleted or _ended(pod):
                self._look.set()

    async def _list(self) -> None:
        failures, soon = 0, _SOON_SECONDS
        while True:
            self._look.clear()
            try:
                await self._jobs()
                failures = 0
                self._answered("Jobs")
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                failures += 1
                self._answered("Jobs", error, tell=failures > 1)
                await self._wait(failures, error)
                continue
            wait = soon if any(view.unsettled for view in self.views) else _LIST_SECONDS
            try:
                async with asyncio.timeout(wait):  # wait_for loses a cancellation that comes with the event (3.11)
                    await self._look.wait()
                await asyncio.sleep(0.2)  # what follows within a moment is seen by the same list
                soon = _SOON_SECONDS
            except TimeoutError:
                # A Job that is to start a pod again may take minutes for it.
                soon = min(soon * 2, _LIST_SECONDS)

    async def _jobs(self) -> None:
        from kubernetes_asyncio import client

        asked = list(self.views)
        async with self.cluster.open() as connection:
            answer = await client.BatchV1Api(connection).list_namespaced_job(
                self.namespace, label_selector=_SELECTOR, _preload_content=False
            )
            found = {job["metadata"]["uid"]: job for job in (await read(answer)).get("items") or []}
            await self._sweep(connection, found.values())
            failed: Exception | None = None
            for view in asked:
                job = found.get(view.uid)
                if job and is_finished(job) and not (view.job and is_finished(view.job)):
                    try:
                        await self._last_look(connection, view)
                    except client.ApiException as error:
                        failed = error  # the others need not wait for this one
                        continue
                if job != view.job or not view.listed:
                    view.job, view.listed = job, True
                    view.changed.set()
            if failed:
                raise failed

    async def _sweep(self, connection: Any, jobs: Iterable[dict[str, Any]]) -> None:
        """Delete Jobs that were never let run, for their task was ended before anybody followed them."""
        from kubernetes_asyncio import client

        followed = {view.uid for view in self.views}
        for job in jobs:
            metadata = job["metadata"]
            ttl = job["spec"].get("ttlSecondsAfterFinished")
            age = (datetime.now(UTC) - created(job)).total_seconds()
            if metadata["uid"] in followed or not is_held(job) or ttl is None or age < ttl:
                continue
            log.warning("Deleting the Job %s in namespace %s, which nobody let run.", metadata["name"], self.namespace)
            options = client.V1DeleteOptions(
                propagation_policy="Background", preconditions=client.V1Preconditions(uid=metadata["uid"])
            )
            try:
                await client.BatchV1Api(connection).delete_namespaced_job(
                    metadata["name"], self.namespace, body=options
                )
            except client.ApiException as error:
                log.warning("It could not be deleted: %s", said(error))

    async def _look_at(self, view: View) -> None:
        async with self.cluster.open() as connection:
            await self._last_look(connection, view)

    async def _last_look(self, connection: Any, view: View) -> None:
        """Take note of how the pods of a Job are, before the view tells that it has ended, or it is given up.

        The watch, which is another connection, may not have told of it yet, or may be dead without anybody's knowing.
        """
        from kubernetes_asyncio import client

        answer = await client.CoreV1Api(connection).list_namespaced_pod(
            self.namespace, label_selector=selector({**MANAGED_BY, JOB_NAME: view.name}), _preload_content=False
        )
        found = {
            pod["metadata"]["name"]: _kept(pod)
            for pod in (await read(answer)).get("items") or []
            if owner_of(pod) == view.uid
        }
        gone = {name: _gone(pod) for name, pod in view.pods.items() if name not in found and not pod["deleted"]}
        known = {name for name, pod in view.pods.items() if pod["deleted"]}
        view.pods.update({name: pod for name, pod in (found | gone).items() if name not in known})

    def _answered(self, what: str, error: Exception | None = None, *, tell: bool = False) -> None:
        """Take note of what came of asking for ``what``: to be refused may pass, but not for long.

        :param tell: whether whoever follows a Job is to know of it; not for what is over in a moment.
        """
        if error is None:
            self._trouble.pop(what, None)
        elif tell:
            says = "does not let Airflow see" if _is_refusal(error) else "gives no answer about"
            self._trouble[what] = f"The cluster {says} the {what} of this namespace, and is asked again: {said(error)}"
        trouble = " ".join(self._trouble.values())
        for view in self.views:
            if view.trouble != trouble:
                view.trouble = trouble
                view.changed.set()
        if error is None or not _is_refusal(error):
            self._refused.pop(what, None)
            return
        now = time.monotonic()
        if now - self._refused.setdefault(what, now) >= _REFUSED_SECONDS:
            for view in self.views:
                view.refused = said(error)
                view.changed.set()

    async def _wait(self, failures: int, error: Exception | None) -> None:
        wait = min(2.0 ** min(failures - 1, 10), _LONGEST_WAIT) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
        if error:
            text = "No answer from the cluster about namespace %s (%s); again in %.0f s."
            log.warning(text, self.namespace, said(error), wait)
        await asyncio.sleep(wait)


_watches: dict[tuple[Any, ...], NamespaceWatch] = {}


@asynccontextmanager
async def watching(cluster: ClusterConnection, namespace: str, name: str, uid: str) -> AsyncIterator[View]:
    """A view of the Job ``name`` with this ``uid``, on the one watch that this process has for its namespace.

    :param cluster: how it is reached, if nobody watches the namespace yet.
    """
    key = (asyncio.get_running_loop(), cluster.hook.conn_id, namespace)
    watch = _watches.get(key)
    if watch is None:
        watch = _watches[key] = NamespaceWatch(cluster, namespace)
    view = watch.open(name, uid)
    try:
        yield view
    finally:
        if watch.views == {view}:
            del _watches[key]
        await watch.close(view)


async def read(answer: Any) -> dict[str, Any]:
    """What the API answers, read as JSON, for the client's own objects cost much more.

    :raises ApiException: the answer is an error.
    """
    from kubernetes_asyncio.client import ApiException

    if answer.status >= 400:
        raise ApiException(status=answer.status, reason=f"{answer.reason}: {await said_in(answer)}")
    found: dict[str, Any] = await answer.json()
    return found


def _is_refusal(error: Exception) -> bool:
    """Whether the cluster does not let us ask, or the connection to it cannot be used."""
    from kubernetes_asyncio.config import ConfigException

    return getattr(error, "status", None) in (401, 403) or isinstance(error, (AirflowException, ConfigException))


def _gone(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod that is not there any more, as it was last seen: whatever it was said to do, it does not."""
    metadata = {"deletionTimestamp": datetime.now(UTC).isoformat(), **pod["metadata"]}
    return {**pod, "metadata": metadata, "deleted": True}


def _kept(pod: dict[str, Any]) -> dict[str, Any]:
    """Of a pod, what is ever looked at: there may be many, and their specifications are long."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    kept = ("name", "uid", "labels", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")

    def container(each: dict[str, Any]) -> dict[str, Any]:
        return {key: each[key] for key in ("name", "image", "resources", "restartPolicy") if key in each}

    return {
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {
            "nodeName": spec.get("nodeName"),
            "initContainers": [container(each) for each in spec.get("initContainers") or []],
            "containers": [container(each) for each in spec.get("containers") or []],
        },
        "status": pod.get("status") or {},
        "deleted": False,
    }


def _ended(pod: dict[str, Any]) -> bool:
    return bool(pod.get("deleted")) or (pod.get("status") or {}).get("phase") in _FINAL
