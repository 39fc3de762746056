"""The trigger sends one event, ends a Job that nobody waits for any more, and leaves every other one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import kubernetes_asyncio.client  # noqa: F401 - takes seconds, which are not to be any test's
import msgspec
import pytest
import tenacity
from airflow.providers.cncf.kubernetes import kubernetes_helper_functions
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import TriggerEvent

from airflow_provider_kitops.cluster.names import REPORTED
from airflow_provider_kitops.cluster.outcome import Outcome, outcome_of
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.triggers import _follow, _watch, job
from airflow_provider_kitops.triggers._follow import Followed
from airflow_provider_kitops.triggers.job import WorkloadJobTrigger
from airflow_provider_kitops.workload.progress import WorkloadProgress
from tests.fake_kubernetes import FakeKubernetes, fake_kubernetes

from .conftest import Connections
from .jobs_world import no_waiting, objects_of, pod_of, succeed

DIGEST = "sha256:" + "c" * 64
UID = "uid-a"
OUTPUT = {"reference": "demo/result:latest", "tags": ["latest"], "adopted": False}
LIMITS = JobSettings(retry_exit_codes=(7,)).model_dump(
    mode="json", include={"startup_timeout", "image_pull_timeout", "retry_exit_codes"}
)
OVER = Outcome("ExecutionTimeout", "The task ran past its execution_timeout.", retry=True, given_up=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)
    monkeypatch.setattr(_watch, "_LIST_SECONDS", 0.2)
    monkeypatch.setattr(_follow, "_LOG_SECONDS", 0.2)
    monkeypatch.setattr(_follow, "_LOG_SECONDS_GIVEN_UP", 0.2)
    monkeypatch.setattr(job, "_worker_lingers", lambda: 0.0)


def trigger(**arguments: Any) -> WorkloadJobTrigger:
    settings: dict[str, Any] = {"uid": UID, "output": OUTPUT, "limits": LIMITS, **arguments}
    return WorkloadJobTrigger("kubernetes_default", "models", "a", **settings)


@pytest.fixture
def on_a_fake(connections: Connections) -> Callable[[Callable[[FakeKubernetes], Awaitable[None]]], None]:
    """Runs a test on a fake cluster with one Job, which runs."""

    def run(test: Callable[[FakeKubernetes], Awaitable[None]]) -> None:
        async def on_it() -> None:
            async with fake_kubernetes() as fake:
                connections.set("kubernetes_default", "kubernetes", extra={"kube_config": json.dumps(fake.kubeconfig)})
                fake.put_job(running(UID))
                await asyncio.wait_for(test(fake), 20)

        asyncio.run(on_it())

    return run


def running(uid: str) -> dict[str, Any]:
    made = objects_of().job
    metadata = {**made["metadata"], "uid": uid, "creationTimestamp": "2026-11-21T20:00:00Z"}
    return {**made, "metadata": metadata, "spec": {**made["spec"], "suspend": False}}


def is_ended(fake: FakeKubernetes) -> bool:
    there = fake.things("jobs")["a"]
    marked: bool = there["metadata"]["labels"].get(REPORTED) == "true"
    assert marked == (there["spec"].get("activeDeadlineSeconds") == 1)
    return marked


async def events(following: WorkloadJobTrigger) -> list[TriggerEvent]:
    return [event async for event in following.run()]


def test_a_trigger_that_another_process_makes_of_it_is_the_same() -> None:
    first = trigger(in_cluster=True, deadline=1795291200.5)
    path, arguments = json.loads(json.dumps(first.serialize()))
    again = import_string(path)(**arguments)
    assert type(again) is WorkloadJobTrigger
    assert again.serialize() == first.serialize()
    assert {name: getattr(again, name) for name in arguments} == arguments
    assert arguments == {
        "kubernetes_conn_id": "kubernetes_default",
        "namespace": "models",
        "name": "a",
        "uid": UID,
        "output": OUTPUT,
        "limits": LIMITS,
        "in_cluster": True,
        "deadline": 1795291200.5,
    }
    assert JobSettings.model_validate(again.limits).retry_exit_codes == (7,)


def test_an_event_tells_all_that_the_task_has_to_know_as_plain_values() -> None:
    outcome = Outcome("ProgramFailed", "work ended with exit code 3", exit_code=3, container="work")
    event = trigger().event(Followed(outcome, WorkloadProgress("train", 1, 2)))
    assert json.loads(json.dumps(event)) == event
    assert Outcome.of_json(event["outcome"]) == outcome
    assert event["progress"]["step"] == 1
    assert event["handle"] == {"namespace": "models", "name": "a", "uid": UID}
    assert event["output"] == OUTPUT
    assert trigger().event(Followed(outcome))["progress"] is None


def test_a_job_that_ended_is_told_once_and_left_to_the_task(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        succeed(fake, running(UID), DIGEST)
        following = trigger()
        (event,) = await events(following)
        assert event.payload["outcome"]["result"]["digest"] == DIGEST
        assert fake.count("patch") == 0
        await following.on_kill()
        await following.cleanup()
        assert fake.count("delete jobs") == 0, "the task is told, and sees to the rest"

    on_a_fake(test)


def test_a_job_that_is_given_up_is_ended_before_the_task_is_told(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        (event,) = await events(trigger(deadline=time.time() - 1))
        assert (event.payload["outcome"]["reason"], event.payload["outcome"]["given_up"]) == ("ExecutionTimeout", True)
        assert is_ended(fake)
        there = fake.things("jobs")["a"]
        assert there["spec"]["suspend"] is False, "Kueue would let it run again"
        # Should this process end before the task is told, the next one is to say the same.
        failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
        fake.put_job({**there, "status": {"conditions": [failed]}})
        (again,) = await events(trigger())
        assert again.payload["outcome"] == {**event.payload["outcome"], "given_up": False}

    on_a_fake(test)


#: Says which of the clients' modules are loaded by the thread that all triggers share.
LOADING = """
import asyncio, sys, threading
from airflow_provider_kitops.triggers import _watch, job

class Loaded:
    def find_spec(name, path=None, target=None):
        if name.startswith(("kubernetes", "airflow.providers.cncf")):
            (here if threading.current_thread() is threading.main_thread() else elsewhere).append(name)

here, elsewhere = [], []
sys.meta_path.insert(0, Loaded)

async def test(what):
    trigger = job.WorkloadJobTrigger("nowhere", "models", "a", "uid", {}, {})
    doing = asyncio.create_task(getattr(trigger, what)())
    while not (_watch._watches or doing.done()):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)

asyncio.run(test(sys.argv[1]))
print(len(elsewhere), here)
"""


@pytest.mark.parametrize("what", ["follow", "on_kill"])
def test_loading_the_clients_holds_up_no_other_trigger(what: str) -> None:
    """In a process of its own, for here they are loaded."""
    command = [sys.executable, "-c", LOADING, what]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    elsewhere, here = found.stdout.splitlines()[-1].split(" ", 1)
    assert int(elsewhere) > 10
    assert here == "[]"


def test_a_task_hears_of_its_job_no_sooner_than_its_worker_is_gone(
    on_a_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_worker_lingers", lambda: 1.0)

    async def test(fake: FakeKubernetes) -> None:
        succeed(fake, running(UID), DIGEST)
        begun = time.monotonic()
        (_,) = await events(trigger())
        assert time.monotonic() - begun >= 1

    on_a_fake(test)


def test_a_job_that_is_given_up_is_ended_before_the_worker_is_gone(
    on_a_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_worker_lingers", lambda: 60.0)

    async def test(fake: FakeKubernetes) -> None:
        running_on = asyncio.create_task(events(trigger(deadline=time.time() - 1)))
        while not is_ended(fake):
            await asyncio.sleep(0.01)
        assert not running_on.done()
        running_on.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running_on

    on_a_fake(test)


def test_a_task_that_a_person_ends_before_it_hears_of_its_job_takes_it_along(
    on_a_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_worker_lingers", lambda: 60.0)

    async def test(fake: FakeKubernetes) -> None:
        succeed(fake, running(UID), DIGEST)
        following = trigger()
        running_on = asyncio.create_task(events(following))
        while not fake.count("jobs"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        running_on.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running_on
        await following.on_kill()
        assert fake.things("jobs") == {}

    on_a_fake(test)


def test_a_worker_lingers_for_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # what lets the other tests be quick
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "11")
    assert job._worker_lingers() > 11


def test_ending_a_job_that_is_given_up_is_tried_again(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        fake.status = lambda asked: 503 if asked.kind == "patch" and fake.count("patch") < 3 else None
        await events(trigger(deadline=time.time() - 1))
        assert fake.count("patch") == 3
        assert is_ended(fake)

    on_a_fake(test)


def test_another_job_of_the_name_is_not_ended(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        fake.put_job(running("uid-of-another"))
        await trigger()._give_up(OVER)
        assert fake.count("patch") > 0
        assert not is_ended(fake)

    on_a_fake(test)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_that_a_job_cannot_be_ended_keeps_nobody_from_hearing_of_it(on_a_fake: Any, status: int) -> None:
    async def test(fake: FakeKubernetes) -> None:
        fake.status = lambda asked: status if asked.kind == "patch" else None
        (event,) = await events(trigger(deadline=time.time() - 1))
        assert event.payload["outcome"]["given_up"]
        assert not is_ended(fake)

    on_a_fake(test)


def test_the_task_waits_for_the_end_of_its_job_for_a_while_only(
    on_a_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_helper_functions, "_default_wait", tenacity.wait_fixed(60))
    monkeypatch.setattr(job, "_GIVE_UP_SECONDS", 1.0)

    async def test(fake: FakeKubernetes) -> None:
        fake.status = lambda asked: 503
        begun = time.monotonic()
        await trigger()._give_up(OVER)
        assert 1.0 <= time.monotonic() - begun < 30
        assert fake.count("patch") == 1

    on_a_fake(test)


def test_a_task_that_a_person_ends_takes_its_job_along(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        fake.put_pod(pod_of(running(UID)))
        await trigger().on_kill()
        assert fake.things("jobs") == fake.things("pods") == {}

    on_a_fake(test)


def test_a_task_that_a_person_ends_leaves_another_job_of_the_name(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        fake.put_job(running("uid-of-another"))
        await trigger().on_kill()
        assert fake.count("delete jobs") == 1
        assert fake.things("jobs").keys() == {"a"}
        fake.delete_job("a")
        await trigger().on_kill()
        assert fake.count("delete jobs") == 2

    on_a_fake(test)


def test_deleting_the_job_of_a_task_that_is_ended_is_tried_again(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        fake.status = lambda asked: 503 if fake.count("delete jobs") < 3 else None
        await trigger().on_kill()
        assert fake.things("jobs") == {}

    on_a_fake(test)


def test_a_job_that_cannot_be_deleted_now_is_deleted_later(on_a_fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_LATER_PAUSE", 0.1)

    async def test(fake: FakeKubernetes) -> None:
        fake.status = lambda asked: 503
        await trigger().on_kill()
        assert fake.things("jobs").keys() == {"a"}
        asked = fake.count("delete jobs")
        while fake.count("delete jobs") < asked + 2:
            await asyncio.sleep(0.01)
        fake.status = lambda asked: None
        while fake.things("jobs"):
            await asyncio.sleep(0.01)
        while job._unfinished:
            await asyncio.sleep(0.01)

    on_a_fake(test)


def test_a_result_of_any_numbers_can_be_sent_to_the_task() -> None:
    fine = {"most": 2**63 - 1, "least": -(2**63), "true": True, "loss": 0.5}
    large = {"more": 2**63, "less": -(2**63) - 1, "vast": 10**400, "float": 1e30}
    told = json.dumps({"digest": DIGEST, **fine, **large})
    pod = pod_of(running(UID), publish={"terminated": {"exitCode": 0, "message": told}})
    outcome = outcome_of({**running(UID), "status": {"conditions": [{"type": "Complete", "status": "True"}]}}, [pod])
    assert outcome
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(trigger().event(Followed(outcome))))
    found = sent["outcome"]["result"]
    assert found == {"digest": DIGEST, **fine, **{name: str(value) for name, value in large.items()}}


def test_that_a_job_may_not_be_deleted_is_told(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        fake.status = lambda asked: 403
        with pytest.raises(Exception, match="delete jobs refused"):
            await trigger().on_kill()
        assert fake.count("delete jobs") == 1

    on_a_fake(test)


def test_a_triggerer_that_stops_leaves_the_job(on_a_fake: Any) -> None:
    async def test(fake: FakeKubernetes) -> None:
        following = trigger()
        following.task_instance = instance()
        await following.cleanup()
        assert fake.asked == []

    on_a_fake(test)


def instance(map_index: int = -1) -> Any:
    return SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=map_index, task=None)


@pytest.mark.parametrize(
    ("states", "map_index", "deleted"),
    [
        ({"run": {"task": "deferred"}}, -1, False),
        ({"run": {"task": "failed"}}, -1, True),
        ({"run": {"task": None}}, -1, True),
        ({}, -1, True),
        ({"run": {"task_3": "deferred"}}, 3, False),
        ({"run": {"task_3": "success"}}, 3, True),
        ({"run": {"task": "deferred", "task_2": "deferred"}}, 3, True),
    ],
)
def test_before_airflow_3_3_a_trigger_that_ends_asks_whether_the_task_still_waits(
    on_a_fake: Any, monkeypatch: pytest.MonkeyPatch, states: dict[str, Any], map_index: int, deleted: bool
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(**arguments: Any) -> dict[str, Any]:
        asked.append(arguments)
        return states

    monkeypatch.setattr(job, "AIRFLOW_V_3_3_PLUS", False)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", answer)

    async def test(fake: FakeKubernetes) -> None:
        following = trigger()
        following.task_instance = instance(map_index)
        await following.cleanup()
        assert asked == [{"dag_id": "dag", "task_ids": ["task"], "run_ids": ["run"], "map_index": map_index}]
        assert ("a" not in fake.things("jobs")) == deleted

    on_a_fake(test)


def test_before_airflow_3_3_a_trigger_that_knows_no_task_leaves_the_job(
    on_a_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "AIRFLOW_V_3_3_PLUS", False)

    async def test(fake: FakeKubernetes) -> None:
        await trigger().cleanup()
        assert fake.asked == []

    on_a_fake(test)


def test_before_airflow_3_3_a_trigger_whose_event_was_sent_leaves_the_job(
    on_a_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "AIRFLOW_V_3_3_PLUS", False)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {})

    async def test(fake: FakeKubernetes) -> None:
        succeed(fake, running(UID), DIGEST)
        following = trigger()
        following.task_instance = instance()
        await events(following)
        await following.cleanup()
        assert fake.things("jobs").keys() == {"a"}

    on_a_fake(test)
