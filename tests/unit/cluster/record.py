"""Record what a real cluster says of Jobs that end in many ways, for the tests of outcomes.

Run by hand where a cluster for tests can be had (``tests/cluster``): ``python -m tests.unit.cluster.record [NAME …]``.
Every Job is one that this package makes. ``fetch`` and ``publish`` are a line of shell each, for what is recorded is
Kubernetes' account of them, not their work. What is not looked at is left out.

Not recorded is what the cluster for tests does not do: it does not limit the size of volumes, and has one node.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_kitops.cluster.job import job_objects
from airflow_provider_kitops.cluster.names import JOB_NAME, TaskKey, selector
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.workload.spec import WorkloadSpec
from tests.cluster import cluster as clusters
from tests.cluster.cluster import Cluster
from tests.cluster.images import busybox_image

RECORDED = Path(__file__).parent / "recorded"

_FINISHED = ("Complete", "Failed")
_DIGEST = "sha256:" + "c" * 64
_TOLD = json.dumps({"digest": _DIGEST, "reference": f"demo/model@{_DIGEST}", "metrics": {"loss": 0.5}, "seconds": 1.5})
_FAILED = json.dumps({"error": "Cannot reach the registry: connection refused.", "transient": True})
# What the tests look at, and a little around it.
_METADATA = ("name", "labels", "creationTimestamp", "deletionTimestamp")


@dataclass(frozen=True)
class Case:
    """A Job to record.

    :param work: what the program does, in shell.
    :param until: what is waited for; that the Job has finished, unless said otherwise.
    :param then: done when that holds, after which the Job's end is waited for.
    """

    work: str = "true"
    fetch: str = "true"
    publish: str = f"echo '{_TOLD}' > /dev/termination-log"
    settings: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    command: tuple[str, ...] = ()
    until: Callable[[Any, list[Any]], bool] | None = None
    then: Callable[[Cluster, str, str], None] | None = None
    keep_suspended: bool = False


def _runs(container: str) -> Callable[[Any, list[Any]], bool]:
    def running(_: Any, pods: list[Any]) -> bool:
        return any("running" in _state(pod, container) for pod in pods)

    return running


def _waits(container: str, *reasons: str) -> Callable[[Any, list[Any]], bool]:
    def waiting(_: Any, pods: list[Any]) -> bool:
        return any(_state(pod, container).get("waiting", {}).get("reason") in reasons for pod in pods)

    return waiting


def _unplaced(_: Any, pods: list[Any]) -> bool:
    conditions = [each for pod in pods for each in pod["status"].get("conditions", [])]
    return any(each["type"] == "PodScheduled" and each["status"] == "False" for each in conditions)


def _evict(cluster: Cluster, namespace: str, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", f"--raw={path}", "--filename=-", input=json.dumps(body))


def _delete(cluster: Cluster, namespace: str, pod: str) -> None:
    cluster.kubectl("delete", "pod", pod, f"--namespace={namespace}", "--wait=false")


_SLEEP = "trap 'exit 143' TERM; sleep 300 & wait"

CASES: dict[str, Case] = {
    "complete": Case("echo trained"),
    "no_result": Case(publish="true"),
    "exit_3": Case("echo 'reading the data'; echo 'ValueError: no rows' >&2; exit 3"),
    "gpu_memory": Case("echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.' >&2; exit 1"),
    "memory": Case("x=x; while true; do x=$x$x; done", settings={"memory": "24Mi", "backoff_limit": 0}),
    "killed": Case("exit 137", settings={"backoff_limit": 0}),
    "terminated": Case("exit 143", settings={"backoff_limit": 0}),
    "no_such_program": Case(command=("/no/such/program",)),
    "fetch_failed": Case(fetch=f"echo '{_FAILED}' > /dev/termination-log; exit 7"),
    "publish_crashed": Case(publish="echo 'No module named x' >&2; exit 1"),
    "deadline": Case(_SLEEP, settings={"deadline": 5}),
    "running": Case(_SLEEP, until=_runs("work")),
    "evicted": Case(_SLEEP, until=_runs("work"), then=_evict),
    "deleted_pod": Case(_SLEEP, settings={"backoff_limit": 0}, until=_runs("work"), then=_delete),
    "no_pod": Case(settings={"service_account": "missing"}, until=lambda job, _: "startTime" in job.get("status", {})),
    "no_image": Case(
        image=f"registry.invalid/no/such@{_DIGEST}", until=_waits("work", "ErrImagePull", "ImagePullBackOff")
    ),
    "no_node": Case(settings={"node_selector": {"no.such/node": "yes"}}, until=_unplaced),
    "no_secret": Case(
        settings={
            "pod_override": {
                "initContainers": [
                    {"name": "work", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x"}}}]}
                ]
            }
        },
        until=_waits("work", "CreateContainerConfigError"),
    ),
    "suspended": Case(keep_suspended=True, until=lambda job, _: bool(job.get("status", {}).get("conditions"))),
}


def record(cluster: Cluster, namespace: str, name: str, case: Case) -> None:
    image = busybox_image(cluster)
    job = _job(case, image, namespace, name)
    _begin(cluster, namespace, job, case)
    found: tuple[Any, list[Any]] = (None, [])
    seen: dict[str, Any] = {}

    def reached(condition: Callable[[Any, list[Any]], bool]) -> bool:
        nonlocal found
        found = _look(cluster, namespace, job["metadata"]["name"])
        for pod in found[1]:
            seen[pod["metadata"]["name"]] = pod
        return condition(*found)

    cluster.wait(f"the case {name}", lambda: reached(case.until or _finished), 120)
    if case.then:
        first = found[1][0]["metadata"]["name"]
        case.then(cluster, namespace, first)
        # A pod that is taken away is not there for long.
        end = time.monotonic() + 60
        while not _gone(cluster, namespace, first, seen) and time.monotonic() < end:
            pass
        reached(lambda *_: True)
    pods = sorted(seen.values(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    content = {"job": _trimmed_job(found[0]), "pods": [_trimmed_pod(pod) for pod in pods]}
    text = json.dumps(content, indent=1).replace(cluster.registry, "registry:5000").replace(namespace, "models")
    (RECORDED / f"{name}.json").write_text(text.replace(cluster.node, "node-1") + "\n")
    print(f"recorded {name}", flush=True)


def _job(case: Case, image: str, namespace: str, name: str) -> dict[str, Any]:
    spec = WorkloadSpec.of(
        inputs={"base": f"demo/base@{_DIGEST}"},
        image=case.image or image,
        command=case.command or ["sh", "-c", case.work],
        output={"reference": "demo/model:v1", "kitfile": {"manifestVersion": "1.0.0"}},
    )
    settings = JobSettings(on_finish="keep", **case.settings)
    task = TaskKey("dag", "run", name)
    objects = job_objects(
        spec,
        settings,
        task=task,
        name=task.job_name("1"),
        mounted=task.job_name("1"),
        namespace=namespace,
        steps_image=image,
        files={"spec.json": "{}"},
        secrets={},
    )
    pod = objects.job["spec"]["template"]["spec"]
    pod["initContainers"][0]["command"] = ["sh", "-c", case.fetch]
    pod["containers"][0]["command"] = ["sh", "-c", case.publish]
    for container in (*pod["initContainers"], *pod["containers"]):
        # The node is small. Not cleared: the limits may be the same mapping.
        container["resources"] = {key: value for key, value in container["resources"].items() if key != "requests"}
    return objects.job


def _begin(cluster: Cluster, namespace: str, job: dict[str, Any], case: Case) -> None:
    name = job["metadata"]["name"]
    cluster.kubectl("create", "configmap", name, f"--namespace={namespace}", "--from-literal=spec.json={}")
    cluster.kubectl("create", "--validate=strict", "--filename=-", input=json.dumps(job))
    if not case.keep_suspended:
        patch = json.dumps({"spec": {"suspend": False}})
        cluster.kubectl("patch", "job", name, f"--namespace={namespace}", f"--patch={patch}")


def _look(cluster: Cluster, namespace: str, name: str) -> tuple[Any, list[Any]]:
    label = selector({JOB_NAME: name})
    pods = cluster.get("pods", f"--namespace={namespace}", f"--selector={label}")["items"]
    return cluster.get("job", name, f"--namespace={namespace}"), pods


def _gone(cluster: Cluster, namespace: str, pod: str, seen: dict[str, Any]) -> bool:
    text = cluster.kubectl("get", "pod", pod, f"--namespace={namespace}", "--ignore-not-found", "--output=json")
    if text:
        seen[pod] = json.loads(text)
    return not text


def _finished(job: Any, _: list[Any]) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(each["type"] in _FINISHED and each["status"] == "True" for each in conditions)


def _state(pod: Any, container: str) -> dict[str, Any]:
    status = pod["status"]
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    state: dict[str, Any] = next((each["state"] for each in statuses if each["name"] == container), {})
    return state


def _trimmed_job(job: Any) -> dict[str, Any]:
    kept = ("suspend", "backoffLimit", "activeDeadlineSeconds")
    return {
        "metadata": _some(job["metadata"], *_METADATA),
        "spec": _some(job["spec"], *kept),
        "status": job.get("status", {}),
    }


def _trimmed_pod(pod: Any) -> dict[str, Any]:
    def container(each: Any) -> dict[str, Any]:
        return _some(each, "name", "image", "resources")

    status = {key: value for key, value in pod["status"].items() if not key.lower().endswith(("ip", "ips"))}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind, []):
            for noise in ("volumeMounts", "user", "imageID", "containerID", "resources", "allocatedResources"):
                each.pop(noise, None)
            each["state"].get("terminated", {}).pop("containerID", None)
    return {
        "metadata": _some(pod["metadata"], *_METADATA),
        "spec": {
            **_some(pod["spec"], "nodeName"),
            "initContainers": [container(each) for each in pod["spec"]["initContainers"]],
            "containers": [container(each) for each in pod["spec"]["containers"]],
        },
        "status": status,
    }


def _some(value: Any, *keys: str) -> dict[str, Any]:
    return {key: value[key] for key in keys if key in value}


def main(names: list[str]) -> None:
    cluster, namespace = clusters.up(), f"kitops-record-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", namespace)
    try:
        account = ("serviceaccount", "default", f"--namespace={namespace}", "--ignore-not-found")
        cluster.wait("the service account", lambda: cluster.kubectl("get", *account))
        RECORDED.mkdir(exist_ok=True)
        for name in names or CASES:
            try:
                record(cluster, namespace, name, CASES[name])
            except Exception as error:  # noqa: BLE001 - the others are recorded all the same
                print(f"{name}: {error!r}", flush=True)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
        cluster.kubectl("delete", "pods", "--all", f"--namespace={namespace}", "--now", "--wait=false")


if __name__ == "__main__":
    main(sys.argv[1:])
