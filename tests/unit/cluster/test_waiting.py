"""What a Job waits for, told of what a real cluster said, and how long that is borne."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.cluster.waiting import Waiting, waiting_for

from .recordings import recorded, state

SETTINGS = JobSettings(startup_timeout=1000, image_pull_timeout=100)


def waiting(name: str) -> Waiting:
    found = waiting_for(*recorded(name), SETTINGS)
    assert found is not None
    assert "\n" not in found.message
    return found


@pytest.mark.parametrize(
    ("name", "reason", "patience", "said"),
    [
        ("no_image", "ImagePull", 100, "work cannot pull registry.invalid/no/such@sha256:"),
        ("no_node", "Unschedulable", 1000, "No node takes pod no-node-"),
        ("no_secret", "CannotStart", 60, 'work cannot be started: secret "x" not found'),
        ("suspended", "Suspended", None, "it waits in its queue"),
    ],
)
def test_what_a_job_waits_for(name: str, reason: str, patience: float | None, said: str) -> None:
    found = waiting(name)
    assert (found.reason, found.patience) == (reason, patience)
    assert said in found.message


@pytest.mark.parametrize("name", ["running", "complete", "exit_3", "deadline"])
def test_what_runs_or_has_ended_waits_for_nothing(name: str) -> None:
    assert waiting_for(*recorded(name), SETTINGS) is None


def test_a_job_without_a_pod_yet_waits_for_nothing_that_is_known() -> None:
    job, _ = recorded("running")
    assert waiting_for(job, [], SETTINGS) is None


@pytest.mark.parametrize(("name", "retry"), [("no_image", True), ("no_node", True), ("no_secret", False)])
def test_what_may_cure_itself_is_tried_again(name: str, retry: bool) -> None:
    found = waiting(name)
    assert found.patience is not None
    over = found.since + timedelta(seconds=found.patience)
    assert found.left(over - timedelta(seconds=1)) == 1
    assert found.left(over) == 0
    outcome = found.given_up(over)
    assert (outcome.retry, outcome.given_up, outcome.succeeded) == (retry, True, False)
    assert f"(waited {found.patience:.0f} s)" in outcome.message


def test_what_is_waited_for_without_end_is_never_over() -> None:
    assert waiting("suspended").left(datetime(2100, 1, 1, tzinfo=UTC)) is None


def test_a_name_of_an_image_that_cannot_be_is_given_up_at_once() -> None:
    job, (pod,) = recorded("no_image")
    state(pod, "work")["waiting"] = {"reason": "InvalidImageName", "message": "couldn't parse"}
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert found.patience == 0
    outcome = found.given_up(datetime.now(UTC))
    assert (outcome.reason, outcome.retry) == ("ImagePull", False)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_an_image_is_waited_for_since_the_container_before_it_ended() -> None:
    _, (pod,) = recorded("no_image")
    assert waiting("no_image").since == at(state(pod, "fetch")["terminated"]["finishedAt"])


def test_the_wait_for_a_node_is_no_wait_for_an_image() -> None:
    job, (pod,) = recorded("no_image")
    pod["metadata"]["creationTimestamp"] = "2026-11-21T08:00:00Z"
    pod["status"]["startTime"] = "2026-11-21T20:00:00Z"
    state(pod, "work")["waiting"] = {"reason": "PodInitializing"}
    statuses = pod["status"]["initContainerStatuses"]
    statuses[0]["state"] = {"waiting": {"reason": "ErrImagePull", "message": "502"}}
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert (found.reason, found.since) == ("ImagePull", at("2026-11-21T20:00:00Z"))
    del pod["status"]["startTime"]
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert found.since == at("2026-11-21T08:00:00Z")


def test_a_pod_that_only_starts_is_waited_for_as_long_as_for_a_node() -> None:
    job, (pod,) = recorded("no_image")
    fetch = state(pod, "fetch")["terminated"]["finishedAt"]
    state(pod, "work")["waiting"] = {"reason": "PodInitializing"}
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert (found.reason, found.since, found.patience) == ("Starting", at(fetch), 1000)
    assert "starts its next container" in found.message
    pod["status"] = {"phase": "Pending"}
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert found.message.endswith("is being started.")
    assert found.since == at(pod["metadata"]["creationTimestamp"])


def test_a_gate_is_borne_without_end() -> None:
    job, (pod,) = recorded("no_node")
    for condition in pod["status"]["conditions"]:
        condition["reason"] = "SchedulingGated"
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert (found.reason, found.patience) == ("SchedulingGated", None)


def test_a_pod_that_goes_is_not_waited_for_and_the_newest_counts() -> None:
    job, (old,) = recorded("no_node")
    _, (new,) = recorded("running")
    old["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    assert waiting_for(job, [old, new], SETTINGS) is None
    old["metadata"]["deletionTimestamp"] = "2020-01-01T00:01:00Z"
    assert waiting_for(job, [old], SETTINGS) is None


def test_a_container_of_somebody_else_holds_nothing_up() -> None:
    job, (pod,) = recorded("running")
    waits: dict[str, Any] = {"name": "sidecar", "state": {"waiting": {"reason": "ErrImagePull"}}}
    pod["status"]["containerStatuses"].append(waits)
    assert waiting_for(job, [pod], SETTINGS) is None
