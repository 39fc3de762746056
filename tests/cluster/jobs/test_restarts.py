"""Parts of Airflow and of the cluster that end while a Job runs: it ends once, with the right result."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.cluster.jobs.world import Run, World

_SLOW = """n=0; while test $n -lt {steps}; do n=$((n+1)); echo "step $n"; sleep 0.5; done; echo $n > /out/result.txt"""


def _start(world: World, dag_id: str, name: str, steps: int = 40) -> Run:
    return world.start(dag_id, **world.script(_SLOW.format(steps=steps), destination=f"made/{name}:latest"))


def _once(run: Run, steps: int = 40) -> None:
    """The Job ran once, its log is whole, and nothing is left."""
    log = run.log()
    assert log.count("Started the Job") == 1, log
    for step in range(1, steps + 1):
        assert f"[work] step {step}\n" in log + "\n", f"step {step} is missing:\n{log}"
    assert run.leftovers() == []


def test_a_triggerer_that_is_killed_is_replaced(world: World) -> None:
    run = _start(world, "once", "triggerer", steps=90)
    run.running("work")
    world.airflow.wait("the task to be deferred", lambda: run.state() == "deferred")
    world.airflow.kill("triggerer")
    time.sleep(3)
    world.airflow.start("triggerer")
    assert run.answer()["digest"]
    _once(run, 90)


def test_a_worker_that_is_killed_is_replaced_and_goes_on_with_the_job(world: World) -> None:
    run = _start(world, "on_the_worker_twice", "worker", steps=120)
    run.running("work")
    for pid in _task_processes(world, run):
        os.kill(pid, signal.SIGKILL)
    assert run.answer()["digest"]
    log = run.log()
    assert "Going on with the Job" in log
    assert log.count("Started the Job") == 1
    assert run.task()["try_number"] == 2
    assert run.leftovers() == []


def test_an_apiserver_that_is_restarted_is_found_again(world: World) -> None:
    run = _start(world, "once", "apiserver")
    run.running("work")
    world.cluster.stop("kube-apiserver")
    time.sleep(5)
    world.cluster.start("kube-apiserver")
    assert run.answer()["digest"]
    _once(run)


def test_a_kubelet_that_is_away_for_a_moment_costs_nothing(world: World) -> None:
    run = _start(world, "once", "kubelet")
    pod = run.running("work")
    world.cluster.stop("kubelet")
    time.sleep(5)
    world.cluster.start("kubelet")
    assert run.answer()["digest"]
    assert {each["metadata"]["name"] for each in run.pods()} <= {pod}
    _once(run)


def test_a_lost_node_has_its_pod_started_again(world: World) -> None:
    # Half a minute is long for a test; a Job of the provider waits for five minutes, as Kubernetes does by default.
    lost = [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
        for taint in ("not-ready", "unreachable")
    ]
    run = world.start(
        "once",
        **world.script(
            _SLOW.format(steps=60), destination="made/node:latest", job={"tolerations": lost, "grace_period": 1}
        ),
    )
    pod = run.running("work")
    world.cluster.stop("kubelet")

    def leaves() -> bool:
        return any(each["metadata"].get("deletionTimestamp") for each in run.pods())

    world.airflow.wait("the pod to be taken off the node", leaves)
    world.cluster.start("kubelet")
    assert run.running("work", but=[pod]) != pod
    assert run.answer()["digest"]
    assert "was taken off its node" in run.log()
    assert run.task()["try_number"] == 1
    assert run.leftovers() == []


def _task_processes(world: World, run: Run) -> list[int]:
    """The processes of the worker that runs the task."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (directory / "environ").read_bytes()
        except OSError:
            continue
        if f"AIRFLOW_HOME={world.airflow.home}".encode() in environment and run.run_id in command:
            found.append(int(directory.name))
    return found
