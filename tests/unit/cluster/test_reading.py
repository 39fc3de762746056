"""What is looked at of Jobs and pods is found where it is, and missing nowhere where it is not."""

from __future__ import annotations

import pytest

from airflow_provider_kitops.cluster.reading import container_of, container_states, is_finished, job_of

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
    job, (pod,) = recorded("running")
    assert job_of(pod) == job["metadata"]["name"]
    assert job_of({"metadata": {"labels": {"job-name": "old"}}}) == "old"
    assert job_of({"metadata": {"labels": None}}) == job_of({"metadata": {}}) == ""
