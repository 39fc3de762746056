"""What a worker does with Jobs: begun by several, each is made once; ended by several, no other one is."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_kitops.cluster.job import is_held, mounted_by
from airflow_provider_kitops.cluster.names import OUTCOME, REPORTED, TaskKey
from airflow_provider_kitops.cluster.outcome import Outcome
from airflow_provider_kitops.hooks._jobs import JobHandle, Jobs
from airflow_provider_kitops.oci.errors import (
    ClusterUnavailable,
    Conflict,
    Forbidden,
    InvalidInput,
    KitopsError,
    NotFound,
)
from airflow_provider_kitops.workload.mounts import DOCKER_CONFIG
from tests.fake_kubernetes import Asked, FakeKubernetes, fake_kubernetes_in_a_thread

from .jobs_world import PASSWORD, TASK_KEY, jobs_of, no_waiting, objects_of, pod_of

TOKEN = "token-of-the-worker"
ENDED = Outcome("ProgramFailed", "work ended with exit code 3")
GIVEN_UP = Outcome("Unschedulable", "No node takes pod p: 0/1 nodes", retry=True, given_up=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    with fake_kubernetes_in_a_thread() as running:
        running.token = TOKEN
        yield running


@pytest.fixture
def jobs(fake: FakeKubernetes) -> Jobs:
    return jobs_of(fake.kubeconfig)


def refusing(kind: str, status: int) -> Any:
    return lambda asked: status if asked.kind == kind else None


def started(jobs: Jobs, name: str = "a", **settings: Any) -> JobHandle:
    return JobHandle.of(jobs.start(objects_of(name, **settings), run=True))


def test_a_job_is_made_suspended_then_what_it_mounts_and_then_it_is_let_run(fake: FakeKubernetes, jobs: Jobs) -> None:
    job = jobs.start(objects_of(), run=True)
    assert [each.kind for each in fake.asked] == ["create jobs", "create configmaps", "create secrets", "patch"]
    assert [each.query.get("fieldValidation") for each in fake.asked] == ["Strict"] * 3 + [None]
    made = fake.asked[0].body
    assert made is not None
    assert made["spec"]["suspend"] is True
    there = fake.things("jobs")["a"]
    assert there["spec"]["suspend"] is False
    assert (job["metadata"]["uid"], job["metadata"]["name"]) == (there["metadata"]["uid"], "a")
    owner = {"kind": "Job", "name": "a", "uid": there["metadata"]["uid"], "controller": True}
    for resource in ("configmaps", "secrets"):
        (thing,) = fake.things(resource).values()
        assert thing["metadata"]["name"] == mounted_by(there)
        (its,) = thing["metadata"]["ownerReferences"]
        assert owner.items() <= its.items()
    (secret,) = fake.things("secrets").values()
    assert base64.b64decode(secret["data"][DOCKER_CONFIG]).decode() == PASSWORD


def test_a_job_without_credentials_has_no_secret(fake: FakeKubernetes, jobs: Jobs) -> None:
    jobs.start(objects_of(secrets={}), run=True)
    assert fake.things("secrets") == {}
    assert fake.things("jobs")["a"]["spec"]["suspend"] is False


def test_a_job_in_a_queue_is_not_let_run(fake: FakeKubernetes, jobs: Jobs) -> None:
    jobs.start(objects_of(queue="team"), run=True)
    assert fake.things("jobs")["a"]["spec"]["suspend"] is True
    assert fake.count("patch") == 0
    assert len(fake.things("secrets")) == 1


@pytest.mark.parametrize("kind", ["create configmaps", "create secrets", "patch"])
def test_a_second_start_of_an_attempt_completes_what_a_killed_worker_left(
    fake: FakeKubernetes, jobs: Jobs, kind: str
) -> None:
    fake.status = refusing(kind, 403)
    with pytest.raises(Forbidden):
        jobs.start(objects_of(mounted="first"), run=True)
    fake.status = lambda asked: None
    job = jobs.start(objects_of(mounted="second"), run=True)
    assert fake.count("create jobs") == 2
    assert fake.things("jobs").keys() == {"a"}
    assert fake.things("jobs")["a"]["spec"]["suspend"] is False
    assert mounted_by(job) == "first"
    assert fake.things("configmaps").keys() == fake.things("secrets").keys() == {"first"}


def other(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same Job, but not to be gone on with, by why not."""

    def changed(**labels: str) -> dict[str, Any]:
        return {**job, "metadata": {**job["metadata"], "labels": {**job["metadata"]["labels"], **labels}}}

    other_work = objects_of(command="another").job["metadata"]["labels"]
    other_task = objects_of(task=TaskKey("dag", "run", "task", 1)).job["metadata"]["labels"]
    return {
        "reported": changed(**{REPORTED: "true"}),
        "of other work": changed(**other_work),
        "of another task": changed(**other_task),
        "of nobody": {**job, "metadata": {**job["metadata"], "labels": None}},
        "being deleted": {**job, "metadata": {**job["metadata"], "deletionTimestamp": "2026-11-21T20:00:00Z"}},
    }


@pytest.mark.parametrize("why", ["reported", "of other work", "of another task", "of nobody", "being deleted"])
def test_another_job_of_the_same_name_is_left_alone(fake: FakeKubernetes, jobs: Jobs, why: str) -> None:
    objects = objects_of()
    there = other({**objects.job, "metadata": {**objects.job["metadata"], "uid": "uid-of-another"}})[why]
    fake.put_job(there)
    with pytest.raises(Conflict, match=r"^Another Job a is in namespace models already\.$"):
        jobs.start(objects, run=True)
    assert [each.kind for each in fake.asked] == ["create jobs", "read"]
    assert fake.things("jobs") == {"a": there}


def test_a_job_that_went_away_while_another_was_made_is_a_conflict(fake: FakeKubernetes, jobs: Jobs) -> None:
    fake.status = refusing("create jobs", 409)
    with pytest.raises(Conflict, match="Another Job a"):
        jobs.start(objects_of(), run=True)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_job_that_is_deleted_before_it_runs_is_worth_another_try(
    fake: FakeKubernetes, jobs: Jobs, replaced: bool
) -> None:
    def delete(asked: Asked) -> None:
        if asked.kind == "patch":
            job = fake.things("jobs")["a"]
            fake.delete_job("a")
            if replaced:
                fake.put_job({**job, "metadata": {**job["metadata"], "uid": "uid-of-another"}})

    fake.status = delete
    with pytest.raises(ClusterUnavailable, match=r"^The Job a was deleted before it ran\.$"):
        jobs.start(objects_of(), run=True)
    assert fake.count("patch") == 1
    assert all(job["spec"]["suspend"] for job in fake.things("jobs").values())


def test_a_namespace_that_is_not_there_is_named(fake: FakeKubernetes, jobs: Jobs) -> None:
    with pytest.raises(NotFound) as caught:
        jobs.start(objects_of(namespace="nowhere"), run=True)
    said = 'Cannot create the Job a in namespace nowhere: namespaces "nowhere" not found'
    assert str(caught.value) == said


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_make_jobs_is_told_where_to_look(fake: FakeKubernetes, jobs: Jobs, status: int) -> None:
    fake.status = refusing("create jobs", status)
    fake.message = 'jobs.batch is forbidden: User "airflow" cannot create resource "jobs".'
    with pytest.raises(Forbidden) as caught:
        jobs.start(objects_of(), run=True)
    assert not caught.value.transient
    assert caught.value.message == f"Cannot create the Job a in namespace models: {fake.message}"
    told = "the cluster does not know who asks" if status == 401 else "what Airflow's account must be allowed"
    assert told in caught.value.hint.lower().replace("airflow's", "Airflow's")


@pytest.mark.parametrize(
    "message",
    [
        'jobs.batch "a" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1, used: 5, limited: 5',
        "unable to create new content in namespace models because it is being terminated",
    ],
)
def test_what_the_namespace_has_no_room_for_is_worth_another_try(
    fake: FakeKubernetes, jobs: Jobs, message: str
) -> None:
    fake.status = refusing("create jobs", 403)
    fake.message = message
    with pytest.raises(ClusterUnavailable) as caught:
        jobs.start(objects_of(), run=True)
    assert caught.value.transient
    assert message in caught.value.message
    assert "tried again" in caught.value.hint


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_cluster_does_not_take_is_the_settings_fault(fake: FakeKubernetes, jobs: Jobs, status: int) -> None:
    fake.status = refusing("create jobs", status)
    fake.message = 'Job.batch "a" is invalid:\n  spec.template.spec.containers[0].image: Required value'
    with pytest.raises(InvalidInput) as caught:
        jobs.start(objects_of(), run=True)
    said = "Cannot create the Job a in namespace models: "
    said += 'Job.batch "a" is invalid: spec.template.spec.containers[0].image: Required value. Correct job.'
    assert str(caught.value) == said


def test_an_api_that_is_away_for_a_moment_is_asked_again(fake: FakeKubernetes, jobs: Jobs) -> None:
    fake.status = lambda asked: 503 if fake.count(asked.kind) < 3 else None
    jobs.start(objects_of(), run=True)
    assert {kind: fake.count(kind) for kind in ("create jobs", "create configmaps", "create secrets", "patch")} == {
        "create jobs": 3,
        "create configmaps": 3,
        "create secrets": 3,
        "patch": 3,
    }
    assert fake.things("jobs")["a"]["spec"]["suspend"] is False


def test_an_api_that_stays_away_is_worth_another_try(fake: FakeKubernetes, jobs: Jobs) -> None:
    fake.status = lambda asked: 503
    with pytest.raises(ClusterUnavailable, match="Cannot create the Job a in namespace models: create jobs refused"):
        jobs.start(objects_of(), run=True)
    assert fake.count("create jobs") == 5


def test_a_cluster_that_nobody_reaches_is_worth_another_try() -> None:
    with fake_kubernetes_in_a_thread() as gone:
        kubeconfig = gone.kubeconfig
    with pytest.raises(ClusterUnavailable, match="Cannot read the Job a in namespace models: "):
        jobs_of(kubeconfig).get("models", "a")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500])
@pytest.mark.parametrize("kind", ["create secrets", "patch"])
def test_no_error_tells_credentials(
    fake: FakeKubernetes, jobs: Jobs, kind: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    fake.status = refusing(kind, status)
    with caplog.at_level(logging.INFO), pytest.raises(KitopsError) as caught:
        jobs.start(objects_of(), run=True)
    shown = f"{caught.value!r} {caught.value} {caplog.text}"
    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), TOKEN):
        assert secret not in shown


def test_a_job_that_is_not_there_is_none(jobs: Jobs) -> None:
    assert jobs.get("models", "a") is None


def test_the_jobs_of_a_task_are_told_the_newest_first(fake: FakeKubernetes, jobs: Jobs) -> None:
    for name, hour in (("old", "08"), ("new", "20"), ("middle", "12")):
        job = objects_of(name).job
        created = f"2026-11-21T{hour}:00:00Z"
        fake.put_job({**job, "metadata": {**job["metadata"], "uid": name, "creationTimestamp": created}})
    started(jobs, "other", task=TaskKey("dag", "run", "other"))
    found = jobs.of_task("models", TASK_KEY.label)
    assert [job["metadata"]["name"] for job in found] == ["new", "middle", "old"]


def test_the_pods_of_a_job_are_not_those_of_an_earlier_one_of_its_name(fake: FakeKubernetes, jobs: Jobs) -> None:
    first = jobs.start(objects_of(), run=True)
    fake.put_pod(pod_of(first, name="earlier"))
    fake.delete_job("a")
    job = jobs.start(objects_of(), run=True)
    fake.put_pod(pod_of(job, name="its"))
    fake.put_pod(pod_of(jobs.start(objects_of("b"), run=True), name="of-another"))
    assert [pod["metadata"]["name"] for pod in jobs.pods(job)] == ["its"]
    assert [pod["metadata"]["name"] for pod in jobs.pods(first)] == ["earlier"]


def test_the_pods_of_a_task_are_those_of_all_its_jobs_that_have_not_ended(fake: FakeKubernetes, jobs: Jobs) -> None:
    for name in ("a", "b"):
        job = jobs.start(objects_of(name), run=True)
        for phase in ("Pending", "Running", "Succeeded", "Failed"):
            fake.put_pod(pod_of(job, name=f"{name}-{phase}", phase=phase))
    fake.put_pod(pod_of(jobs.start(objects_of("c", task=TaskKey("dag", "run", "other")), run=True), name="of-another"))
    found = {pod["metadata"]["name"] for pod in jobs.pods_of_task("models", TASK_KEY.label)}
    assert found == {"a-Pending", "a-Running", "b-Pending", "b-Running"}


def test_a_job_is_deleted_with_all_that_belongs_to_it(fake: FakeKubernetes, jobs: Jobs) -> None:
    job = jobs.start(objects_of(), run=True)
    fake.put_pod(pod_of(job))
    kept = started(jobs, "b")
    jobs.delete(JobHandle.of(job))
    assert fake.things("jobs").keys() == {kept.name}
    assert fake.things("pods") == {}
    assert fake.things("configmaps").keys() == fake.things("secrets").keys() == {"b-0123abcd"}


def test_deleting_leaves_another_job_of_the_name(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)
    jobs.delete(JobHandle(handle.namespace, handle.name, "uid-of-one-before"))
    assert fake.things("jobs").keys() == {"a"}
    assert fake.count("delete jobs") == 1, "it is the cluster that knows, and it is not asked again"


def test_deleting_what_is_gone_is_no_error(fake: FakeKubernetes, jobs: Jobs) -> None:
    jobs.delete(JobHandle("models", "gone", "uid"))
    assert fake.count("delete jobs") == 1


def test_deleting_what_may_not_be_deleted_is_told(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)
    fake.status = refusing("delete jobs", 403)
    with pytest.raises(Forbidden, match="Cannot delete the Job a in namespace models: delete jobs refused"):
        jobs.delete(handle)
    assert fake.things("jobs").keys() == {"a"}


def test_a_job_that_ended_is_kept_as_it_is_without_its_credentials(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)
    jobs.keep(handle, ENDED, for_ever=False)
    there = fake.things("jobs")["a"]
    assert there["metadata"]["labels"][REPORTED] == "true"
    assert "activeDeadlineSeconds" not in there["spec"]
    assert fake.things("secrets") == {}
    assert fake.things("configmaps").keys() == {mounted_by(there)}


def test_a_job_that_runs_is_ended_when_it_is_kept(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)
    jobs.keep(handle, GIVEN_UP, for_ever=False)
    there = fake.things("jobs")["a"]
    assert there["metadata"]["labels"][REPORTED] == "true"
    assert there["spec"]["activeDeadlineSeconds"] == 1
    assert there["spec"]["suspend"] is False
    assert Outcome.of_json(json.loads(there["metadata"]["annotations"][OUTCOME])) == GIVEN_UP
    assert fake.things("secrets") == {}
    assert len(fake.things("configmaps")) == 1


def test_a_job_that_is_kept_for_ever_is_kept_from_kubernetes_too(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)
    assert fake.things("jobs")["a"]["spec"]["ttlSecondsAfterFinished"] == 86400, "should nobody tell its end"
    jobs.keep(handle, ENDED, for_ever=False)
    assert fake.things("jobs")["a"]["spec"]["ttlSecondsAfterFinished"] == 86400
    jobs.keep(handle, GIVEN_UP, for_ever=True)
    there = fake.things("jobs")["a"]
    assert "ttlSecondsAfterFinished" not in there["spec"]
    assert there["spec"]["activeDeadlineSeconds"] == 1


@pytest.mark.parametrize("again", [False, True])
def test_a_job_that_others_are_to_let_run_is_left_suspended(fake: FakeKubernetes, jobs: Jobs, again: bool) -> None:
    objects = objects_of()
    job = jobs.start(objects, run=False)
    if again:
        jobs.complete(job, objects, run=False)
    assert is_held(fake.things("jobs")["a"])
    assert fake.count("patch") == 0


def test_a_job_that_somebody_suspended_stays_so(fake: FakeKubernetes, jobs: Jobs) -> None:
    started(jobs)
    job = fake.things("jobs")["a"]
    fake.put_job({**job, "spec": {**job["spec"], "suspend": True}})
    jobs.complete(fake.things("jobs")["a"], objects_of(), run=True)
    assert fake.things("jobs")["a"]["spec"]["suspend"] is True


def test_a_job_of_which_nothing_ever_ran_is_not_kept(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs, queue="team")
    jobs.keep(handle, GIVEN_UP, for_ever=False)
    assert [fake.things(resource) for resource in ("jobs", "secrets", "configmaps")] == [{}, {}, {}]


def test_a_job_that_kueue_suspended_after_it_had_ended_is_kept(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs, queue="team")
    jobs.keep(handle, ENDED, for_ever=False)
    assert fake.things("jobs")["a"]["metadata"]["labels"][REPORTED] == "true"


@pytest.mark.parametrize("outcome", [GIVEN_UP, ENDED])
def test_keeping_leaves_another_job_of_the_name(fake: FakeKubernetes, jobs: Jobs, outcome: Outcome) -> None:
    started(jobs)
    asked = len(fake.asked)
    jobs.keep(JobHandle("models", "a", "uid-of-one-before"), outcome, for_ever=False)
    jobs.keep(JobHandle("models", "gone", "uid"), outcome, for_ever=False)
    assert [each.kind for each in fake.asked[asked:]] == ["read", "read"]
    assert REPORTED not in fake.things("jobs")["a"]["metadata"]["labels"]
    assert len(fake.things("secrets")) == 1


def test_a_job_that_is_replaced_while_it_is_kept_is_not_ended_for_another(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)

    def replace(asked: Asked) -> None:
        if asked.kind == "patch":
            job = fake.things("jobs")["a"]
            fake.put_job({**job, "metadata": {**job["metadata"], "uid": "uid-of-another"}})

    fake.status = replace
    jobs.keep(handle, GIVEN_UP, for_ever=False)
    there = fake.things("jobs")["a"]
    assert "activeDeadlineSeconds" not in there["spec"]
    assert REPORTED not in there["metadata"]["labels"]
    assert fake.things("secrets") == {}, "the first one's, whose name no other has"


def test_nothing_runs_on_though_the_credentials_cannot_be_removed(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)
    fake.status = refusing("delete secrets", 403)
    with pytest.raises(Forbidden, match="Cannot delete the Secret a-0123abcd in namespace models"):
        jobs.keep(handle, GIVEN_UP, for_ever=False)
    assert fake.things("jobs")["a"]["spec"]["activeDeadlineSeconds"] == 1


def test_credentials_that_are_gone_already_are_no_error(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs, secrets={})
    jobs.keep(handle, ENDED, for_ever=False)
    assert fake.count("delete secrets") == 1
    assert fake.things("jobs")["a"]["metadata"]["labels"][REPORTED] == "true"


def test_what_fails_beside_somebody_elses_change_is_done_again(fake: FakeKubernetes, jobs: Jobs) -> None:
    handle = started(jobs)
    fake.status = lambda asked: 409 if asked.kind == "delete secrets" and fake.count(asked.kind) < 3 else None
    jobs.keep(handle, ENDED, for_ever=False)
    assert fake.things("secrets") == {}


def test_the_log_of_debugging_tells_no_credentials(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        jobs.start(objects_of(), run=True)
    assert "response body" in caplog.text  # of the others
    assert base64.b64encode(PASSWORD.encode()).decode() not in caplog.text
    assert PASSWORD not in caplog.text
