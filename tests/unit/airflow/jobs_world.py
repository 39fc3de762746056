"""What tests of tasks with Jobs have in common: a registry, pods, Jobs that end, and what Airflow gives a task."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import tenacity
from airflow.providers.cncf.kubernetes import kubernetes_helper_functions
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

from airflow_provider_kitops.cluster.job import JobObjects, job_objects
from airflow_provider_kitops.cluster.names import CONTROLLER_UID, JOB_NAME, MANAGED_BY, TASK, TaskKey
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.hooks._jobs import Jobs
from airflow_provider_kitops.oci.errors import KitopsError
from airflow_provider_kitops.workload.mounts import DOCKER_CONFIG
from airflow_provider_kitops.workload.spec import WorkloadSpec
from tests.fake_kubernetes import FakeKubernetes
from tests.memory_target import MemoryTarget
from tests.unit.oci.fake_server import Answer, Request, fake_server

#: The task instance of ``conftest.FakeTaskInstance``.
TASK_KEY = TaskKey("dag", "run", "task")
IMAGE = f"registry.example.com/demo/train@sha256:{'b' * 64}"
PASSWORD = "correct horse: battery"


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something to become so, for ten seconds at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        await asyncio.sleep(0.01)


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls that are tried again be tried at once."""
    monkeypatch.setattr(kubernetes_helper_functions, "_default_wait", tenacity.wait_none())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def jobs_of(kubeconfig: dict[str, Any]) -> Jobs:
    return Jobs(KubernetesHook(kubernetes_conn_id=None, config_dict=kubeconfig))


def objects_of(
    name: str = "a",
    *,
    task: TaskKey = TASK_KEY,
    command: str = "train",
    namespace: str = "models",
    secrets: Mapping[str, bytes] | None = None,
    mounted: str = "",
    **settings: Any,
) -> JobObjects:
    """What is created for a small workload."""
    spec = WorkloadSpec.of(
        inputs={"base": f"demo/base@sha256:{'a' * 64}"},
        image=IMAGE,
        command=[command],
        output={"reference": "demo/model:v1", "kitfile": {"manifestVersion": "1.0.0"}},
    )
    return job_objects(
        spec,
        JobSettings.model_validate(settings),
        task=task,
        name=name,
        mounted=mounted or f"{name}-0123abcd",
        namespace=namespace,
        steps_image=IMAGE,
        files={"spec.json": "{}"},
        secrets={DOCKER_CONFIG: PASSWORD.encode()} if secrets is None else secrets,
    )


def pod_of(job: Mapping[str, Any], *, name: str = "p", phase: str = "Running", **states: Any) -> dict[str, Any]:
    """A pod of a Job, with the states of its containers."""
    metadata = job["metadata"]
    labels = {**MANAGED_BY, TASK: metadata["labels"][TASK]}
    labels |= {JOB_NAME: metadata["name"], CONTROLLER_UID: metadata["uid"]}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "metadata": {
            "name": name,
            "labels": labels,
            "ownerReferences": [{**owner, "controller": True}],
            "creationTimestamp": "2026-11-21T20:00:00Z",
        },
        "spec": {"containers": []},
        "status": {"phase": phase, "initContainerStatuses": [_state(*each) for each in states.items()]},
    }


def succeed(fake: FakeKubernetes, job: Mapping[str, Any], digest: str) -> None:
    """Let a Job end well, and tell a digest."""
    told = {"terminated": {"exitCode": 0, "message": json.dumps({"digest": digest, "seconds": 3, "metrics": {}})}}
    fake.put_pod(pod_of(job, phase="Succeeded", work={"terminated": {"exitCode": 0}}, publish=told))
    _end(fake, job, "Complete")


def fail(fake: FakeKubernetes, job: Mapping[str, Any], *, code: int = 3, said: str = "ValueError: no rows") -> None:
    """Let a Job's program fail."""
    told = {"terminated": {"exitCode": code, "message": said}}
    fake.put_pod(pod_of(job, phase="Failed", work=told))
    _end(fake, job, "Failed")


def _end(fake: FakeKubernetes, job: Mapping[str, Any], condition: str) -> None:
    now = fake.things("jobs")[job["metadata"]["name"]]
    fake.put_job({**now, "status": {"conditions": [{"type": condition, "status": "True"}]}})


def _state(container: str, state: dict[str, Any]) -> dict[str, Any]:
    # What the API always tells, and its client will not do without.
    usual = {"image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    return {"name": container, "state": state, **usual}


class StateStore:
    """The task state store of Airflow 3.3, as far as operators use it.

    :param fails: what every call raises, if anything.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.values = dict(values or {})
        self.fails: Exception | None = None

    def get(self, key: str) -> Any:
        self._fail()
        return self.values.get(key)

    def set(self, key: str, value: Any) -> None:
        self._fail()
        self.values[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self._fail()
        self.values.pop(key, None)

    def _fail(self) -> None:
        if self.fails:
            raise self.fails


class Registry:
    """What is read of a registry, served from memory; what is not there is 404, and nothing can be pushed by HTTP.

    :param status: the status to answer everything with, if not what is there.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.status = 0
        self.repositories: dict[str, MemoryTarget] = defaultdict(MemoryTarget)

    def answer(self, request: Request) -> Answer:
        repository, kind, reference = request.path.removeprefix("/v2/").rsplit("/", 2)
        if self.status:
            return Answer(self.status)
        target = self.repositories[repository]
        try:
            if kind == "manifests":
                found = target.resolve(reference)
                headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
                return Answer(200, target.content[found.digest], headers)
            return Answer(200, target.content[reference])
        except (KitopsError, KeyError):
            return Answer(404)


@contextlib.contextmanager
def registry_in_memory() -> Iterator[Registry]:
    """A registry while it runs."""
    with fake_server() as server:
        registry = Registry(server.host)
        server.answer = registry.answer
        yield registry
