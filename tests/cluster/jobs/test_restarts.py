"""Parts of Airflow and of the cluster that end while a Job runs: it ends once, with the right result."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.cluster.cluster import ComponentName
from tests.cluster.jobs.world import Run, World

_SLOW = """n=0; while test $n -lt {steps}; do n=$((n+1)); echo "step $n"; sleep 0.5; done; echo $n > /out/result.txt"""


def _start(world: World, dag_id: str, name: str, steps: int = 40) -> Run:
    return world.start(dag_id, **world.script(_SLOW.format(steps=steps), destination=f"made/{name}:latest"))


def _once(run: Run, steps: int = 40) -> None:
    """The Job ran once, its log is whole, and nothing is left."""
    log = run.log()
    assert log.count("Created the Job") == 1, log
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
    os.kill(int(run.task()["pid"]), signal.SIGKILL)
    assert run.answer()["digest"]
    log = run.log()
    assert "Going on with the Job" in log
    assert log.count("Created the Job") == 1
    assert run.task()["try_number"] == 2
    assert run.leftovers() == []


def test_an_apiserver_that_is_restarted_is_found_again(world: World) -> None:
    run = _start(world, "once", "apiserver")
    run.running("work")
    with _without(world, "kube-apiserver"):
        time.sleep(5)
    assert run.answer()["digest"]
    _once(run)


def test_a_kubelet_that_is_away_for_a_moment_costs_nothing(world: World) -> None:
    run = _start(world, "once", "kubelet")
    pod = run.running("work")
    with _without(world, "kubelet"):
        time.sleep(5)
    assert run.answer()["digest"]
    assert run.log().count("[work] step 1\n") == 1, f"{pod} was started again"
    _once(run)


def test_a_lost_node_has_its_pod_started_again(world: World) -> None:
    """Where all nodes are lost Kubernetes takes itself for lost, and taints none: this taint is the test's own."""
    lost = "example.com/lost"
    run = world.start(
        "once",
        **world.script(_SLOW.format(steps=60), destination="made/node:latest"),
        job={"grace_period": 1},
    )
    pod = run.running("work")
    with _without(world, "kubelet"):
        world.cluster.kubectl("taint", "node", world.cluster.node, f"{lost}=true:NoExecute")
        try:
            world.airflow.wait(
                "the pod to be taken off the node",
                lambda: any(each["metadata"].get("deletionTimestamp") for each in run.pods()),
            )
        finally:
            world.cluster.kubectl("taint", "node", world.cluster.node, f"{lost}:NoExecute-")
    run.running("work", but=[pod])
    assert run.answer()["digest"]
    assert "was taken off its node" in run.log()
    assert run.task()["try_number"] == 1
    assert run.leftovers() == []


def test_connections_that_are_cut_are_made_again(world: World) -> None:
    run = _start(world, "once", "cut")
    run.running("work")
    world.airflow.wait("the task to be deferred", lambda: run.state() == "deferred")
    url = world.cluster.kubectl("config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}")
    server = urlsplit(url)
    cutting = ["ss", "--kill", "dst", str(server.hostname), "dport", "=", str(server.port)]
    for _ in range(3):
        time.sleep(2)
        cut = subprocess.run(cutting, capture_output=True, text=True)
        assert str(server.port) in cut.stdout, "nothing was cut"
    assert run.answer()["digest"]
    _once(run)


@contextlib.contextmanager
def _without(world: World, component: ComponentName) -> Iterator[None]:
    """End a part of the cluster as a crash does, and start it again, whatever happens meanwhile."""
    world.cluster.stop(component)
    try:
        yield
    finally:
        world.cluster.start(component)
