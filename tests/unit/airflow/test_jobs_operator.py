"""A task with a Job: which Job it goes on with, what it leaves of it, and what it says in the end."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow.sdk.exceptions import TaskDeferralError

from airflow_provider_kitops.cluster.job import is_held, mounted_by
from airflow_provider_kitops.cluster.names import REPORTED, SPECIFICATION
from airflow_provider_kitops.cluster.outcome import Outcome
from airflow_provider_kitops.oci import _retry
from airflow_provider_kitops.operators import _jobs
from airflow_provider_kitops.operators._jobs import FAILURE_KEY, STATE_KEY
from airflow_provider_kitops.operators.kubernetes import WorkloadKubernetesOperator
from airflow_provider_kitops.operators.outcomes import JobFailed, JobFailedForGood, JobTimedOut
from airflow_provider_kitops.triggers import _follow, _watch
from airflow_provider_kitops.triggers._follow import Followed
from airflow_provider_kitops.triggers.job import WorkloadJobTrigger
from airflow_provider_kitops.workload.mounts import DOCKER_CONFIG
from tests.artifacts import put_artifact
from tests.fake_kubernetes import Asked, FakeKubernetes, fake_kubernetes_in_a_thread

from .conftest import Connections, FakeTaskInstance
from .jobs_world import PASSWORD, TASK_KEY, Registry, StateStore, fail, no_waiting, pod_of, registry_in_memory, succeed

KITFILE = {"manifestVersion": "1.0.0", "docs": [{"path": "result.txt"}]}
PROGRAM_FAILED = Outcome(
    "ProgramFailed", "work ended with exit code 3", container="work", exit_code=3, detail="no rows"
)
DISRUPTED = Outcome("Disrupted", "Pod p was evicted: evicting", retry=True)
TIMED_OUT = Outcome("ExecutionTimeout", "The task ran past its execution_timeout.", retry=True, given_up=True)
DELETED = Outcome("JobDeleted", "The Job was deleted by somebody else before it ended.", retry=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)
    monkeypatch.setattr(_watch, "_LIST_SECONDS", 0.2)
    monkeypatch.setattr(_follow, "_LOG_SECONDS", 0.2)
    monkeypatch.setattr(_retry, "sleep_using_event", lambda event: lambda seconds: None)


@pytest.fixture
def fake(connections: Connections) -> Iterator[FakeKubernetes]:
    """The cluster of ``kubernetes_default``, whose namespace is ``models``."""
    with fake_kubernetes_in_a_thread() as running:
        reach(connections, "kubernetes_default", running)
        yield running


def reach(connections: Connections, conn_id: str, fake: FakeKubernetes) -> None:
    extra = {"kube_config": json.dumps(fake.kubeconfig), "namespace": fake.namespace}
    connections.set(conn_id, "kubernetes", extra=extra)


@pytest.fixture
def registry(connections: Connections) -> Iterator[Registry]:
    """The registry of ``kitops_default``, with an input and the images."""
    with registry_in_memory() as running:
        connections.set(host=running.host, login="robot", password=PASSWORD, extra={"plain_http": True})
        for name, tag in (("demo/text", "v1"), ("demo/train", "v1"), ("demo/steps", "v1")):
            put_artifact(running.repositories[name], name.encode(), tag=tag)
        yield running


class Told:
    """What is written into the task's log.

    :param entries: as structlog has them, which Airflow logs by.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._entries = entries

    @property
    def text(self) -> str:
        return "\n".join(str(each["event"]) for each in self._entries)


@pytest.fixture
def told() -> Iterator[Told]:
    with structlog.testing.capture_logs() as entries:
        yield Told(entries)


class Task:
    """A task instance of which each try is another process."""

    def __init__(self, store: StateStore | None = None, **fields: Any) -> None:
        self.ti = FakeTaskInstance(**{"max_tries": 0, **fields})
        self.context: Any = {"ti": self.ti}
        if store:
            self.context["task_state_store"] = store
        self.operator = task_operator()

    def begin(self, **arguments: Any) -> WorkloadJobTrigger:
        """Let the task defer; its trigger."""
        self.operator = task_operator(**arguments)
        with pytest.raises(TaskDeferred) as caught:
            self.operator.execute(self.context)
        return trigger_of(caught.value)

    def again(self, **arguments: Any) -> WorkloadJobTrigger:
        """The same in another try."""
        self.ti.try_number += 1
        return self.begin(**arguments)

    def end(self, trigger: WorkloadJobTrigger, outcome: Outcome, **arguments: Any) -> Any:
        """Let the task hear what came of its Job."""
        event = json.loads(json.dumps(trigger.event(Followed(outcome))))
        self.operator = task_operator(**arguments)
        return self.operator.execute_complete(self.context, event)


def task_operator(**arguments: Any) -> WorkloadKubernetesOperator:
    settings: dict[str, Any] = {
        "inputs": {"text": "demo/text:v1"},
        "command": ["train"],
        "destination": "demo/result:latest",
        "kitfile": KITFILE,
        "image": "demo/train:v1",
        **arguments,
        "job": {"steps_image": "demo/steps:v1", **arguments.get("job", {})},
    }
    return WorkloadKubernetesOperator(task_id="task", **settings)


def trigger_of(deferred: Any) -> WorkloadJobTrigger:
    assert deferred.method_name == "execute_complete"
    assert isinstance(deferred.trigger, WorkloadJobTrigger)
    return deferred.trigger


def job_of(fake: FakeKubernetes, trigger: WorkloadJobTrigger) -> dict[str, Any]:
    """The Job of a trigger, as it is now."""
    job = fake.things("jobs")[trigger.name]
    assert job["metadata"]["uid"] == trigger.uid
    return job


def put(
    fake: FakeKubernetes, like: Mapping[str, Any], name: str, *, created: str = "", **labels: str
) -> dict[str, Any]:
    """Add a Job like another one."""
    metadata = {**like["metadata"], "name": name, "uid": f"uid-{name}"}
    metadata |= {"labels": {**like["metadata"]["labels"], **labels}}
    metadata |= {"creationTimestamp": created or like["metadata"]["creationTimestamp"]}
    job = {**like, "metadata": metadata}
    fake.put_job(job)
    return job


def published(registry: Registry) -> Outcome:
    """The outcome of a Job that has published."""
    digest = put_artifact(registry.repositories["demo/result"], b"result", tag="latest").digest
    result = {"digest": digest, "seconds": 3, "metrics": {"loss": 0.5}, "provenance": "sha256:" + "d" * 64}
    return Outcome("Completed", f"Published {digest}.", succeeded=True, result=result)


def is_reported(job: Mapping[str, Any]) -> bool:
    return bool(job["metadata"]["labels"].get(REPORTED) == "true")


def refusing(kind: str, status: int = 403) -> Callable[[Asked], int | None]:
    return lambda asked: status if asked.kind == kind else None


# Starting


def test_a_task_starts_its_job_and_defers(fake: FakeKubernetes, registry: Registry) -> None:
    store = StateStore()
    trigger = Task(store).begin(execution_timeout=timedelta(hours=1))
    job = job_of(fake, trigger)
    assert (trigger.name, trigger.namespace) == (TASK_KEY.job_name("1"), "models")
    assert is_held(job), "whoever follows it lets it run: nobody does if the task was ended meanwhile"
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    assert trigger.deadline is not None
    assert abs(trigger.deadline - time.time() - 3600) < 60
    assert trigger.output == {"reference": "demo/result:latest", "tags": ["latest"], "adopted": False}
    pod = job["spec"]["template"]["spec"]
    digest = registry.repositories["demo/train"].resolve("v1").digest
    assert pod["initContainers"][1]["image"] == f"{registry.host}/demo/train@{digest}"
    where = {"kubernetes_conn_id": "kubernetes_default", "namespace": "models", "name": trigger.name}
    assert store.values == {STATE_KEY: {**where, "uid": trigger.uid}}
    (secret,) = fake.things("secrets").values()
    kept = json.loads(base64.b64decode(secret["data"][DOCKER_CONFIG]))
    assert base64.b64decode(kept["auths"][registry.host]["auth"]).decode() == f"robot:{PASSWORD}"
    assert PASSWORD not in json.dumps([trigger.serialize(), store.values])


def test_the_time_that_a_task_has_began_when_it_was_started(fake: FakeKubernetes, registry: Registry) -> None:
    start = datetime(2026, 11, 21, 20, tzinfo=UTC)
    trigger = Task(start_date=start).begin(execution_timeout=timedelta(hours=1))
    assert trigger.deadline == start.timestamp() + 3600


def test_a_job_goes_where_the_settings_say(
    fake: FakeKubernetes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.others = ("everybody", "mine")
    monkeypatch.setenv("AIRFLOW__KITOPS__JOB", '{"namespace": "everybody", "cpu": 2}')
    trigger = Task().begin(job={"namespace": "mine"})
    job = job_of(fake, trigger)
    assert (trigger.namespace, job["metadata"]["namespace"]) == ("mine", "mine")
    assert job["spec"]["template"]["spec"]["initContainers"][1]["resources"]["limits"] == {"cpu": "2"}
    monkeypatch.setenv("AIRFLOW__KITOPS__JOB", "{")
    with pytest.raises(AirflowFailException, match=r"^The option \[kitops\] job is no JSON"):
        task_operator().execute(Task().context)
    monkeypatch.setenv("AIRFLOW__KITOPS__JOB", '{"cpus": 2}')
    with pytest.raises(AirflowFailException, match=r"^The option \[kitops\] job cannot be used: .*cpus"):
        task_operator().execute(Task().context)
    monkeypatch.setenv("AIRFLOW__KITOPS__JOB", '["x"]')
    with pytest.raises(AirflowFailException, match=r"^The option \[kitops\] job is no JSON object"):
        task_operator().execute(Task().context)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image": "demo/train"}, r"^The image demo/train has no tag\."),
        ({"image": "demo/nothing:v1"}, r"^Cannot find the image demo/nothing:v1.*names no other registry"),
        ({"image": "127.0.0.1:1/demo/train:v1"}, r"127\.0\.0\.1:1"),
        ({"image": None}, r"^Cannot find the image .*/airflow-provider-kitops/trainer:.*make images"),
        ({"inputs": {"text": "demo/nothing:v1"}}, "demo/nothing"),
        ({"kitfile": {"manifestVersion": "1.0.0"}}, "names nothing that the program makes"),
        ({"signing_key": "/nowhere/key.pem"}, r"^Cannot read the signing key /nowhere/key\.pem"),
    ],
)
def test_what_cannot_work_fails_before_there_is_a_job(
    fake: FakeKubernetes, registry: Registry, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(AirflowException, match=said):
        task_operator(**arguments).execute(Task().context)
    assert fake.count("create jobs") == 0


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"kube_config_path": "/nowhere/kubeconfig"}, "Invalid kube-config"),
        ({"kube_config": "{}"}, "Invalid kube-config"),
        ({"in_cluster": True}, "in-cluster|host and port|Service host"),
        ({"in_cluster": True, "kube_config": "{}"}, "mutually exclusive"),
        (None, "isn't defined"),
    ],
)
@pytest.mark.parametrize("job", [{}, {"namespace": "models"}])
def test_a_connection_to_the_cluster_that_cannot_be_used_fails_at_once(
    registry: Registry, connections: Connections, extra: dict[str, Any] | None, said: str, job: dict[str, Any]
) -> None:
    if extra is not None:
        connections.set("broken", "kubernetes", extra=extra)
    with pytest.raises(AirflowFailException, match=rf"^Cannot .*({said}).*Correct the connection 'broken'") as caught:
        task_operator(kubernetes_conn_id="broken", job=job).execute(Task(max_tries=3).context)
    assert "\n" not in str(caught.value)


def test_a_local_layout_is_refused(fake: FakeKubernetes, layout: Path) -> None:
    with pytest.raises(AirflowFailException, match="the local layout, which no pod can reach"):
        task_operator().execute(Task().context)
    assert fake.count("create jobs") == 0


def test_a_tag_of_the_result_that_never_moves_is_warned_of(
    fake: FakeKubernetes, registry: Registry, told: Told
) -> None:
    put_artifact(registry.repositories["demo/result"], b"before", tag="v1")
    Task().begin(destination="demo/result:v1")
    assert "never moves: publishing will fail unless the result is the same" in told.text


def test_a_job_that_was_kept_gives_its_name_to_no_other(fake: FakeKubernetes, registry: Registry) -> None:
    first = Task()
    kept = first.begin()
    with pytest.raises(JobFailed):
        first.end(kept, DISRUPTED, job={"on_finish": "keep"})
    trigger = Task().begin()
    assert trigger.name.startswith(f"{kept.name}-")
    assert trigger.uid != kept.uid
    assert is_reported(job_of(fake, kept))
    assert is_held(job_of(fake, trigger))


# Going on


def test_another_try_goes_on_with_a_job_that_runs(fake: FakeKubernetes, registry: Registry) -> None:
    store = StateStore()
    task = Task(store)
    first = task.begin()
    created = fake.count("create jobs")
    second = task.again()
    assert (second.name, second.uid) == (first.name, first.uid)
    assert second.output["adopted"] is True
    assert fake.count("create jobs") == created
    assert fake.count("delete jobs") == 0
    assert store.values[STATE_KEY]["uid"] == first.uid


@pytest.mark.parametrize("kind", ["create configmaps", "create secrets", "patch"])
def test_another_try_completes_a_job_whose_worker_was_killed(
    fake: FakeKubernetes, registry: Registry, kind: str
) -> None:
    task = Task(max_tries=1)
    fake.status = refusing(kind, 503)
    with pytest.raises(AirflowException, match="refused") as caught:
        task_operator(deferrable=False).execute(task.context)
    assert not isinstance(caught.value, AirflowFailException)
    (left,) = fake.things("jobs").values()
    assert left["spec"]["suspend"] is True
    fake.status = lambda asked: None
    trigger = task.again()
    job = job_of(fake, trigger)
    assert job["metadata"]["uid"] == left["metadata"]["uid"]
    assert is_held(job)
    assert fake.things("configmaps").keys() == fake.things("secrets").keys() == {mounted_by(job)}


def test_another_try_goes_on_with_a_job_that_has_published(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task()
    first = task.begin()
    succeed(fake, job_of(fake, first), "sha256:" + "c" * 64)
    assert task.again().uid == first.uid


def test_a_job_of_other_work_is_deleted(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task()
    first = task.begin()
    second = task.again(command=["train", "--longer"])
    assert fake.things("jobs").keys() == {second.name}
    assert second.uid != first.uid
    assert second.output["adopted"] is False
    assert len(fake.things("configmaps")) == len(fake.things("secrets")) == 1


def test_a_job_that_failed_is_not_gone_on_with(fake: FakeKubernetes, registry: Registry, told: Told) -> None:
    task = Task()
    first = task.begin()
    fail(fake, job_of(fake, first))
    second = task.again()
    assert fake.things("jobs").keys() == {second.name}
    assert second.uid != first.uid
    assert f"The Job {first.name} of an earlier try failed: work ended with exit code 3" in told.text


def test_a_job_whose_end_was_told_is_neither_gone_on_with_nor_deleted(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task(max_tries=1)
    kept = task.begin()
    with pytest.raises(JobFailed):
        task.end(kept, DISRUPTED, job={"on_finish": "keep"})
    second = task.again()
    assert second.uid != kept.uid
    assert fake.things("jobs").keys() == {kept.name, second.name}
    assert fake.count("delete jobs") == 0


def test_a_job_that_is_being_deleted_is_not_gone_on_with(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task()
    first = job_of(fake, task.begin())
    fake.put_job({**first, "metadata": {**first["metadata"], "deletionTimestamp": "2026-11-21T20:00:00Z"}})
    second = task.again()
    assert second.uid != first["metadata"]["uid"]
    assert fake.count("delete jobs") == 0


def test_of_several_jobs_the_newest_is_gone_on_with_and_the_others_are_deleted(
    fake: FakeKubernetes, registry: Registry, told: Told
) -> None:
    task = Task()
    job = job_of(fake, task.begin())
    put(fake, job, "newest", created="2999-01-01T00:00:00Z")
    put(fake, job, "older", created="2000-01-01T00:00:00Z")
    put(fake, job, "of-other-work", created="2999-01-02T00:00:00Z", **{SPECIFICATION: "another"})
    assert task.again().name == "newest"
    assert fake.things("jobs").keys() == {"newest"}
    assert "Deleting the Job older of an earlier try: a newer one is gone on with." in told.text
    assert "Deleting the Job of-other-work of an earlier try: it does other work than this one." in told.text


def test_jobs_of_another_task_are_nobodys_business(fake: FakeKubernetes, registry: Registry) -> None:
    others = [Task(map_index=1).begin(), Task(run_id="another").begin(command=["train", "--longer"])]
    mine = Task().begin()
    assert fake.things("jobs").keys() == {mine.name, *(other.name for other in others)}
    assert mine.output["adopted"] is False


@pytest.mark.parametrize("why", ["told to end", "refused"])
def test_a_try_that_ends_late_leaves_the_job_of_a_later_one(
    fake: FakeKubernetes, registry: Registry, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """As after clearing a task, of whose worker Airflow lets go some seconds later."""
    later = Task()
    trigger = later.again()
    early = Task()
    operator = task_operator()
    if why == "told to end":
        monkeypatch.setattr(operator, "_run", lambda context: operator.on_kill())
    with pytest.raises(AirflowException, match=r"told to end|A later try of this task has begun already"):
        operator.execute(early.context)
    assert fake.things("jobs").keys() == {trigger.name}


def test_a_job_is_the_try_s_that_goes_on_with_it(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task()
    first = task.begin()
    task.again()
    with pytest.raises(AirflowException, match="A later try of this task has begun already"):
        task_operator().execute(Task(max_tries=1).context)
    assert fake.things("jobs").keys() == {first.name}


# A Job elsewhere


def test_a_job_in_another_namespace_is_deleted(fake: FakeKubernetes, registry: Registry) -> None:
    fake.others = ("before",)
    task = Task(StateStore())
    first = task.begin(job={"namespace": "before"})
    second = task.again()
    assert fake.things("jobs").keys() == {second.name}
    assert second.uid != first.uid


def test_a_job_on_another_cluster_is_deleted(
    fake: FakeKubernetes, registry: Registry, connections: Connections
) -> None:
    with fake_kubernetes_in_a_thread() as before:
        reach(connections, "before", before)
        task = Task(StateStore())
        task.begin(kubernetes_conn_id="before")
        assert len(before.things("jobs")) == 1
        second = task.again()
        assert before.things("jobs") == {}
        assert fake.things("jobs").keys() == {second.name}


@pytest.mark.parametrize("why", ["no connection", "not allowed", "not there"])
def test_a_job_elsewhere_that_cannot_be_deleted_is_warned_of(
    fake: FakeKubernetes, registry: Registry, told: Told, why: str
) -> None:
    note = {"kubernetes_conn_id": "kubernetes_default", "namespace": "before", "name": "a", "uid": "uid-a"}
    if why == "no connection":
        note["kubernetes_conn_id"] = "gone"
    if why == "not allowed":
        fake.status = refusing("delete jobs")
    store = StateStore({STATE_KEY: note})
    trigger = Task(store).begin()
    assert ("It could not be deleted, and may still run" in told.text) == (why != "not there")
    assert store.values[STATE_KEY]["uid"] == trigger.uid


@pytest.mark.parametrize(
    "note",
    [
        "a",
        {},
        {"namespace": "before"},
        {"kubernetes_conn_id": 1, "namespace": None},
        {"kubernetes_conn_id": "kubernetes_default", "namespace": "before"},
        {"kubernetes_conn_id": "kubernetes_default", "namespace": "before", "name": "a", "uid": None},
    ],
)
def test_a_note_that_this_version_did_not_write_is_none(fake: FakeKubernetes, registry: Registry, note: Any) -> None:
    store = StateStore({STATE_KEY: note})
    trigger = Task(store).begin()
    assert fake.count("delete jobs") == 0
    assert store.values[STATE_KEY]["uid"] == trigger.uid


# Pods of an earlier try


SHARED = {"checkpoints": {"persistentVolumeClaim": {"claimName": "checkpoints"}}, "grace_period": 0}


@pytest.fixture
def left_pod(fake: FakeKubernetes, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pod of a Job that is gone."""
    monkeypatch.setattr(_jobs, "_LOOK_SECONDS", 0.05)
    job = job_of(fake, Task().begin(job=SHARED))
    fake.put_pod(pod_of(job, name="left"))
    fake.delete_job(job["metadata"]["name"])
    return "left"


def test_a_job_is_not_begun_while_a_pod_of_an_earlier_try_writes_its_checkpoints(
    fake: FakeKubernetes, left_pod: str
) -> None:
    created, pods = fake.count("create jobs"), fake.count("pods")
    seen: list[bool] = []

    def look(asked: Asked) -> None:
        if asked.kind == "pods" and fake.count("pods") == pods + 3:
            fake.delete_pod(left_pod)
        if asked.kind == "create jobs":
            seen.append(left_pod in fake.things("pods"))

    fake.status = look
    Task().begin(job=SHARED)
    assert fake.count("create jobs") == created + 1
    assert seen == [False]


def test_pods_of_an_earlier_try_that_do_not_end_are_worth_another_try(
    fake: FakeKubernetes, left_pod: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_jobs, "_END_SECONDS", 0.3)
    begun = time.monotonic()
    with pytest.raises(
        AirflowException, match=r"^Pods of an earlier try do not end: left in namespace models"
    ) as caught:
        task_operator(job=SHARED).execute(Task().context)
    assert not isinstance(caught.value, AirflowFailException)
    assert time.monotonic() - begun >= 0.3
    assert fake.things("jobs") == {}


def test_checkpoints_that_go_with_their_pod_are_not_waited_for(fake: FakeKubernetes, left_pod: str) -> None:
    job_of(fake, Task().begin())
    assert left_pod in fake.things("pods")


# The end


def test_a_job_that_succeeded_is_told_and_removed(fake: FakeKubernetes, registry: Registry) -> None:
    store = StateStore()
    task = Task(store)
    trigger = task.begin()
    outcome = published(registry)
    answer = task.end(trigger, outcome)
    assert answer["reference"] == f"{registry.host}/demo/result@{outcome.result['digest']}"
    assert (answer["tags"], answer["metrics"], answer["seconds"]) == (["latest"], {"loss": 0.5}, 3)
    assert (answer["provenance"], answer["progress"]) == (outcome.result["provenance"], None)
    assert [fake.things(resource) for resource in ("jobs", "secrets", "configmaps")] == [{}, {}, {}]
    assert store.values == {}
    assert task.ti.xcom == {}


def test_a_job_that_succeeded_is_kept_if_that_was_asked_for(fake: FakeKubernetes, registry: Registry) -> None:
    store = StateStore()
    task = Task(store)
    trigger = task.begin()
    task.end(trigger, published(registry), job={"on_finish": "keep"})
    job = job_of(fake, trigger)
    assert is_reported(job)
    assert "activeDeadlineSeconds" not in job["spec"]
    assert fake.things("secrets") == {}
    assert len(fake.things("configmaps")) == 1
    assert store.values == {}


@pytest.mark.parametrize(
    ("on_finish", "succeeded", "left"),
    [
        ("delete", True, False),
        ("delete", False, False),
        ("delete_on_success", True, False),
        ("delete_on_success", False, True),
        ("keep", True, True),
        ("keep", False, True),
    ],
)
def test_what_is_left_of_a_job_is_as_the_settings_say(
    fake: FakeKubernetes, registry: Registry, on_finish: str, succeeded: bool, left: bool
) -> None:
    task = Task()
    trigger = task.begin()
    job = {"on_finish": on_finish}
    if succeeded:
        task.end(trigger, published(registry), job=job)
    else:
        with pytest.raises(JobFailedForGood):
            task.end(trigger, PROGRAM_FAILED, job=job)
    assert (trigger.name in fake.things("jobs")) == left
    assert fake.things("secrets") == {}


def test_a_job_that_failed_for_good_is_not_retried(fake: FakeKubernetes, registry: Registry, told: Told) -> None:
    task = Task(max_tries=3)
    trigger = task.begin()
    with pytest.raises(AirflowFailException) as caught:
        task.end(trigger, PROGRAM_FAILED)
    assert isinstance(caught.value, JobFailedForGood)
    assert caught.value.outcome == PROGRAM_FAILED
    assert task.ti.xcom == {FAILURE_KEY: PROGRAM_FAILED.to_json()}
    assert "The last lines of work:\n[work] no rows" in told.text


@pytest.mark.parametrize("kind", [JobFailed, JobFailedForGood, JobTimedOut])
def test_what_a_job_failed_with_can_be_handed_to_another_process(kind: type[JobFailed]) -> None:
    error = kind(PROGRAM_FAILED)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.outcome) == (str(error), PROGRAM_FAILED)


def test_a_job_that_was_disrupted_is_retried(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task(max_tries=3)
    trigger = task.begin()
    with pytest.raises(JobFailed) as caught:
        task.end(trigger, DISRUPTED)
    assert not isinstance(caught.value, AirflowFailException)
    assert task.ti.xcom[FAILURE_KEY]["reason"] == "Disrupted"
    assert fake.things("jobs") == {}


@pytest.mark.parametrize("on_finish", ["delete", "keep"])
def test_a_task_whose_time_is_over_says_so_and_ends_its_job(
    fake: FakeKubernetes, registry: Registry, on_finish: str
) -> None:
    task = Task(max_tries=3)
    trigger = task.begin(execution_timeout=timedelta(hours=1))
    job = job_of(fake, trigger)
    fake.put_job({**job, "spec": {**job["spec"], "suspend": False}})
    with pytest.raises(JobTimedOut) as caught:
        task.end(trigger, TIMED_OUT, job={"on_finish": on_finish})
    assert caught.value.outcome == TIMED_OUT
    if on_finish == "delete":
        assert fake.things("jobs") == {}
    else:
        assert job_of(fake, trigger)["spec"]["activeDeadlineSeconds"] == 1


@pytest.mark.parametrize("on_finish", ["delete", "keep"])
@pytest.mark.parametrize("kind", ["delete jobs", "read", "patch", "delete secrets"])
def test_that_a_job_cannot_be_removed_changes_nothing_of_what_it_did(
    fake: FakeKubernetes, registry: Registry, told: Told, kind: str, on_finish: str
) -> None:
    task = Task(StateStore(), max_tries=3)
    trigger = task.begin()
    fake.status = refusing(kind)
    outcome = published(registry)
    answer = task.end(trigger, outcome, job={"on_finish": on_finish})
    assert answer["digest"] == outcome.result["digest"]
    refused = (kind == "delete jobs") == (on_finish == "delete")
    assert (f"The Job {trigger.name} in namespace models is left: " in told.text) == refused
    assert (STATE_KEY in task.context["task_state_store"].values) == refused, "so that it is found again"


def test_that_a_job_that_failed_cannot_be_removed_changes_nothing_of_how_it_failed(
    fake: FakeKubernetes, registry: Registry, told: Told
) -> None:
    task = Task()
    trigger = task.begin()
    fake.status = lambda asked: 503
    with pytest.raises(JobTimedOut):
        task.end(trigger, TIMED_OUT)
    assert "It may still run." in told.text
    fake.status = lambda asked: None
    with pytest.raises(JobFailedForGood):
        task.end(trigger, PROGRAM_FAILED)


def test_a_state_store_that_fails_changes_nothing_of_what_a_job_did(
    fake: FakeKubernetes, registry: Registry, told: Told
) -> None:
    store = StateStore()
    task = Task(store)
    trigger = task.begin()
    store.fails = RuntimeError("the store is away")
    outcome = published(registry)
    assert task.end(trigger, outcome)["digest"] == outcome.result["digest"]
    assert "Cannot note in the task state store where the Job is: the store is away" in told.text
    assert fake.things("jobs") == {}


def test_a_state_store_that_takes_nothing_keeps_no_job_from_running(fake: FakeKubernetes, registry: Registry) -> None:
    class Full(StateStore):
        def set(self, key: str, value: Any) -> None:
            raise RuntimeError("full")

    assert is_held(job_of(fake, Task(Full()).begin()))


def test_a_result_that_cannot_be_read_just_now_is_read_by_the_next_try(
    fake: FakeKubernetes, registry: Registry
) -> None:
    task = Task(StateStore(), max_tries=1)
    trigger = task.begin()
    outcome = published(registry)
    registry.status = 503
    with pytest.raises(AirflowException) as caught:
        task.end(trigger, outcome)
    assert not isinstance(caught.value, AirflowFailException)
    job = job_of(fake, trigger)
    assert not is_reported(job)
    assert task.context["task_state_store"].values[STATE_KEY]["uid"] == trigger.uid
    registry.status = 0
    succeed(fake, job, outcome.result["digest"])
    again = task.again()
    assert again.uid == trigger.uid
    assert task.end(again, outcome)["digest"] == outcome.result["digest"]
    assert fake.things("jobs") == {}


@pytest.mark.parametrize("how", ["worker stops", "time is over"])
def test_a_result_that_its_reader_is_ended_at_is_read_by_the_next_try(
    fake: FakeKubernetes, registry: Registry, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    task = Task(max_tries=1)
    trigger = task.begin()
    outcome = published(registry)

    def interrupted(operator: WorkloadKubernetesOperator, *_: Any) -> None:
        if how == "worker stops":
            operator.on_kill()
        raise AirflowTaskTimeout

    with monkeypatch.context() as patched:
        patched.setattr(WorkloadKubernetesOperator, "_read_back", interrupted)
        with pytest.raises((AirflowException, AirflowTaskTimeout)) as caught:
            task.end(trigger, outcome)
    assert not isinstance(caught.value, AirflowFailException)
    succeed(fake, job_of(fake, trigger), outcome.result["digest"])
    again = task.again()
    assert again.uid == trigger.uid, "the work is done and not to be done again"
    assert task.end(again, outcome)["digest"] == outcome.result["digest"]
    assert fake.things("jobs") == {}


def test_a_result_that_the_last_try_cannot_read_leaves_no_job(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task(max_tries=0)
    trigger = task.begin()
    outcome = published(registry)
    registry.status = 503
    with pytest.raises(AirflowException):
        task.end(trigger, outcome)
    assert fake.things("jobs") == {}


def test_a_result_that_is_not_there_is_not_looked_for_again(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task(max_tries=3)
    trigger = task.begin()
    outcome = published(registry)
    registry.repositories["demo/result"].descriptors.clear()
    with pytest.raises(AirflowFailException, match="demo/result"):
        task.end(trigger, outcome)
    assert fake.things("jobs") == {}


def test_a_job_of_an_earlier_try_that_somebody_deletes_is_replaced(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task(max_tries=1)
    task.begin()
    trigger = task.again()
    fake.delete_job(trigger.name)
    with pytest.raises(TaskDeferred) as caught:
        task.end(trigger, DELETED)
    own = trigger_of(caught.value)
    assert fake.things("jobs").keys() == {own.name}
    assert own.output["adopted"] is False
    fake.delete_job(own.name)
    with pytest.raises(JobFailed):
        task.end(own, DELETED)
    assert fake.things("jobs") == {}


def test_a_job_of_this_try_that_somebody_deletes_is_told(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task(max_tries=1)
    trigger = task.begin()
    fake.delete_job(trigger.name)
    with pytest.raises(JobFailed, match="JobDeleted"):
        task.end(trigger, DELETED)
    assert fake.things("jobs") == {}


# What fails in between


@pytest.mark.parametrize(("tries", "left"), [(0, False), (1, True)])
def test_a_trigger_that_failed_ends_the_job_if_nobody_comes_after(
    fake: FakeKubernetes, registry: Registry, tries: int, left: bool
) -> None:
    task = Task(max_tries=tries)
    trigger = task.begin()
    with pytest.raises(TaskDeferralError):
        task_operator().resume_execution("__fail__", {"error": "Trigger failure"}, task.context)
    assert (trigger.name in fake.things("jobs")) == left


def test_a_trigger_that_did_not_fail_leaves_the_job_to_the_task(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task()
    event = task.begin().event(Followed(published(registry)))
    answer = task_operator(job={"on_finish": "keep"}).resume_execution(
        "execute_complete", {"event": event}, task.context
    )
    assert answer["digest"] == event["outcome"]["result"]["digest"]
    assert fake.count("delete jobs") == 0


@pytest.mark.parametrize(
    ("status", "tries", "left"),
    [
        pytest.param(503, 1, True, id="another try goes on"),
        pytest.param(503, 0, False, id="no try is left"),
        pytest.param(403, 1, False, id="no try would help"),
    ],
)
def test_a_task_that_fails_after_its_job_was_made_leaves_it_only_to_another_try(
    fake: FakeKubernetes, registry: Registry, status: int, tries: int, left: bool
) -> None:
    fake.status = refusing("create configmaps", status)
    with pytest.raises(AirflowException, match="Cannot create the ConfigMap"):
        task_operator().execute(Task(max_tries=tries).context)
    assert bool(fake.things("jobs")) == left


def test_jobs_whose_end_was_told_stay_where_the_others_are_deleted(fake: FakeKubernetes, registry: Registry) -> None:
    task = Task()
    job = job_of(fake, task.begin())
    put(fake, job, "kept", **{REPORTED: "true"})
    with pytest.raises(TaskDeferralError):
        task_operator().resume_execution("__fail__", {}, task.context)
    assert fake.things("jobs").keys() == {"kept"}


def test_a_job_that_cannot_be_deleted_is_told_and_the_others_are_deleted(
    fake: FakeKubernetes, registry: Registry, told: Told
) -> None:
    task = Task()
    job = job_of(fake, task.begin())
    for name in ("stays", "goes"):
        put(fake, job, name, created=f"{'3000' if name == 'stays' else '2000'}-01-01T00:00:00Z")
    fake.status = lambda asked: 403 if asked.kind == "delete jobs" and asked.path.endswith("/stays") else None
    with pytest.raises(TaskDeferralError):
        task_operator().resume_execution("__fail__", {}, task.context)
    assert fake.things("jobs").keys() == {"stays"}
    assert "The Job stays in namespace models may still run, and could not be deleted: " in told.text


def test_a_cluster_that_gives_no_answer_at_the_end_does_not_hide_why_the_task_failed(
    fake: FakeKubernetes, registry: Registry, told: Told
) -> None:
    task = Task()
    trigger = task.begin()
    fake.status = lambda asked: 503
    with pytest.raises(TaskDeferralError):
        task_operator().resume_execution("__fail__", {}, task.context)
    assert "Cannot see whether Jobs of this task are left: Cannot list the Jobs in namespace models" in told.text
    assert fake.things("jobs").keys() == {trigger.name}


# Waiting on the worker


def test_a_task_that_waits_on_its_worker_answers_the_same(fake: FakeKubernetes, registry: Registry) -> None:
    outcome = published(registry)

    def finish(asked: Asked) -> None:
        if asked.kind == "watch":
            (job,) = fake.things("jobs").values()
            succeed(fake, job, outcome.result["digest"])

    fake.status = finish
    answer = task_operator(deferrable=False).execute(Task().context)
    assert answer["digest"] == outcome.result["digest"]
    assert fake.things("jobs") == {}


def test_a_task_that_is_told_to_end_while_it_waits_ends_its_job(fake: FakeKubernetes, registry: Registry) -> None:
    operator = task_operator(deferrable=False)

    def tell() -> None:
        end = time.monotonic() + 10
        while not fake.watches and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    teller = threading.Thread(target=tell)
    teller.start()
    try:
        with pytest.raises(AirflowException, match="told to end"):
            operator.execute(Task(max_tries=3).context)
    finally:
        teller.join()
        signal.signal(signal.SIGTERM, before)
    assert fake.things("jobs") == {}
    assert not [thread for thread in threading.enumerate() if thread.name == "follow-job"]
    assert not _watch._watches


class Following:
    """Stands for a trigger that is followed on the worker, who is interrupted meanwhile.

    :param fails: what following raises instead.
    """

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.cancelled = threading.Event()

    async def follow(self) -> None:
        if self.fails:
            raise self.fails
        try:
            await asyncio.sleep(0.2)
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_what_goes_wrong_in_following_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="no such thing"):
        _jobs._in_a_thread(Following(ValueError("no such thing")))


def test_following_ends_with_the_wait_for_it() -> None:
    following, told = Following(), TimeoutError("told to end")

    def interrupt(*_: Any) -> None:
        raise told

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(TimeoutError, match="told to end"):
            _jobs._in_a_thread(following)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert following.cancelled.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "follow-job"]


def test_a_state_store_that_cannot_be_read_keeps_no_task_from_its_job(fake: FakeKubernetes, registry: Registry) -> None:
    store = StateStore()
    task = Task(store)
    first = task.begin()
    store.fails = RuntimeError("the store is away")
    assert task.again().uid == first.uid
