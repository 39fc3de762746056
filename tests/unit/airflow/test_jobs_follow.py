"""A Job is followed to its end, or given up in time, and what is worth knowing on the way is written once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

from airflow_provider_kitops.cluster import waiting
from airflow_provider_kitops.cluster.names import CONTROLLER_UID, JOB_NAME, LOGGED, MANAGED_BY, QUEUE, STARTED
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.triggers import _follow, _logs, _watch
from airflow_provider_kitops.triggers._follow import Followed, follow_job
from airflow_provider_kitops.workload.progress import WorkloadProgress
from tests.fake_kubernetes import FakeKubernetes, fake_kubernetes

from .jobs_world import until

DIGEST = "sha256:" + "c" * 64
UID = "uid-a"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_LIST_SECONDS", 0.2), ("_SOON_SECONDS", 0.05), ("_LONGEST_WAIT", 0.1)):
        monkeypatch.setattr(_watch, name, seconds)
    monkeypatch.setattr(_logs, "_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(_follow, "_QUIET_SECONDS", 0.7)
    monkeypatch.setattr(_follow, "_START_AGAIN_SECONDS", 0.1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@dataclass
class Following:
    """A Job that is followed on a fake cluster, which it is on from the beginning.

    :param lines: what has been written.
    """

    fake: FakeKubernetes
    lines: list[str] = field(default_factory=list)

    def begin(self, *, deadline: float | None = None, **settings: Any) -> asyncio.Task[Followed]:
        def hook() -> AsyncKubernetesHook:
            return AsyncKubernetesHook(conn_id=None, config_dict=self.fake.kubeconfig)

        follow = follow_job(
            hook, self.fake.namespace, "a", UID, JobSettings(**settings), self.lines.append, deadline=deadline
        )
        return asyncio.create_task(follow)

    async def end(self, *, deadline: float | None = None, **settings: Any) -> Followed:
        return await self.begin(deadline=deadline, **settings)

    async def until(self, said: str) -> None:
        end = time.monotonic() + 10
        while not any(said in line for line in self.lines):
            assert time.monotonic() < end, (said, self.lines)
            await asyncio.sleep(0.01)


def on_a_fake(test: Callable[[FakeKubernetes, Following], Awaitable[None]]) -> None:
    async def run() -> None:
        async with fake_kubernetes() as fake:
            fake.put_job(job())
            before = asyncio.all_tasks()
            await asyncio.wait_for(test(fake, Following(fake)), 30)
            end = time.monotonic() + 5
            while fake.connections and time.monotonic() < end:
                await asyncio.sleep(0.01)
            left = {task for task in asyncio.all_tasks() - before if "aiohttp" not in repr(task)}
            assert left - {asyncio.current_task()} == set()
            assert _watch._watches == {}
            assert not fake.connections

    asyncio.run(run())


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def job(condition: str = "", *, suspend: bool = False, logged: str = "", **more: Any) -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True", **more}] if condition else []
    metadata = {"name": "a", "uid": UID, "labels": dict(MANAGED_BY), "creationTimestamp": ago(5)}
    metadata["annotations"] = {LOGGED: logged} if logged else {}
    return {"metadata": metadata, "spec": {"suspend": suspend}, "status": {"conditions": conditions}}


def pod(phase: str = "Running", *, name: str = "p", old: float = 5, **states: dict[str, Any]) -> dict[str, Any]:
    labels = {**MANAGED_BY, JOB_NAME: "a", CONTROLLER_UID: UID}
    metadata = {"name": name, "labels": labels, "creationTimestamp": ago(old)}
    statuses = [{"name": container, "state": state} for container, state in states.items()]
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "initContainerStatuses": statuses}}


def ended(code: int = 0, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


RUNS: dict[str, Any] = {"running": {}}
PUBLISHED = ended(message=json.dumps({"digest": DIGEST}))
UNPLACED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}


def log_of(*texts: str) -> bytes:
    return b"".join(f"2026-11-21T20:00:{at:02}.000000000Z {text}\n".encode() for at, text in enumerate(texts))


def test_a_job_that_succeeds_is_followed_to_its_result() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(fetch=ended(), work=RUNS))
        first = ("epoch 1", WorkloadProgress("train", 1, 2).to_line())
        fake.logs["p", "work"] = log_of(*first)
        task = following.begin()
        await following.until("epoch 1")
        fake.logs["p", "work"] = log_of(*first, WorkloadProgress("train", 2, 2).to_line(), "done")
        fake.put_pod(pod("Succeeded", fetch=ended(), work=ended(), publish=PUBLISHED))
        fake.put_job(job("Complete"))
        followed = await task
        assert followed.outcome.succeeded
        assert followed.outcome.result["digest"] == DIGEST
        assert followed.progress is not None
        assert (followed.progress.step, followed.progress.total) == (2, 2)
        assert [line for line in following.lines if "train" not in line] == ["[work] epoch 1", "[work] done"]
        assert following.lines[-1] == "[work] train 2/2"

    on_a_fake(test)


def test_a_job_that_fails_is_followed_to_its_reason() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod("Failed", fetch=ended(), work=ended(3, "ValueError: no rows")))
        fake.logs["p", "work"] = log_of("ValueError: no rows")
        fake.put_job(job("Failed", reason="PodFailurePolicy"))
        followed = await following.end()
        assert (followed.outcome.reason, followed.outcome.retry) == ("ProgramFailed", False)
        assert following.lines == ["[work] ValueError: no rows"]
        again = await following.end(retry_exit_codes=(3,))
        assert again.outcome.retry

    on_a_fake(test)


def test_what_is_waited_for_is_told_once() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        suspended = job(suspend=True)
        suspended["metadata"]["labels"][QUEUE] = "team"
        fake.put_job(suspended)
        task = following.begin()
        await following.until("it waits in its queue")
        assert fake.count("patch") == 0, "Kueue lets it run"
        fake.put_job(job())
        pending = pod("Pending")
        pending["status"]["conditions"] = [UNPLACED]
        fake.put_pod(pending)
        await following.until("0/1 nodes are available")
        for _ in range(3):
            fake.put_pod(pending)
            await asyncio.sleep(0.1)
        fake.put_pod(pod("Failed", work=ended(3, "x")))
        fake.put_job(job("Failed"))
        await task
        assert following.lines == [
            "The Job is suspended: it waits in its queue.",
            "No node takes pod p: 0/1 nodes are available",
        ]

    on_a_fake(test)


def test_a_job_that_waits_for_it_is_let_run_once() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_job(job(suspend=True))
        fake.status = lambda asked: 503 if asked.kind == "patch" and fake.count("patch") < 3 else None
        task = following.begin()
        await until(lambda: fake.things("jobs")["a"]["spec"]["suspend"] is False)
        assert fake.annotations("a")[STARTED] == "true"
        assert fake.count("patch") == 3
        there = fake.things("jobs")["a"]
        fake.put_job({**there, "spec": {"suspend": True}})  # by a person, who means it
        await following.until("it waits in its queue")
        await cancelled(task)
        again = following.begin()
        await asyncio.sleep(0.5)
        await cancelled(again)
        assert fake.count("patch") == 3
        assert following.lines[:2] == ["The Job cannot be started yet: 503 Service Unavailable: patch refused"] * 2

    on_a_fake(test)


@pytest.mark.parametrize("what", ["forbidden", "time is over", "deleted"])
def test_a_job_that_cannot_be_let_run_is_not_waited_for(what: str) -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_job(job(suspend=True))
        fake.status = lambda asked: (403 if what == "forbidden" else 500) if asked.kind == "patch" else None
        task = following.begin(deadline=time.time() + 1 if what == "time is over" else None)
        await until(lambda: fake.count("patch"))
        if what == "deleted":
            fake.delete_job("a")
        outcome = (await task).outcome
        reasons = {"forbidden": "Forbidden", "time is over": "ExecutionTimeout", "deleted": "JobDeleted"}
        assert (outcome.reason, outcome.retry) == (reasons[what], True)

    on_a_fake(test)


@pytest.mark.parametrize("code", [0, 4])
def test_a_container_that_goes_on_beside_publish_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(waiting, "_LINGER_PATIENCE", 0.3)

    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_job(job())
        done = PUBLISHED if code == 0 else ended(code, json.dumps({"error": "no right to", "transient": False}))
        fake.put_pod(pod(publish={"terminated": {**done["terminated"], "finishedAt": ago(0)}}, proxy=RUNS))
        outcome = (await following.end()).outcome
        assert (outcome.reason, outcome.succeeded) == (("Completed", True) if code == 0 else ("StepFailed", False))
        assert outcome.given_up, "the Job itself goes on, and is to be ended"

    on_a_fake(test)


def test_a_job_without_a_pod_is_told_after_a_while_and_given_up() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        task = following.begin(startup_timeout=1.2)
        await asyncio.sleep(0.5)
        assert following.lines == []
        outcome = (await task).outcome
        assert (outcome.reason, outcome.retry, outcome.given_up) == ("NoPod", True, True)
        (line,) = following.lines
        assert line.startswith("Kubernetes has made no pod for the Job.")

    on_a_fake(test)


def test_that_there_are_no_pods_is_not_believed_before_they_are_looked_for() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(work=RUNS))
        fake.status = lambda asked: 500 if asked.kind == "pods" else None
        task = following.begin(startup_timeout=0.3)
        while fake.count("jobs") < 2 and not task.done():
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert not task.done()
        fake.status = lambda asked: None
        await asyncio.sleep(0.6)
        assert not task.done()
        await cancelled(task)

    on_a_fake(test)


def test_an_image_is_borne_since_it_could_not_be_had() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod("Pending", old=500, fetch=waits("ErrImagePull", "not found")))
        begun = time.monotonic()
        task = following.begin(image_pull_timeout=0.5)
        await following.until("fetch cannot pull")
        fake.put_pod(pod("Pending", old=500, fetch=waits("ImagePullBackOff", "Back-off")))
        outcome = (await task).outcome
        assert (outcome.reason, outcome.given_up) == ("ImagePull", True)
        assert 0.5 <= time.monotonic() - begun < 5

    on_a_fake(test)


def test_a_pod_that_does_not_end_is_given_up() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        ending = pod(work=RUNS)
        ending["metadata"]["deletionTimestamp"] = ago(60)
        fake.put_pod(ending)
        outcome = (await following.end(startup_timeout=30)).outcome
        assert (outcome.reason, outcome.retry, outcome.given_up) == ("Terminating", True, True)

    on_a_fake(test)


def test_a_job_is_given_up_in_time_with_its_log_so_far_and_no_word_about_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_follow, "_LOG_SECONDS_GIVEN_UP", 0.3)

    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(work=RUNS))
        fake.logs["p", "work"] = log_of("epoch 1")
        begun = time.monotonic()
        outcome = (await following.end(deadline=time.time() + 0.5)).outcome
        assert 0.4 < time.monotonic() - begun < 5
        assert (outcome.reason, outcome.given_up) == ("ExecutionTimeout", True)
        assert following.lines == ["[work] epoch 1"]

    on_a_fake(test)


@pytest.mark.parametrize("status", [403, 500])
def test_the_deadline_is_kept_though_the_cluster_tells_nothing(status: int) -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.status = lambda asked: status
        outcome = (await following.end(deadline=time.time() + 0.5)).outcome
        assert outcome.reason == "ExecutionTimeout"

    on_a_fake(test)


def test_who_is_not_let_in_gives_up_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_REFUSED_SECONDS", 0.3)

    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.status = lambda asked: 403
        outcome = (await following.end()).outcome
        assert (outcome.reason, outcome.retry, outcome.given_up) == ("Forbidden", True, True)
        assert "403 Forbidden: jobs refused" in outcome.message or "403 Forbidden: pods refused" in outcome.message
        assert "what its account must be allowed" in outcome.message

    on_a_fake(test)


def test_that_the_cluster_is_away_is_told_and_that_it_is_back() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(fetch=waits("ContainerCreating")))
        task = following.begin()
        await asyncio.sleep(0.3)
        fake.status = lambda asked: 503 if asked.kind == "jobs" else None
        await following.until("gives no answer about the Jobs of this namespace")
        fake.status = lambda asked: None
        await following.until("The cluster answers again.")
        await cancelled(task)
        told = [line for line in following.lines if "cluster" in line]
        assert len(told) == 2
        assert "503 Service Unavailable: jobs refused" in told[0]

    on_a_fake(test)


def test_a_pod_that_started_while_the_cluster_gave_no_answer_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_CONFIG_PATIENCE", 0.5)
    monkeypatch.setattr(_follow, "_LOOK_AGAIN_SECONDS", 0.1)

    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(fetch=waits("CreateContainerError", "context deadline exceeded")))
        task = following.begin()
        await until(lambda: fake.watches)
        fake.status = lambda asked: 503
        fake.cut()
        fake.put_pod(pod(fetch=ended(), work=RUNS))
        await asyncio.sleep(1.5)
        assert not task.done()
        fake.status = lambda asked: 503 if asked.kind == "watch" else None  # which may be longest in coming back
        await following.until("The cluster answers again.")
        fake.put_pod(pod("Succeeded", fetch=ended(), work=ended(), publish=PUBLISHED))
        fake.put_job(job("Complete"))
        assert (await task).outcome.succeeded

    on_a_fake(test)


def test_a_watch_that_is_dead_and_does_not_say_so_gives_no_job_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_CONFIG_PATIENCE", 0.3)

    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(fetch=waits("CreateContainerError")))
        task = following.begin()
        await until(lambda: fake.watches)
        fake._pods["p"] = pod(fetch=ended(), work=RUNS)  # without an event
        await asyncio.sleep(0.8)
        assert not task.done()
        fake.put_pod(pod("Succeeded", fetch=ended(), work=ended(), publish=PUBLISHED))
        fake.put_job(job("Complete"))
        assert (await task).outcome.succeeded

    on_a_fake(test)


def test_what_was_published_goes_before_the_task_s_deadline() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod("Succeeded", fetch=ended(), work=ended(), publish=PUBLISHED))
        outcome = (await following.end(deadline=time.time() + 1)).outcome
        assert outcome.reason == "Completed"

    on_a_fake(test)


def test_the_log_goes_on_after_what_another_process_wrote() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod("Succeeded", work=ended(), publish=PUBLISHED))
        fake.logs["p", "work"] = log_of("one", "two", "three")
        fake.put_job(job("Complete", logged="2026-11-21T20:00:01.500000+00:00"))
        await following.end()
        assert following.lines == ["[work] three"]

    on_a_fake(test)


@pytest.mark.parametrize("logged", ["somebody edited it", "2999-01-01T00:00:00+00:00", "2026-11-21T20:00:02"])
def test_a_note_that_cannot_be_silences_no_log(logged: str) -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod("Succeeded", work=ended(), publish=PUBLISHED))
        fake.logs["p", "work"] = log_of("one", "two", "three")
        fake.put_job(job("Complete", logged=logged))
        await following.end()
        assert following.lines == ["[work] one", "[work] two", "[work] three"]

    on_a_fake(test)


def test_how_far_the_log_was_read_is_noted_on_this_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_follow, "_MARK_SECONDS", 0.05)
    monkeypatch.setattr(_watch, "_LIST_SECONDS", 30)  # that the Job was replaced is not seen by itself

    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(work=RUNS))
        fake.logs["p", "work"] = log_of("one")
        task = following.begin()
        while not fake.annotations("a"):
            await asyncio.sleep(0.01)
        assert fake.annotations("a") == {LOGGED: "2026-11-21T20:00:00+00:00"}
        another = job()
        another["metadata"]["uid"] = "uid-of-another"
        fake.put_job(another)
        marked = fake.count("patch")
        fake.logs["p", "work"] = log_of("one", "two")
        while fake.count("patch") < marked + 2:
            await asyncio.sleep(0.01)
        assert fake.annotations("a") == {}
        await cancelled(task)

    on_a_fake(test)


def test_why_a_pod_ended_is_told_where_the_job_goes_on() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(work=RUNS, old=60))
        task = following.begin()
        while not fake.watches:
            await asyncio.sleep(0.01)
        evicted = pod("Failed", work=ended(143), old=60)
        evicted["status"]["conditions"] = [
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicting"}
        ]
        fake.put_pod(evicted)
        fake.delete_pod("p")
        fake.put_pod(pod(name="q", work=RUNS))
        await following.until("was evicted")
        fake.put_pod(pod("Succeeded", name="q", work=ended(), publish=PUBLISHED))
        fake.put_job(job("Complete"))
        assert (await task).outcome.succeeded
        assert following.lines == ["Pod p was evicted: evicting"]

    on_a_fake(test)


def test_another_job_of_the_same_name_is_not_believed() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        another, its = job("Complete"), pod("Succeeded", work=ended(), publish=PUBLISHED)
        another["metadata"]["uid"] = its["metadata"]["labels"][CONTROLLER_UID] = "uid-of-another"
        fake.put_job(another)
        fake.put_pod(its)
        fake.logs["p", "work"] = log_of("of another")
        outcome = (await following.end()).outcome
        assert (outcome.reason, outcome.retry, outcome.given_up) == ("JobDeleted", True, False)
        assert following.lines == []

    on_a_fake(test)


def test_a_job_that_goes_away_is_told_so() -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.put_pod(pod(fetch=waits("ContainerCreating")))
        task = following.begin()
        await asyncio.sleep(0.3)
        fake.delete_job("a")
        outcome = (await task).outcome
        assert (outcome.reason, outcome.retry, outcome.given_up) == ("JobDeleted", True, False)

    on_a_fake(test)


@pytest.mark.parametrize("status", [None, 500])
def test_whoever_is_cancelled_leaves_nothing_behind(status: int | None) -> None:
    async def test(fake: FakeKubernetes, following: Following) -> None:
        fake.status = lambda asked: status
        fake.put_pod(pod(work=RUNS))
        fake.logs["p", "work"] = log_of("epoch 1")
        task = following.begin()
        await asyncio.sleep(0.5)
        await cancelled(task)

    on_a_fake(test)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
