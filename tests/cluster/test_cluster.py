"""The cluster does what tests of it rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import cluster as clusters
from tests.cluster import processes
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.images import busybox_image
from tests.cluster.machine import BRIDGE


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    return busybox_image(cluster)


def run_pod(cluster: Cluster, namespace: str, image: str, script: str, *, name: str = "pod", **resources: str) -> None:
    container = {"name": "main", "image": image, "command": ["sh", "-c", script], "resources": {"limits": resources}}
    spec = {"restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    cluster.kubectl("apply", "--filename=-", input=json.dumps(pod))


def pod_status(cluster: Cluster, namespace: str, name: str = "pod") -> dict[str, Any]:
    status: dict[str, Any] = cluster.get("pod", name, f"--namespace={namespace}")["status"]
    return status


def wait_for_phase(cluster: Cluster, namespace: str, phase: str) -> None:
    cluster.wait(f"the pod to be {phase}", lambda: pod_status(cluster, namespace)["phase"] == phase)


def test_a_pod_runs_to_its_end_and_its_log_is_read(cluster: Cluster, namespace: str, image: str) -> None:
    run_pod(cluster, namespace, image, "echo hello from $(id -u)")
    wait_for_phase(cluster, namespace, "Succeeded")
    assert cluster.kubectl("logs", "pod", f"--namespace={namespace}") == "hello from 0\n"


def test_the_bridge_keeps_its_address_whatever_pods_come_and_go(cluster: Cluster) -> None:
    if cluster.machine is None:
        pytest.skip("KUBECONFIG names another cluster")
    assigned = Path(f"/sys/class/net/{BRIDGE}/addr_assign_type").read_text().strip()
    assert assigned == "3", "set by us (NET_ADDR_SET)"


def test_a_pod_reaches_both_registries(cluster: Cluster, namespace: str, image: str) -> None:
    if not cluster.private_registry:
        pytest.skip("needs KITOPS_TESTS_PRIVATE_REGISTRY")
    public, private = f"http://{cluster.registry}/v2/", f"http://{cluster.private_registry}/v2/"
    run_pod(cluster, namespace, image, f"wget -q -O - {public} && wget -O - {private}")
    wait_for_phase(cluster, namespace, "Failed")
    log = cluster.kubectl("logs", "pod", f"--namespace={namespace}")
    assert "{}" in log
    assert "401 Unauthorized" in log


def test_an_image_that_no_registry_has_is_said_to_be_missing(cluster: Cluster, namespace: str) -> None:
    def reason() -> str:
        statuses = pod_status(cluster, namespace).get("containerStatuses", [{}])
        return str(statuses[0].get("state", {}).get("waiting", {}).get("reason"))

    run_pod(cluster, namespace, "docker.io/airflow-provider-kitops/none:latest", "true")
    cluster.wait("the image not to be pulled", lambda: reason() in {"ErrImagePull", "ImagePullBackOff"})


def test_a_pod_waits_for_gpus_until_the_node_has_them(cluster: Cluster, namespace: str, image: str) -> None:
    cluster.set_gpus(0)
    run_pod(cluster, namespace, image, "true", **{"nvidia.com/gpu": "2"})

    def unschedulable() -> bool:
        conditions = pod_status(cluster, namespace).get("conditions", [])
        return any(condition.get("reason") == "Unschedulable" for condition in conditions)

    cluster.wait("the pod to be found unschedulable", unschedulable)
    cluster.set_gpus(2)
    wait_for_phase(cluster, namespace, "Succeeded")


def test_a_killed_container_ends_with_137(cluster: Cluster, namespace: str, image: str) -> None:
    run_pod(cluster, namespace, image, "sleep 600")
    wait_for_phase(cluster, namespace, "Running")
    cluster.kill_container(namespace, "pod", "main")
    wait_for_phase(cluster, namespace, "Failed")
    state = pod_status(cluster, namespace)["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 137


def test_a_pod_outlives_the_kubelet_and_the_api_server(cluster: Cluster, namespace: str, image: str) -> None:
    run_pod(cluster, namespace, image, "sleep 600")
    wait_for_phase(cluster, namespace, "Running")
    before = pod_status(cluster, namespace)["containerStatuses"][0]
    cluster.stop("kube-apiserver")
    with pytest.raises(ClusterError):
        cluster.kubectl("get", "nodes")
    cluster.restart("kubelet")
    cluster.start("kube-apiserver")
    after = pod_status(cluster, namespace)["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    cluster.kill_container(namespace, "pod", "main")
    wait_for_phase(cluster, namespace, "Failed")


def test_a_node_whose_kubelet_has_stopped_is_found_not_ready(cluster: Cluster) -> None:
    def ready() -> str:
        conditions = cluster.get("node", cluster.node)["status"]["conditions"]
        return str(next(found["status"] for found in conditions if found["type"] == "Ready"))

    cluster.stop("kubelet")
    try:
        cluster.wait("the node to be lost", lambda: ready() == "Unknown")
    finally:
        cluster.start("kubelet")
    cluster.wait("the node to be back", lambda: ready() == "True")


def test_what_was_killed_is_started_by_the_next_up(cluster: Cluster, namespace: str) -> None:
    own = cluster.machine
    if own is None:
        pytest.skip("another cluster than this machine's own is not repaired")
    for name in ("etcd", "containerd", "kube-scheduler"):
        processes.stop(own.pid_file(name))
    assert {"etcd", "containerd", "kube-scheduler"} <= set(clusters.unhealthy(own))
    assert clusters.up() == cluster
    assert clusters.unhealthy(own) == []
    assert cluster.get("namespace", namespace)["status"]["phase"] == "Active"
