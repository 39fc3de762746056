"""From a Job that was started to how it ended, with its log on the way."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.cluster.job import is_held
from airflow_provider_kitops.cluster.names import LOGGED
from airflow_provider_kitops.cluster.outcome import Outcome, failure_of, outcome_of, published
from airflow_provider_kitops.cluster.reading import created
from airflow_provider_kitops.cluster.text import plain
from airflow_provider_kitops.cluster.waiting import Waiting, waiting_for
from airflow_provider_kitops.hooks._jobs import LET_RUN, of_uid
from airflow_provider_kitops.triggers._connection import ClusterConnection, said
from airflow_provider_kitops.triggers._logs import CLOCKS_APART, Logs
from airflow_provider_kitops.triggers._watch import View, read, watching

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

    from airflow_provider_kitops.cluster.settings import JobSettings
    from airflow_provider_kitops.workload.progress import WorkloadProgress

log = logging.getLogger(__name__)

_LOG_SECONDS = 30.0  # for the rest of the log, once the Job has ended
_LOG_SECONDS_GIVEN_UP = 2.0  # the same where containers may still run
_QUIET_SECONDS = 30.0  # that a pod may take to be made, to start or to end without a word about it
_LOOK_SECONDS, _LOOK_AGAIN_SECONDS = 30.0, 2.5  # for a last look at pods; until the next, and ever longer, without one
_START_SECONDS, _START_AGAIN_SECONDS = 30.0, 10.0  # to let the Job run; until that is tried again
_ALLOW = "The page on Kubernetes lists what its account must be allowed."
_MARK_SECONDS = 60.0  # between two notes on the Job of how far its log has been read


@dataclass(frozen=True)
class Followed:
    """What came of a Job.

    :param outcome: how it ended.
    :param progress: the last progress that its program told.
    """

    outcome: Outcome
    progress: WorkloadProgress | None = None


async def follow_job(
    make_hook: Callable[[], AsyncKubernetesHook],
    namespace: str,
    name: str,
    uid: str,
    settings: JobSettings,
    write: Callable[[str], None],
    *,
    deadline: float | None = None,
) -> Followed:
    """Wait until a Job has ended, or is to be given up.

    May be cancelled and called again, by another process too: the log goes on about where it was.

    :param make_hook: makes what reaches the cluster: once, and anew if credentials are refused.
    :param uid: the Job's: another one of its name is not followed, nor believed.
    :param settings: how long is waited for what.
    :param write: gets each line of the log, and what happens to the Job.
    :param deadline: time (Unix) after which the Job is given up, whatever it does.
    """
    cluster = ClusterConnection(make_hook)
    async with watching(cluster, namespace, name, uid) as view:
        following = _Following(view, settings, write, deadline)
        while not view.listed:
            if given_up := following.given_up():
                return Followed(given_up)
            await following.change()
        logs = Logs(cluster, namespace, write, _logged_until(view))
        mark = asyncio.create_task(_mark(cluster, namespace, name, uid, logs))
        try:
            while True:
                logs.see(view.pods)
                outcome = following.outcome() or await following.start(cluster, namespace)
                if outcome is None and following.waited_out() and await following.look():
                    logs.see(view.pods)
                    outcome = following.outcome() or following.waited_out()
                if outcome is not None:
                    break
                await following.change()
            seconds = _LOG_SECONDS_GIVEN_UP if outcome.given_up else _LOG_SECONDS
            await logs.finish(seconds, running=outcome.given_up)
            return Followed(outcome, logs.progress)
        finally:
            mark.cancel()
            await asyncio.gather(mark, logs.stop(), return_exceptions=True)


class _Following:
    def __init__(self, view: View, settings: JobSettings, write: Callable[[str], None], deadline: float | None) -> None:
        self.view, self.settings, self.deadline = view, settings, deadline
        self._write = write
        self.waiting: Waiting | None = None
        self.told: set[str] = set()
        self.told_waiting = ""
        self.trouble = ""
        self.pause = _LOOK_AGAIN_SECONDS

    def write(self, line: str) -> None:
        """Write a line, which may hold a program's words."""
        self._write(plain(line))

    def outcome(self) -> Outcome | None:
        """How the Job ended, or why it is waited for no longer, whatever it does."""
        pods = list(self.view.pods.values())
        found = outcome_of(self.view.job, pods, retry_exit_codes=self.settings.retry_exit_codes)
        if found:
            return found
        self._tell_failures(pods)
        given_up = self.given_up()
        return given_up and (published(pods) or given_up)

    def waited_out(self) -> Outcome | None:
        """The outcome, where what the Job waits for is to be borne no longer."""
        pods, job = list(self.view.pods.values()), self.view.job
        now = datetime.now(UTC)
        waiting = None
        if job and self.view.pods_listed:
            waiting = waiting_for(job, pods, self.settings, before=self.waiting, now=now)
        if waiting and self.told_waiting != waiting.message and _is_news(waiting, now):
            self.told_waiting = waiting.message
            self.write(waiting.message)
        self.waiting = waiting
        left = waiting.left(now) if waiting else None
        if waiting is None or left is None or left > 0:
            return None
        if waiting.reason == "Lingering":
            last = max(pods, key=created)
            found = published(pods) or failure_of(last, retry_exit_codes=self.settings.retry_exit_codes)
            return found and replace(found, given_up=True)
        return waiting.given_up(now)

    async def start(self, cluster: ClusterConnection, namespace: str) -> Outcome | None:
        """Let the Job run, if that was left to whoever follows it: then it has a task that waits for it.

        :return: why not, if that is how it is to stay.
        """
        from kubernetes_asyncio import client

        while self.view.job and is_held(self.view.job):
            try:
                async with asyncio.timeout(_START_SECONDS), cluster.open() as connection:
                    answer = await client.BatchV1Api(connection).patch_namespaced_job(
                        self.view.name, namespace, of_uid(LET_RUN, self.view.uid), _preload_content=False
                    )
                    self.view.job = await read(answer)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if getattr(error, "status", None) == 403:
                    text = f"The cluster does not let Airflow start the Job: {said(error)}. {_ALLOW}"
                    return Outcome("Forbidden", text, retry=True, given_up=True)
                self.write(f"The Job cannot be started yet: {said(error)}")
                await asyncio.sleep(_START_AGAIN_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
                if over := self.given_up():
                    return over
        return None

    async def look(self) -> bool:
        """Ask how the pods are, ahead of giving the Job up: while the cluster gave no answer, they may have started.

        :return: whether that is known now. If not, a moment has passed.
        """
        left = math.inf if self.deadline is None else max(self.deadline - time.time(), 0.0)
        try:
            async with asyncio.timeout(min(_LOOK_SECONDS, left)):
                await self.view.look()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is asked again
            log.warning("Cannot see whether the Job %s is still to be given up: %s", self.view.name, said(error))
            self.pause = min(self.pause * 2, _LOOK_SECONDS)
            await asyncio.sleep(min(self.pause * random.uniform(0.8, 1.2), left))  # noqa: S311 - spreads load
            return False
        self.pause = _LOOK_AGAIN_SECONDS
        return True

    def given_up(self) -> Outcome | None:
        """The outcome, where the Job is waited for no longer, whatever it does."""
        if self.deadline is not None and time.time() >= self.deadline:
            return Outcome("ExecutionTimeout", "The task ran past its execution_timeout.", retry=True, given_up=True)
        if self.view.refused:
            text = f"The cluster does not let Airflow see the Job: {self.view.refused}. {_ALLOW}"
            return Outcome("Forbidden", text, retry=True, given_up=True)
        return None

    async def change(self) -> None:
        """Wait until something has changed, or is to be decided."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._left()):
                await self.view.changed.wait()
        self.view.changed.clear()
        if self.view.trouble != self.trouble:
            self.trouble = self.view.trouble
            self.write(self.trouble or "The cluster answers again.")

    def _left(self) -> float | None:
        """Seconds until something is decided though nothing changes."""
        limits = [self.waiting.left(datetime.now(UTC)), _QUIET_SECONDS] if self.waiting else []
        limits.append(None if self.deadline is None else self.deadline - time.time())
        known = [max(limit, 0.1) for limit in limits if limit is not None]
        return min(known, default=None)

    def _tell_failures(self, pods: list[dict[str, Any]]) -> None:
        """Say why a pod ended where the Job goes on with another one."""
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))[:-1]:
            name = pod["metadata"]["name"]
            failure = failure_of(pod, retry_exit_codes=self.settings.retry_exit_codes)
            if failure and name not in self.told:
                self.told.add(name)
                self.write(failure.message)


def _is_news(waiting: Waiting, now: datetime) -> bool:
    """Whether a person wants to know. What is so with every pod is none at first."""
    return not waiting.usual or (now - waiting.since).total_seconds() > _QUIET_SECONDS


def _logged_until(view: View) -> datetime | None:
    text = (((view.job or {}).get("metadata") or {}).get("annotations") or {}).get(LOGGED)
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:  # none, or somebody edited it
        return None
    if not found.tzinfo or found > datetime.now(UTC) + timedelta(seconds=CLOCKS_APART):
        return None  # nobody has read what is yet to be written
    return found


async def _mark(cluster: ClusterConnection, namespace: str, name: str, uid: str, logs: Logs) -> None:
    """Note on the Job how far its log has been read, for whoever follows it after this process."""
    from kubernetes_asyncio import client

    marked = logs.until
    while True:
        await asyncio.sleep(_MARK_SECONDS)
        until = logs.until
        if until is None or until == marked:
            continue
        # With the uid another Job of this name answers 409.
        body = {"metadata": {"uid": uid, "annotations": {LOGGED: until.isoformat()}}}
        with suppress(Exception):  # it only spares somebody lines that were read before
            async with cluster.open() as connection:
                await client.BatchV1Api(connection).patch_namespaced_job(name, namespace, body)
            marked = until
