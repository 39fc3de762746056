"""Many Jobs at once from one triggerer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.jobs.gates import Gates
from tests.cluster.jobs.world import World

_JOBS = 50


@pytest.mark.timeout(2400)
def test_fifty_jobs_are_watched_through_one_connection(world: World, gates: Gates) -> None:
    namespace = world.namespace()
    run = world.start(
        "many",
        namespace=namespace,
        **world.script(
            f"until wget -q -O /dev/null {gates.url('many')} 2>/dev/null; do sleep 2; done; echo 1 > /out/result.txt",
            destination="made/many:latest",
        ),
        # So that one small node takes them all.
        job={"cpu": "1m", "pod_override": {"initContainers": [_small("fetch")], "containers": [_small("publish")]}},
    )
    seen: list[int] = []
    memory = [_memory(world.airflow.pid("triggerer"))]

    def states() -> list[str]:
        seen.append(_watches(world))
        memory.append(_memory(world.airflow.pid("triggerer")))
        path = f"dags/many/dagRuns/{run.run_id}/taskInstances?limit=100"
        return [task["state"] for task in world.airflow.api("GET", path)["task_instances"]]

    world.airflow.wait("all tasks to be deferred", lambda: states().count("deferred") == _JOBS, 900)
    world.airflow.wait("all pods to run", lambda: sum(map(_works, run.pods())) == _JOBS, 300)
    gates.open("many")
    world.airflow.wait("all Jobs to end", lambda: set(states()) <= {"success", "failed"}, 900)
    print(f"most watches open: {max(seen)}; triggerer: {memory[0]} MiB, {max(memory)} MiB at the most")
    assert max(seen) == 1
    assert set(states()) == {"success"}
    assert run.leftovers() == []


def _small(container: str) -> dict[str, Any]:
    return {"name": container, "resources": {"requests": {"cpu": "1m", "memory": "64Mi"}}}


def _works(pod: dict[str, Any]) -> bool:
    states = {each["name"]: each["state"] for each in pod["status"].get("initContainerStatuses", [])}
    return "running" in states.get("work", {})


def _watches(world: World) -> int:
    """How many watches on pods the API server has open for this package, by its own count."""
    metrics = world.cluster.kubectl("get", "--raw", "/metrics")
    found = re.findall(
        r'apiserver_longrunning_requests\{[^}]*resource="pods"[^}]*scope="namespace"[^}]*verb="WATCH"[^}]*\} (\d+)',
        metrics,
    )
    return sum(map(int, found))


def _memory(pid: int) -> int:
    """Resident memory of a process and its children, in MiB."""
    total = 0
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            stat = (directory / "status").read_text()
        except OSError:
            continue
        fields = dict(re.findall(r"^(\w+):\s+(.*)$", stat, re.M))
        if int(directory.name) == pid or int(fields.get("PPid", 0)) == pid:
            total += int(fields.get("VmRSS", "0 kB").split()[0]) // 1024
    return total
