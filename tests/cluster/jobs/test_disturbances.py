"""What happens to a Job's pod from outside, while other Jobs are left alone."""

from __future__ import annotations

import time

import pytest

from tests.cluster.jobs.gates import Gates
from tests.cluster.jobs.world import Run, World

#: A program that does nothing until its gate is open, and that SIGTERM ends with 143.
_WAITS = """trap 'echo told to end; exit 143' TERM
until wget -q -O /dev/null {gate} 2>/dev/null; do sleep 0.5; done
echo 1 > /out/result.txt"""


@pytest.fixture(scope="module")
def runs(world: World, gates: Gates) -> dict[str, Run]:
    """All at once."""

    def start(dag_id: str, name: str) -> Run:
        script = world.script(_WAITS.format(gate=gates.url(name)), destination=f"made/{name}:latest")
        return world.start(dag_id, **script, job={"grace_period": 5})

    dags = {
        "evicted": "once",
        "deleted": "once",
        "killed": "twice",
        "killed-for-good": "once",
        "marked": "once",
        "cleared": "once",
        "job-deleted": "twice",
        "told": "on_the_worker",
    }
    return {name: start(dag_id, name) for name, dag_id in dags.items()}


def test_an_evicted_pod_is_started_again_at_no_cost(runs: dict[str, Run], world: World, gates: Gates) -> None:
    run = runs["evicted"]
    pod = run.running("work")
    run.evict(pod)
    run.running("work", but=[pod])
    (job,) = run.jobs()
    assert job["status"].get("failed", 0) == 0
    gates.open("evicted")
    assert run.answer()["digest"]
    log = run.log()
    assert f"Pod {pod} was evicted" in log
    assert "[work] told to end" in log
    assert run.task()["try_number"] == 1
    assert run.leftovers() == []


def test_a_deleted_pod_is_started_again(runs: dict[str, Run], world: World, gates: Gates) -> None:
    run = runs["deleted"]
    pod = run.running("work")
    world.cluster.kubectl("delete", "pod", pod, f"--namespace={run.namespace}", "--wait=false")
    run.running("work", but=[pod])
    gates.open("deleted")
    assert run.answer()["digest"]
    assert run.task()["try_number"] == 1
    assert run.leftovers() == []


def test_a_killed_container_fails_the_job_and_the_next_try_is_a_new_one(
    runs: dict[str, Run], world: World, gates: Gates
) -> None:
    run = runs["killed"]
    pod = run.running("work")
    world.cluster.kill_container(run.namespace, pod, "work")
    gates.open("killed")
    assert run.answer()["digest"]
    assert run.task()["try_number"] == 2
    assert "work was killed by SIGKILL (exit code 137)" in run.log(1)
    assert "Going on with the Job" not in run.log(2)
    assert run.leftovers() == []


def test_a_killed_container_without_a_retry_fails_the_task(runs: dict[str, Run], world: World, gates: Gates) -> None:
    run = runs["killed-for-good"]
    world.cluster.kill_container(run.namespace, run.running("work"), "work")
    assert run.failure()["reason"] == "Killed"
    assert run.leftovers() == []


def test_a_task_that_is_marked_failed_ends_its_job(runs: dict[str, Run], world: World, gates: Gates) -> None:
    run = runs["marked"]
    run.running("work")
    world.airflow.wait("the task to be deferred", lambda: run.state() == "deferred")
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/run"
    world.airflow.api("PATCH", path, new_state="failed")
    assert run.leftovers() == []
    assert run.state() == "failed"


def test_a_task_that_is_cleared_ends_its_job_and_starts_another(
    runs: dict[str, Run], world: World, gates: Gates
) -> None:
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
    run.running("work", but=[pod])
    gates.open("cleared")
    assert run.answer()["digest"]
    assert run.leftovers() == []


def test_a_job_that_somebody_deletes_is_told_and_tried_again(runs: dict[str, Run], world: World, gates: Gates) -> None:
    run = runs["job-deleted"]
    run.running("work")
    world.cluster.kubectl("delete", "jobs", "--all", f"--namespace={run.namespace}", "--wait=false")
    gates.open("job-deleted")
    assert run.answer()["digest"]
    assert "was deleted by somebody else" in run.log(1)
    assert run.leftovers() == []


def test_a_task_that_waits_on_its_worker_ends_its_job_when_it_is_marked(
    runs: dict[str, Run], world: World, gates: Gates
) -> None:
    run = runs["told"]
    run.running("work")
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/run"
    world.airflow.api("PATCH", path, new_state="failed")
    assert run.leftovers() == []
    assert run.state() == "failed"


@pytest.mark.parametrize("number", range(3))
def test_a_task_that_is_marked_as_soon_as_it_runs_leaves_nothing_that_does(world: World, number: int) -> None:
    script = world.script("echo 1 > /out/result.txt; sleep 1000")
    run = world.start("once", **script, destination=f"made/early-{number}:latest", job={"grace_period": 1})
    run.wait("running", "deferred")
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/run"
    world.airflow.api("PATCH", path, new_state="failed")
    # Until its worker has been told, and whatever pod there was is gone.
    time.sleep(12)
    world.airflow.wait("no pod to be there", lambda: not run.pods())
    assert all(job["spec"]["suspend"] and not job["status"].get("startTime") for job in run.jobs())
    assert run.state() == "failed"


def test_a_container_beside_publish_that_goes_on_holds_up_nobody(world: World) -> None:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    proxy = {"name": "proxy", "image": world.image, "command": ["sleep", "1000"], "securityContext": security}
    script = world.script(
        """echo 1 > /out/result.txt; echo '{"big": 18446744073709551616, "huge": 1e30}' > /out/metrics.json""",
        destination="made/beside:latest",
    )
    run = world.start("once", **script, job={"pod_override": {"containers": [proxy]}, "grace_period": 1})
    answer = run.answer()
    assert answer["digest"]
    assert answer["metrics"] == {"big": str(2**64), "huge": "1e+30"}, "as numbers, they would end the triggerer"
    assert "goes on: proxy still runs." in run.log()
    assert run.leftovers() == []
