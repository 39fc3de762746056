"""What is looked at of Jobs and pods is found where it is, and missing nowhere where it is not."""

from __future__ import annotations

import pytest

from airflow_provider_kitops.cluster.names import CONTROLLER_UID
from airflow_provider_kitops.cluster.reading import container_of, container_states, is_finished, owner_of

from .recordings import recorded


@pytest.mark.parametrize(
    ("name", "finished"),
    [("complete", True), ("exit_3", True), ("deadline", True), ("running", False), ("suspended", False)],
)
def test_a_job_that_completed_or_failed_has_finished(name: str, finished: bool) -> None:
    assert is_finished(recorded(name).job) is finished


def test_a_job_that_is_about_to_fail_has_not_finished() -> None:
    assert not is_finished({"status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}})
    assert not is_finished({"status": {"conditions": [{"type": "Failed", "status": "False"}]}})
    assert not is_finished({"status": {"conditions": None}})
    assert not is_finished({})


def test_a_container_is_found_wherever_it_is_in_the_pod() -> None:
    _, (pod,) = recorded("running")
    for name in ("fetch", "work", "publish"):
        assert container_of(pod, name)["name"] == name
    assert container_of(pod, "sidecar") == container_of({"spec": {"containers": None}}, "work") == {}


def test_containers_of_others_are_left_out() -> None:
    _, (pod,) = recorded("running")
    pod["status"]["containerStatuses"].insert(0, {"name": "istio-proxy", "state": {"running": {}}})
    assert [name for name, _ in container_states(pod)] == ["fetch", "work", "publish"]
    assert list(container_states({"metadata": {}, "status": {"containerStatuses": None}})) == []
    assert list(container_states({"metadata": {}})) == []


def test_a_pod_knows_its_job() -> None:
    _, (pod,) = recorded("running")
    assert owner_of(pod) == "1de7bfb4-0a14-4080-9aa8-408b9d17ce52"
    labels = {CONTROLLER_UID: "by-label"}
    assert owner_of({"metadata": {"labels": labels}}) == "by-label"
    owners = [{"kind": "Node", "uid": "n"}, {"kind": "Job", "uid": "by-owner", "controller": True}]
    assert owner_of({"metadata": {"labels": labels, "ownerReferences": owners}}) == "by-owner"
    assert owner_of({"metadata": {"labels": labels, "ownerReferences": owners[:1]}}) == "by-label"
    assert owner_of({"metadata": {"labels": None, "ownerReferences": None}}) == owner_of({"metadata": {}}) == ""
