"""The project's images run on a cluster as a careful administrator lets them: as nobody, on a read-only file system."""

from __future__ import annotations

import json

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import steps_image, trainer_image

_SECURITY = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def run_python(cluster: Cluster, namespace: str, image: str, program: str) -> str:
    """Run a program of Python in a pod of the restricted profile; its log."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", program],
        "securityContext": _SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": namespace}, "spec": spec}
    cluster.kubectl("apply", "--filename=-", input=json.dumps(pod))

    def phase() -> str:
        return str(cluster.get("pod", "pod", f"--namespace={namespace}")["status"]["phase"])

    cluster.wait("the pod to end", lambda: phase() in {"Succeeded", "Failed"}, timeout=240)
    log = cluster.kubectl("logs", "pod", f"--namespace={namespace}")
    assert phase() == "Succeeded", log
    return log


def test_the_steps_run_as_nobody_on_a_read_only_file_system(cluster: Cluster, namespace: str) -> None:
    program = "import os, airflow_provider_kitops.workload; print(os.getuid(), os.environ['HOME'])"
    assert run_python(cluster, namespace, steps_image(cluster), program) == "65532 /tmp\n"


def test_the_trainer_has_what_the_reference_programs_import(cluster: Cluster, namespace: str) -> None:
    program = "import torch, transformers, peft, trl, datasets; print(torch.ones(2).sum().item())"
    assert run_python(cluster, namespace, trainer_image(cluster), program).endswith("2.0\n")


def test_an_image_is_built_and_pushed_once(cluster: Cluster) -> None:
    if not cluster.machine:
        pytest.skip("another cluster than this machine's own has images of its own")
    assert steps_image(cluster) == steps_image(cluster)
