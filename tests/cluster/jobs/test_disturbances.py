"""What happens to a Job's pod from outside, while other Jobs are left alone."""

from __future__ import annotations

import json

import pytest

from tests.cluster.jobs.world import Run, World

#: A program that does nothing until it is let go, and says where it begins; SIGTERM ends it with 143.
_WAITS = """trap 'echo told to end; exit 143' TERM
n=$(cat /checkpoints/n 2>/dev/null || echo 0); echo "begins at $n"
while test $n -lt 20; do n=$((n+1)); echo $n > /checkpoints/n; echo "step $n"; sleep 0.5; done
echo $n > /out/result.txt"""


def _start(world: World, dag_id: str, name: str, **job: object) -> Run:
    settings = {"grace_period": 5, **job}
    return world.start(dag_id, **world.script(_WAITS, destination=f"made/{name}:latest", job=settings))


@pytest.fixture(scope="module")
def runs(world: World) -> dict[str, Run]:
    """All at once."""
    return {
        "evicted": _start(world, "once", "evicted"),
        "deleted": _start(world, "once", "deleted"),
        "killed": _start(world, "twice", "killed"),
        "killed for good": _start(world, "once", "killed-for-good"),
        "marked": _start(world, "once", "marked"),
        "cleared": _start(world, "once", "cleared"),
        "job deleted": _start(world, "twice", "job-deleted"),
        "worker told to end": _start(world, "on_the_worker", "told"),
    }


def test_an_evicted_pod_is_started_again_at_no_cost(runs: dict[str, Run], world: World) -> None:
    run = runs["evicted"]
    pod = run.running("work")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": run.namespace},
    }
    path = f"/api/v1/namespaces/{run.namespace}/pods/{pod}/eviction"
    world.cluster.kubectl("create", "--raw", path, "--filename=-", input=json.dumps(eviction))
    other = run.running("work", but=[pod])
    (job,) = run.jobs()
    assert job["spec"]["backoffLimit"] == 3
    assert other != pod
    assert run.answer()["digest"]
    log = run.log()
    assert f"Pod {pod} was evicted" in log
    assert "[work] told to end" in log
    assert run.task()["try_number"] == 1
    assert run.leftovers() == []


def test_a_deleted_pod_is_started_again(runs: dict[str, Run], world: World) -> None:
    run = runs["deleted"]
    pod = run.running("work")
    world.cluster.kubectl("delete", "pod", pod, f"--namespace={run.namespace}", "--wait=false")
    assert run.running("work", but=[pod]) != pod
    assert run.answer()["digest"]
    assert run.task()["try_number"] == 1
    assert run.leftovers() == []


def test_a_killed_container_fails_the_job_and_the_next_try_is_a_new_one(runs: dict[str, Run], world: World) -> None:
    run = runs["killed"]
    pod = run.running("work")
    world.cluster.kill_container(run.namespace, pod, "work")
    assert run.answer()["digest"]
    assert run.task()["try_number"] == 2
    assert "work was killed by SIGKILL (exit code 137)" in run.log(1)
    assert "Going on with the Job" not in run.log(2)
    assert run.leftovers() == []


def test_a_killed_container_without_a_retry_fails_the_task(runs: dict[str, Run], world: World) -> None:
    run = runs["killed for good"]
    world.cluster.kill_container(run.namespace, run.running("work"), "work")
    assert run.failure()["reason"] == "Killed"
    assert run.leftovers() == []


def test_a_task_that_is_marked_failed_ends_its_job(runs: dict[str, Run], world: World) -> None:
    run = runs["marked"]
    run.running("work")
    world.airflow.wait("the task to be deferred", lambda: run.state() == "deferred")
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/run"
    world.airflow.api("PATCH", path, new_state="failed")
    assert run.leftovers() == []
    assert run.state() == "failed"


def test_a_task_that_is_cleared_ends_its_job_and_starts_another(runs: dict[str, Run], world: World) -> None:
    run = runs["cleared"]
    pod = run.running("work")
    world.airflow.wait("the task to be deferred", lambda: run.state() == "deferred")
    world.airflow.api(
        "POST",
        f"dags/{run.dag_id}/clearTaskInstances",
        dry_run=False,
        dag_run_id=run.run_id,
        task_ids=["run"],
        only_failed=False,
        reset_dag_runs=True,
    )
    assert run.running("work", but=[pod]) != pod
    assert run.answer()["digest"]
    assert run.leftovers() == []


def test_a_job_that_somebody_deletes_is_told_and_tried_again(runs: dict[str, Run], world: World) -> None:
    run = runs["job deleted"]
    run.running("work")
    world.cluster.kubectl("delete", "jobs", "--all", f"--namespace={run.namespace}", "--wait=false")
    assert run.answer()["digest"]
    assert "was deleted by somebody else" in run.log(1)
    assert run.leftovers() == []


def test_a_task_that_waits_on_its_worker_ends_its_job_when_it_is_marked(runs: dict[str, Run], world: World) -> None:
    run = runs["worker told to end"]
    run.running("work")
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/run"
    world.airflow.api("PATCH", path, new_state="failed")
    assert run.leftovers() == []
    assert run.state() == "failed"
