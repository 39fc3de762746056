"""Many Jobs at once from one triggerer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.jobs.world import World

_JOBS = 50


@pytest.mark.timeout(1500)
def test_fifty_jobs_are_watched_through_one_connection(world: World) -> None:
    namespace = world.namespace()
    run = world.start(
        "many",
        namespace=namespace,
        **world.script("sleep 60; echo 1 > /out/result.txt", destination="made/many:latest", job={"cpu": "1m"}),
    )
    seen: list[int] = []

    def look() -> bool:
        seen.append(_watches(world))
        states = [
            task["state"]
            for task in world.airflow.api("GET", f"dags/many/dagRuns/{run.run_id}/taskInstances?limit=100")[
                "task_instances"
            ]
        ]
        return len(states) == _JOBS and all(state in ("success", "failed") for state in states)

    before = _memory(world.airflow.pid("triggerer"))
    world.airflow.wait("all Jobs to end", look, 1200)
    print(f"most watches open: {max(seen)}, triggerer: {before} to {_memory(world.airflow.pid('triggerer'))} MiB")
    assert max(seen) == 1
    assert world.airflow.run_state("many", run.run_id) == "success"
    assert run.leftovers() == []


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
