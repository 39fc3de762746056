"""How a Job ended, told of what a real cluster said: the right word, one line, and whether to try again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_kitops.cluster.names import OUTCOME
from airflow_provider_kitops.cluster.outcome import Outcome, failure_of, outcome_of

from .recordings import Recording, recorded, state

DIGEST = "sha256:" + "c" * 64


def outcome(recording: Recording, **options: Any) -> Outcome:
    found = outcome_of(*recording, **options)
    assert found is not None
    assert "\n" not in found.message
    return found


@pytest.mark.parametrize(
    ("name", "reason", "retry", "container", "code", "said"),
    [
        ("no_result", "NoResult", False, None, None, "told no digest: nothing"),
        ("exit_3", "ProgramFailed", False, "work", 3, "work ended with exit code 3: "),
        ("gpu_memory", "CudaOutOfMemory", False, "work", 1, "CUDA out of memory. Tried to allocate 2 GiB."),
        ("memory", "OOMKilled", False, "work", 137, "work used more memory than its limit of 24Mi and was killed"),
        ("killed", "Killed", True, "work", 137, "killed by SIGKILL"),
        ("terminated", "Terminated", True, "work", 143, "ended by SIGTERM"),
        ("no_such_program", "CannotStart", False, "work", 128, "/no/such/program: no such file or directory"),
        ("fetch_failed", "StepUnavailable", True, "fetch", 7, "Cannot reach the registry: connection refused."),
        ("publish_crashed", "ProgramFailed", False, "publish", 1, "publish ended with exit code 1: No module named x"),
        ("deadline", "DeadlineExceeded", True, None, None, "ran past its deadline of 5 s"),
        ("deleted_pod", "Terminated", True, "work", 143, "ended by SIGTERM"),
    ],
)
def test_how_a_job_failed(
    name: str, reason: str, retry: bool, container: str | None, code: int | None, said: str
) -> None:
    found = outcome(recorded(name))
    assert (found.reason, found.retry, found.container, found.exit_code) == (reason, retry, container, code)
    assert said in found.message
    assert not found.succeeded


@pytest.mark.parametrize("name", ["running", "evicted", "no_image", "no_node", "no_secret", "suspended"])
def test_a_job_that_has_not_ended_has_no_outcome(name: str) -> None:
    assert outcome_of(*recorded(name)) is None


def test_what_was_published_is_told() -> None:
    found = outcome(recorded("complete"))
    assert found.succeeded
    assert found.result["digest"] == DIGEST
    assert found.result["metrics"] == {"loss": 0.5}


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "BackoffLimitExceeded", "PodFailurePolicy"])
def test_what_was_published_stays_so_whatever_came_of_the_job(reason: str) -> None:
    job, (pod,) = recorded("complete")
    failed = [{"type": "Failed", "status": "True", "reason": reason}]
    pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    found = outcome(Recording({**job, "status": {"conditions": failed}}, [pod]))
    assert (found.reason, found.result["digest"]) == ("Completed", DIGEST)


def test_a_digest_that_is_gone_is_made_again() -> None:
    job, _ = recorded("complete")
    found = outcome(Recording(job, []))
    assert (found.reason, found.retry, found.succeeded) == ("NoResult", True, False)


def test_an_eviction_is_a_disruption() -> None:
    _, pods = recorded("evicted")
    found = failure_of(pods[0])
    assert found is not None
    assert (found.reason, found.retry) == ("Disrupted", True)
    assert found.message == f"Pod {pods[0]['metadata']['name']} was evicted: Eviction API: evicting"


def test_the_newest_pod_tells_how_the_job_ended() -> None:
    evicted, (job, pods) = recorded("evicted").pods[0], recorded("exit_3")
    evicted["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    assert outcome(Recording(job, [*pods, evicted])).reason == "ProgramFailed"
    assert outcome(Recording(job, [evicted, *pods])).reason == "ProgramFailed"


def test_the_newest_pod_tells_what_was_published() -> None:
    evicted, (job, pods) = recorded("evicted").pods[0], recorded("complete")
    assert outcome(Recording(job, [evicted, *pods])).succeeded


def test_exit_codes_that_are_worth_a_retry_are_the_users_choice() -> None:
    assert outcome(recorded("exit_3"), retry_exit_codes=(3,)).retry
    assert not outcome(recorded("exit_3"), retry_exit_codes=(4,)).retry


def test_the_last_lines_of_the_program_are_kept() -> None:
    assert set(outcome(recorded("exit_3")).detail.splitlines()) == {"ValueError: no rows", "reading the data"}


def test_a_job_that_is_gone_or_going_was_deleted() -> None:
    assert outcome(Recording(None, [])).reason == "JobDeleted"  # type: ignore[arg-type]
    job, pods = recorded("running")
    job["metadata"]["deletionTimestamp"] = "2026-11-21T20:00:00Z"
    found = outcome(Recording(job, pods))
    assert (found.reason, found.retry) == ("JobDeleted", True)


def test_a_job_that_is_gone_may_have_published() -> None:
    _, (pod,) = recorded("complete")
    found = outcome(Recording(None, [pod]))  # type: ignore[arg-type]
    assert (found.succeeded, found.result["digest"]) == (True, DIGEST)
    job, _ = recorded("running")
    job["metadata"]["deletionTimestamp"] = "2026-11-21T20:00:00Z"
    assert outcome(Recording(job, [pod])).succeeded


def test_a_job_that_is_gone_may_have_failed_for_good() -> None:
    _, (pod,) = recorded("exit_3")
    ended = state(pod, "work")["terminated"]
    ended["finishedAt"] = "2026-11-21T20:00:00Z"
    gone = Recording(None, [pod])  # type: ignore[arg-type]
    assert outcome(gone).reason == "ProgramFailed"
    # A day later it is removed with its Job.
    pod["metadata"] |= {"deletionTimestamp": "2026-11-22T20:00:00Z", "deletionGracePeriodSeconds": 0}
    assert outcome(gone).reason == "ProgramFailed"
    assert outcome(gone, retry_exit_codes=(3,)).reason == "JobDeleted"
    # It ended because it was told to.
    pod["metadata"] |= {"deletionTimestamp": "2026-11-21T20:02:00Z", "deletionGracePeriodSeconds": 120}
    assert outcome(gone).reason == "JobDeleted"
    evicted = recorded("evicted").pods[0]
    evicted["metadata"]["creationTimestamp"] = "2030-01-01T00:00:00Z"
    del pod["metadata"]["deletionTimestamp"]
    assert outcome(Recording(None, [pod, evicted])).reason == "JobDeleted"  # type: ignore[arg-type]


def test_a_job_that_completed_before_it_was_deleted_did_complete() -> None:
    job, pods = recorded("complete")
    job["metadata"]["deletionTimestamp"] = "2026-11-21T20:00:00Z"
    assert outcome(Recording(job, pods)).succeeded


@pytest.mark.parametrize("code", [137, 1])
def test_what_publish_told_is_published_though_it_was_killed_after_that(code: int) -> None:
    job, (pod,) = recorded("exit_3")
    told = json.dumps({"digest": DIGEST})
    pod["status"]["containerStatuses"] = [
        {"name": "publish", "state": {"terminated": {"exitCode": code, "reason": "Error", "message": told}}}
    ]
    assert outcome(Recording(job, [pod])).result == {"digest": DIGEST}


def test_a_container_of_others_that_fails_is_named() -> None:
    job, (pod,) = recorded("exit_3")
    state(pod, "work")["terminated"] |= {"exitCode": 0, "reason": "Completed"}
    extra = {"name": "extra", "state": {"terminated": {"exitCode": 5, "reason": "Error", "message": "no disk"}}}
    pod["status"]["initContainerStatuses"].append(extra)
    found = outcome(Recording(job, [pod]))
    assert (found.reason, found.container, found.exit_code) == ("ProgramFailed", "extra", 5)
    assert found.message == "extra ended with exit code 5: no disk"


def test_the_last_lines_mislead_nobody() -> None:
    job, (pod,) = recorded("exit_3")
    said = 'KITOPS-PROGRESS {"phase": "load"}\n::group::hidden\nx\u202ertl \x9bcsi ::endgroup::\nlast\u202e'
    state(pod, "work")["terminated"]["message"] = said
    found = outcome(Recording(job, [pod]))
    assert found.detail.splitlines() == ["\ufffdgroup::hidden", "x\ufffdrtl \ufffdcsi \ufffdendgroup::", "last\ufffd"]
    assert found.message == "work ended with exit code 3: last\ufffd"


GIVEN_UP = Outcome("ImagePull", "work has no image x: no such image", container="work", given_up=True)


def ended_by(annotation: str) -> Outcome:
    """The outcome of a Job with this annotation, which its deadline ended."""
    job, pods = recorded("deadline")
    job["metadata"].setdefault("annotations", {})[OUTCOME] = annotation
    return outcome(Recording(job, pods))


def test_why_a_job_was_given_up_is_known_to_whoever_follows_it_next() -> None:
    assert ended_by(json.dumps(GIVEN_UP.to_json())) == replace(GIVEN_UP, given_up=False)
    newer = {**GIVEN_UP.to_json(), "field_of_a_later_version": 1}
    assert ended_by(json.dumps(newer)).reason == "ImagePull"


@pytest.mark.parametrize("annotation", ["", "{", "[]", "{}", '{"reason": "ImagePull"}', "1e999"])
def test_what_does_not_say_why_a_job_was_given_up_is_not_taken_for_it(annotation: str) -> None:
    assert ended_by(annotation).reason == "DeadlineExceeded"


def test_no_annotation_makes_a_success() -> None:
    told = Outcome("Completed", "Published x.", succeeded=True, result={"digest": DIGEST})
    assert not ended_by(json.dumps(told.to_json())).succeeded


def test_what_was_published_while_its_job_was_given_up_is_published() -> None:
    job, _ = recorded("deadline")
    _, pods = recorded("complete")
    job["metadata"].setdefault("annotations", {})[OUTCOME] = json.dumps(GIVEN_UP.to_json())
    assert outcome(Recording(job, pods)).succeeded


def test_a_failed_job_without_pods_says_what_the_job_says() -> None:
    job, _ = recorded("exit_3")
    found = outcome(Recording(job, []))
    assert (found.reason, found.retry) == ("JobFailed", True)
    assert "failed with exit code 3" in found.message


def test_where_no_limit_is_known_it_was_the_nodes_memory() -> None:
    job, (pod,) = recorded("memory")
    del pod["spec"]
    assert "more memory than its node had" in outcome(Recording(job, [pod])).message


# What the cluster for tests does not do, as the sources of the kubelet and of containerd have it.


@pytest.mark.parametrize(("reason", "code"), [("Unknown", 255), ("ContainerStatusUnknown", 137)])
def test_a_container_whose_node_was_restarted_is_lost(reason: str, code: int) -> None:
    job, (pod,) = recorded("exit_3")
    state(pod, "work")["terminated"].update(reason=reason, exitCode=code, message="")
    found = outcome(Recording(job, [pod]))
    assert (found.reason, found.retry, found.container, found.exit_code) == ("Lost", True, "work", code)


@pytest.mark.parametrize(
    ("message", "retry"),
    [
        ('Usage of EmptyDir volume "scratch" exceeds the limit "5Mi". ', False),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", False),
        ("The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. ", True),
        (None, False),
    ],
)
def test_a_pod_that_used_more_of_a_volume_than_it_may_would_do_it_again(message: str | None, retry: bool) -> None:
    job, (pod,) = recorded("terminated")
    pod["status"] |= {"reason": "Evicted", "message": message}
    found = outcome(Recording(job, [pod]))
    assert (found.reason, found.retry) == ("Evicted", retry)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("PreemptionByScheduler", "preempted"),
        ("DeletionByTaintManager", "taken off its node"),
        ("DeletionByPodGC", "its node is gone"),
        ("TerminationByKubelet", "ended by its node"),
        ("SomethingNew", "taken away (SomethingNew)"),
    ],
)
def test_what_took_a_pod_away_goes_before_how_its_program_ended(reason: str, said: str) -> None:
    _, (pod,) = recorded("exit_3")
    pod["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True", "reason": reason})
    found = failure_of(pod)
    assert found is not None
    assert (found.reason, found.retry) == ("Disrupted", True)
    assert said in found.message


def test_a_pod_that_was_never_admitted_says_why() -> None:
    pod = {
        "metadata": {"name": "p"},
        "status": {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no\nGPU is healthy"},
    }
    found = failure_of(pod)
    assert found is not None
    assert (found.reason, found.retry) == ("PodFailed", True)
    assert found.message == "Pod p failed: UnexpectedAdmissionError: no GPU is healthy"


@pytest.mark.parametrize("message", ["", "no JSON", "[]", '{"digest": 3}', "{}"])
def test_what_publish_told_must_name_a_digest(message: str) -> None:
    job, (pod,) = recorded("complete")
    state(pod, "publish")["terminated"]["message"] = message
    found = outcome(Recording(job, [pod]))
    assert (found.reason, found.succeeded, found.retry) == ("NoResult", False, False)


def test_a_step_that_says_that_a_retry_is_in_vain_is_not_tried_again() -> None:
    job, (pod,) = recorded("fetch_failed")
    told = {"error": "Cannot find the base.\nPush it.", "transient": False}
    state(pod, "fetch")["terminated"]["message"] = json.dumps(told)
    found = outcome(Recording(job, [pod]))
    assert (found.reason, found.retry) == ("StepFailed", False)
    assert found.message == "fetch failed (exit code 7): Cannot find the base. Push it."


def test_a_step_s_words_are_made_readable() -> None:
    job, (pod,) = recorded("fetch_failed")
    state(pod, "fetch")["terminated"]["message"] = json.dumps({"transient": True, "error": "a\0b"})
    assert outcome(Recording(job, [pod])).message == "fetch failed (exit code 7): a\ufffdb"


def test_a_message_stays_a_line_however_much_a_program_says() -> None:
    job, (pod,) = recorded("exit_3")
    state(pod, "work")["terminated"]["message"] = "\n".join(["x" * 5000] * 50)
    found = outcome(Recording(job, [pod]))
    assert len(found.message) < 600
    assert len(found.detail.splitlines()) == 20


@pytest.mark.parametrize("missing", ["conditions", "initContainerStatuses", "containerStatuses"])
def test_what_kubernetes_leaves_out_or_sets_to_null_is_no_error(missing: str) -> None:
    job, (pod,) = recorded("exit_3")
    pod["status"][missing] = None
    outcome(Recording(job, [pod]))
    del pod["status"][missing]
    outcome(Recording(job, [pod]))


def test_an_outcome_survives_being_an_event() -> None:
    for name in ("complete", "exit_3"):
        found = outcome(recorded(name))
        assert Outcome.of_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_no_database_takes_as_text_is_replaced() -> None:
    def pod(container: str, **terminated: Any) -> dict[str, Any]:
        key = "containerStatuses" if container == "publish" else "initContainerStatuses"
        return {"metadata": {"name": "p"}, "status": {key: [{"name": container, "state": {"terminated": terminated}}]}}

    failure = failure_of(pod("work", exitCode=1, message="first\nA\0B\x1b[31m\ud800 C"))
    assert failure is not None
    assert failure.message == "work ended with exit code 1: A\ufffdB\ufffd[31m\ufffd C"
    assert failure.detail == "first\nA\ufffdB\ufffd[31m\ufffd C"
    told = json.dumps({"digest": "sha256:1", "metrics": {"a\0": ["\ud800", 1.5]}})
    job = {"metadata": {}, "spec": {}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    outcome = outcome_of(job, [pod("publish", exitCode=0, message=told)])
    assert outcome is not None
    assert outcome.result["metrics"] == {"a\ufffd": ["\ufffd", 1.5]}
    json.dumps(outcome.to_json()).encode()


def test_a_result_that_is_no_json_is_no_result() -> None:
    status = {"name": "publish", "state": {"terminated": {"exitCode": 0, "message": '{"digest": "x", "loss": NaN}'}}}
    pod = {"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}}
    job = {"metadata": {}, "spec": {}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    outcome = outcome_of(job, [pod])
    assert outcome is not None
    assert outcome.reason == "NoResult"


def published(message: str) -> Outcome:
    job, (pod,) = recorded("complete")
    state(pod, "publish")["terminated"]["message"] = message
    return outcome(Recording(job, [pod]))


def nested(name: str, levels: int) -> Outcome:
    return published(f'{{"digest": "{DIGEST}", "{name}": ' + "[" * levels + "]" * levels + "}")


@pytest.mark.parametrize("levels", [51, 300, 900])
@pytest.mark.parametrize("name", ["metrics", "else"])
def test_what_is_nested_too_deeply_is_not_told(levels: int, name: str) -> None:
    assert nested(name, levels).result == {"digest": DIGEST, name: None}


def test_what_is_nested_too_deeply_to_be_read_is_no_result() -> None:
    assert nested("metrics", 20_000).reason == "NoResult"


@pytest.mark.parametrize("key", ["__classname__", "__id__", "__type", "__var", "__version__", "__data__"])
def test_a_message_makes_no_object_of_airflow(key: str) -> None:
    told = {"digest": DIGEST, "metrics": {"a": [{key: "airflow.models.connection.Connection"}]}, key: 1}
    found = published(json.dumps(told))
    assert found.succeeded
    assert '"__' not in json.dumps(found.to_json())
    assert found.result["metrics"] == {"a": [{key[1:]: "airflow.models.connection.Connection"}]}


def test_a_number_that_json_cannot_say_is_no_result() -> None:
    assert published(f'{{"digest": "{DIGEST}", "metrics": {{"loss": 1e999}}}}').reason == "NoResult"
