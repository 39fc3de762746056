"""A setting that cannot be is told in one line, in the words of whoever wrote it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.cluster.settings import JobSettings


def said(settings: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        JobSettings.model_validate(settings)
    return problems(caught.value, JobSettings, "together")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"memmory": "1Gi"}, "memmory: unknown name (did you mean memory?)"),
        ({"on_node": {"require": ["a=b"]}}, "on_node.require: unknown name (known: may, prefer, must)"),
        ({"gpu": -1}, "gpu: Input should be greater than or equal to 0"),
        ({"gpu": 0.5}, "gpu: Input should be a valid integer, got a number with a fractional part"),
        ({"memory": "16 GB"}, "memory: '16 GB' is no quantity such as 500m, 2 or 16Gi"),
        ({"memory": "16GB"}, "memory: '16GB' is no quantity such as 500m, 2 or 16Gi"),
        ({"memory": 16}, "memory: '16' is less than 1Mi: m is thousandths, no unit is bytes, and Gi is what is meant"),
        (
            {"memory": "500m"},
            "memory: '500m' is less than 1Mi: m is thousandths, no unit is bytes, and Gi is what is meant",
        ),
        ({"shared_memory": "8"}, "shared_memory: '8' is less than 1Mi: m is thousandths, no unit is bytes"),
        ({"cpu": "two"}, "cpu: 'two' is no quantity such as 500m, 2 or 16Gi"),
        ({"cpu": -1}, "cpu: '-1' is no quantity"),
        ({"cpu": True}, "cpu: Input should be a valid string"),
        ({"cpu": float("nan")}, "cpu: 'nan' is no quantity"),
        ({"on_node": {"must": ["gpu"]}}, "on_node.must: 'gpu' is not key=value"),
        ({"on_node": {"may": ["=x"]}}, "on_node.may: '=x' is not key=value"),
        ({"on_node": {"prefer": ["pool=a b"]}}, "on_node.prefer: 'a b' is no label's value"),
        ({"on_node": {"prefer": ["a/b/c=d"]}}, "on_node.prefer: 'a/b/c' is no label's name"),
        ({"scratch": {}}, "scratch: a volume source is one mapping by its kind"),
        ({"scratch": {"emptyDir": {}, "hostPath": {"path": "/x"}}}, "scratch: a volume source is one mapping by its"),
        (
            {"scratch": {"hostPath": {"path": "/x"}}},
            "scratch: hostPath outlives the pod and may be shared; use emptyDir",
        ),
        ({"checkpoints": {"emptyDir": None}}, "checkpoints: a volume source is one mapping by its kind"),
        ({"cache": {"persistentVolumeclaim": {}}}, "is no kind of volume (did you mean persistentVolumeClaim?)"),
        ({"labels": {"team": "team one"}}, "labels: 'team one' is no label's value: at most 63 letters, digits"),
        ({"labels": {"team": "x" * 64}}, "is no label's value"),
        ({"labels": {"team": "a\n"}}, "is no label's value"),
        ({"labels": {"cost": 42}}, "labels.cost: Input should be a valid string"),
        ({"labels": {"-a": "b"}}, "labels: '-a' is no label's name"),
        ({"annotations": {"a b": "c"}}, "annotations: 'a b' is no label's name"),
        ({"node_selector": {"Bad_Domain/x": "y"}}, "node_selector: 'Bad_Domain/x' is no label's name"),
        ({"gpu": 1, "gpu_type": "NVIDIA A100"}, "gpu_type: 'NVIDIA A100' is no label's value"),
        ({"gpu_resource": "nvidia.com/"}, "gpu_resource: 'nvidia.com/' is no label's name"),
        ({"namespace": "Models"}, "namespace: 'Models' is no namespace's name"),
        ({"queue": "team a"}, "queue: 'team a' is no name of a thing in Kubernetes"),
        ({"service_account": "Trainer"}, "service_account: 'Trainer' is no name of a thing"),
        ({"image_pull_secrets": ["ok", "a_b"]}, "image_pull_secrets: 'a_b' is no name of a thing"),
        ({"priority_class": ""}, "priority_class: '' is no name of a thing"),
        ({"deadline": 0}, "deadline: Input should be greater than 0"),
        ({"deadline": "1h"}, "deadline: '1h' is no number of seconds"),
        ({"deadline": "nan"}, "deadline: Input should be"),
        ({"startup_timeout": None}, "startup_timeout: Input should be a valid number"),
        ({"startup_timeout": float("inf")}, "startup_timeout: Input should be"),
        ({"retry_exit_codes": [0]}, "retry_exit_codes.0: Input should be greater than or equal to 1"),
        ({"ttl": 60}, "ttl: Input should be greater than or equal to 600"),
        ({"on_finish": "remove"}, "on_finish: Input should be 'delete', 'delete_on_success' or 'keep'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(settings: dict[str, Any], expected: str) -> None:
    found = said(settings)
    assert expected in found
    assert "\n" not in found.replace("\\n", "")
    assert len(found) < 250


@pytest.mark.parametrize("setting", ["labels", "annotations"])
@pytest.mark.parametrize(
    "key",
    [
        "airflow-provider-kitops.dev/reported",
        "airflow-provider-kitops.dev/logged-until",
        "airflow-provider-kitops.dev/what-is-to-come",
        "app.kubernetes.io/managed-by",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "controller-uid",
        "job-name",
    ],
)
def test_what_this_package_and_kubernetes_go_by_is_nobodys_to_set(setting: str, key: str) -> None:
    found = said({setting: {"team": "a", key: "true"}})
    assert f"{setting}: '{key}' is not yours to set: Kubernetes or this package sets it, and goes by it" in found
    assert "\n" not in found


@pytest.mark.parametrize("setting", ["labels", "annotations"])
def test_a_queue_has_a_setting_of_its_own(setting: str) -> None:
    found = said({setting: {"kueue.x-k8s.io/queue-name": "team-a"}})
    assert f"{setting}: 'kueue.x-k8s.io/queue-name' is set by the setting queue" in found


@pytest.mark.parametrize(
    "settings",
    [
        {"labels": {"job": "a", "kueue.x-k8s.io/priority-class": "high", "kitops/job-name": "mine"}},
        {"cpu": 4, "memory": "16Gi"},
        {"cpu": 0.5, "memory": 17179869184},
        {"cpu": "500m", "memory": "1.5G"},
        {"memory": "1e9"},
        {"memory": "1E"},
        {"gpu_resource": "nvidia.com/mig-1g.5gb", "gpu_type": "NVIDIA-A100-SXM4-80GB"},
        {"labels": {"app.kubernetes.io/part-of": "a.b_c-D", "empty": ""}},
        {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "any text, of course: ☃"}},
        {"on_node": {"may": ["topology.kubernetes.io/zone=eu-1a"], "must": ["gpu=yes"]}},
        {"cache": {"persistentVolumeClaim": {"claimName": "blobs"}}},
        {"queue": "user-queue", "service_account": "a.b-c"},
        {"cache": None, "deadline": None},
    ],
)
def test_what_can_be_is_taken(settings: dict[str, Any]) -> None:
    JobSettings.model_validate(settings)


def test_the_settings_of_an_operator_are_checked_where_the_dag_is_read() -> None:
    program = (
        "from airflow_provider_kitops.operators.kubernetes import FineTuneKubernetesOperator\n"
        "FineTuneKubernetesOperator(task_id='t', base='a/b:c', dataset='a/b:c', destination='a/b', config={},\n"
        "                           job={'memory': '16 GB'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ}
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "job of task t cannot be used: memory: '16 GB' is no quantity such as 500m, 2 or 16Gi" in last


def test_the_settings_survive_what_the_trigger_does_with_them() -> None:
    settings = JobSettings(startup_timeout=5, retry_exit_codes=(3, 4))
    dumped = settings.model_dump(mode="json", include={"startup_timeout", "image_pull_timeout", "retry_exit_codes"})
    again = JobSettings.model_validate(dumped)
    assert (again.startup_timeout, again.image_pull_timeout) == (5.0, 300.0)
    assert again.retry_exit_codes == (3, 4)
