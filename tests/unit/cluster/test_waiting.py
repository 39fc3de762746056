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


def asked(job: Any, pods: list[Any], **more: Any) -> Waiting:
    found = waiting_for(job, pods, SETTINGS, **more)
    assert found is not None
    assert "\n" not in found.message
    return found


NOW = datetime(2026, 11, 21, 21, 0, tzinfo=UTC)


def test_a_job_that_gets_no_pod_is_waited_for_since_that_was_seen() -> None:
    job, pods = recorded("no_pod")  # its service account is missing
    assert pods == []
    first = asked(job, [], now=NOW)
    assert (first.reason, first.since, first.patience, first.retry) == ("NoPod", NOW, 1000, True)
    assert first.usual
    assert "kubectl get events --field-selector involvedObject.name=no-pod-" in first.message
    later = asked(job, [], now=NOW + timedelta(seconds=700), before=first)
    assert later.since == NOW
    outcome = later.given_up(NOW + timedelta(seconds=1000))
    assert (outcome.reason, outcome.retry, outcome.given_up) == ("NoPod", True, True)
    job["metadata"]["namespace"] = "models"
    assert (
        "kubectl --namespace models get events --field-selector involvedObject.name=no-pod-" in asked(job, []).message
    )


@pytest.mark.parametrize("gone", [{"phase": "Failed"}, {"phase": "Running"}])
def test_between_two_pods_kubernetes_is_given_its_own_time(gone: dict[str, Any]) -> None:
    job, (pod,) = recorded("running")
    pod["status"].update(gone)
    pod["deleted"] = gone["phase"] == "Running"
    found = asked(job, [pod])
    assert (found.reason, found.patience) == ("NoPod", 1600)
    assert "no other pod" in found.message


def test_a_job_whose_pod_succeeded_waits_for_nothing() -> None:
    job, (pod,) = recorded("running")
    pod["status"]["phase"] = "Succeeded"
    assert waiting_for(job, [pod], SETTINGS) is None


def test_a_pod_that_does_not_end_is_waited_for_since_it_was_to_end() -> None:
    job, (pod,) = recorded("running")
    pod["metadata"]["deletionTimestamp"] = "2026-11-21T21:02:00Z"  # with the grace period
    found = asked(job, [pod], now=NOW)
    assert (found.reason, found.since, found.usual) == ("Terminating", at("2026-11-21T21:02:00+00:00"), True)
    assert found.left(NOW) == 1120
    assert "does not end: node-1 does not answer" in found.message
    outcome = found.given_up(NOW + timedelta(seconds=1120))
    assert (outcome.retry, outcome.given_up) == (True, True)
    assert outcome.message.endswith("(waited 1000 s)")
    pod["deleted"] = True
    assert asked(job, [pod]).reason == "NoPod"


def test_a_pod_that_does_not_end_is_no_matter_where_another_runs() -> None:
    job, (old,) = recorded("running")
    _, (new,) = recorded("running")
    old["metadata"]["deletionTimestamp"] = "2026-11-21T21:02:00Z"
    assert waiting_for(job, [old, new], SETTINGS) is None


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


@pytest.mark.parametrize("name", ["no_image", "no_secret"])
def test_a_trouble_is_waited_for_since_it_was_seen(name: str) -> None:
    job, pods = recorded(name)
    first = asked(job, pods, now=NOW)
    assert first.since == NOW
    assert asked(job, pods, now=NOW + timedelta(seconds=50), before=first).since == NOW
    other = Waiting("Starting", "Pod p is being started.", NOW)
    assert asked(job, pods, now=NOW + timedelta(seconds=50), before=other).since == NOW + timedelta(seconds=50)


def test_a_pod_that_only_starts_is_waited_for_as_long_as_for_a_node() -> None:
    job, (pod,) = recorded("no_image")
    fetch = state(pod, "fetch")["terminated"]["finishedAt"]
    state(pod, "work")["waiting"] = {"reason": "PodInitializing"}
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert (found.reason, found.since, found.patience) == ("Starting", at(fetch), 1000)
    assert "starts its next container" in found.message
    assert found.usual
    pod["status"] = {"phase": "Pending"}
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert found.message.endswith("is being started.")
    assert found.since == at(pod["metadata"]["creationTimestamp"])


def test_the_wait_for_a_node_is_no_wait_for_a_container() -> None:
    job, (pod,) = recorded("no_image")
    pod["metadata"]["creationTimestamp"] = "2026-11-21T08:00:00Z"
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-21T19:59:59Z"}
    pod["status"] = {"phase": "Pending", "conditions": [placed], "startTime": "2026-11-21T20:00:00Z"}
    assert asked(job, [pod]).since == at("2026-11-21T20:00:00Z")
    del pod["status"]["startTime"]  # its kubelet has not answered
    assert asked(job, [pod]).since == at("2026-11-21T19:59:59Z")
    placed["status"] = "False"
    assert (asked(job, [pod]).reason, asked(job, [pod]).since) == ("Unschedulable", at("2026-11-21T08:00:00Z"))


def test_a_gate_is_borne_without_end() -> None:
    job, (pod,) = recorded("no_node")
    for condition in pod["status"]["conditions"]:
        condition["reason"] = "SchedulingGated"
    found = waiting_for(job, [pod], SETTINGS)
    assert found is not None
    assert (found.reason, found.patience) == ("SchedulingGated", None)


def test_a_node_is_waited_for_since_the_gate_was_opened() -> None:
    job, (pod,) = recorded("no_node")
    made, opened = at("2026-11-21T08:00:00Z"), at("2026-11-21T10:00:00Z")
    pod["metadata"]["creationTimestamp"] = made.isoformat()
    (placed,) = [each for each in pod["status"]["conditions"] if each["type"] == "PodScheduled"]
    no_node, placed["reason"] = placed["reason"], "SchedulingGated"
    gated = asked(job, [pod], now=opened)
    placed["reason"] = no_node
    first = asked(job, [pod], before=gated, now=opened)
    assert (first.reason, first.left(opened)) == ("Unschedulable", 1000)
    later = asked(job, [pod], before=first, now=opened + timedelta(seconds=900))
    assert later.since == opened
    _, (other,) = recorded("no_node")
    other["metadata"] |= {"name": "another", "creationTimestamp": "2026-11-21T11:00:00Z"}
    assert asked(job, [pod, other], before=later).since == at("2026-11-21T11:00:00Z"), "each pod's wait is another"


def test_the_newest_pod_counts() -> None:
    job, (old,) = recorded("no_node")
    _, (new,) = recorded("running")
    old["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    assert waiting_for(job, [old, new], SETTINGS) is None


def test_a_container_of_others_that_runs_is_no_wait() -> None:
    job, (pod,) = recorded("running")
    for each in pod["status"]["initContainerStatuses"]:
        each["state"] = {"waiting": {"reason": "PodInitializing"}}
    extra = {"name": "extra", "state": {"running": {}}}
    pod["status"]["initContainerStatuses"].append(extra)
    assert waiting_for(job, [pod], SETTINGS) is None
    pod["spec"]["initContainers"].append({"name": "extra", "restartPolicy": "Always"})
    assert asked(job, [pod]).reason == "Starting", "a sidecar runs whatever becomes of the rest"


def test_what_goes_on_beside_publish_is_borne_for_a_minute() -> None:
    job, (pod,) = recorded("running")
    over = {"terminated": {"exitCode": 0, "finishedAt": "2026-11-21T20:59:30Z"}}
    pod["status"]["containerStatuses"] = [
        {"name": "publish", "state": over},
        {"name": "proxy", "state": {"running": {}}},
    ]
    found = asked(job, [pod], now=NOW)
    assert (found.reason, found.left(NOW)) == ("Lingering", 30)
    assert "goes on: proxy still runs." in found.message
    pod["spec"]["containers"].append({"name": "proxy", "restartPolicy": "Always"})
    assert waiting_for(job, [pod], SETTINGS, now=NOW) is None


def test_a_container_of_somebody_else_holds_nothing_up() -> None:
    job, (pod,) = recorded("running")
    waits: dict[str, Any] = {"name": "sidecar", "state": {"waiting": {"reason": "ErrImagePull"}}}
    pod["status"]["containerStatuses"].append(waits)
    assert waiting_for(job, [pod], SETTINGS) is None
