"""Scheduler, triggerer, DAG processor and api-server as processes of their own; every task in one, too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit.kitfile import parse_kitfile
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.store import Store, StoreConfig

from .harness import Airflow

DAGS = Path(__file__).with_name("dags")
KITFILE = "manifestVersion: 1.0.0\npackage: {name: model}\nmodel: {path: weights.bin}\n"


def release(root: Path, content: bytes) -> str:
    """Pack a new champion as somebody outside Airflow would."""
    context = root / "context"
    context.mkdir(exist_ok=True)
    (context / "weights.bin").write_bytes(content)
    with Store(StoreConfig(layout=root / "layout")) as store:
        return pack(context, parse_kitfile(KITFILE), store.target("demo/model"), "champion").descriptor.digest


@pytest.mark.timeout(600)
def test_a_deferred_sensor_wakes_and_a_killed_task_resumes(tmp_path: Path) -> None:
    first = release(tmp_path, b"first")
    connections = {"kitops_default": {"conn_type": "kitops", "extra": {"layout": str(tmp_path / "layout")}}}
    airflow = Airflow(tmp_path / "home", DAGS, connections)
    airflow.env["PROVIDER_TEST_WORK"] = str(tmp_path)
    airflow.migrate()
    with airflow.processes():
        run = airflow.trigger("tag_wait")
        airflow.wait(
            "the sensor to defer", lambda: airflow.task("tag_wait", run, "moved")["state"] == "deferred", timeout=180
        )
        assert airflow.task("tag_wait", run, "unpack")["state"] in (None, "none")

        pids = tmp_path / "pids"
        airflow.wait("the program to begin", lambda: pids.exists() and pids.read_text(), timeout=120)
        program = int(pids.read_text())
        task = airflow.wait("the task's process", lambda: airflow.task("tag_wait", run, "work")["pid"])
        kill_tree_root(task)
        airflow.wait("the killed task's program to end", lambda: not alive(program), timeout=30)

        second = release(tmp_path, b"second")
        airflow.wait("the run to end", lambda: airflow.run_state("tag_wait", run) in ("success", "failed"), timeout=240)
        assert airflow.run_state("tag_wait", run) == "success", airflow.logs()

        assert airflow.xcom("tag_wait", run, "before")["digest"] == first
        assert airflow.xcom("tag_wait", run, "moved")["digest"] == second
        assert (tmp_path / "new" / "weights.bin").read_bytes() == b"second"

        work = airflow.task("tag_wait", run, "work")
        assert work["try_number"] == 2
        assert airflow.xcom("tag_wait", run, "work")["metrics"] == {"resumed": True}
        assert not list((tmp_path / "home" / "kitops" / "scratch").rglob("*")), "scratch is left behind"
    assert airflow.leftovers() == []


def kill_tree_root(pid: int) -> None:
    """SIGKILL, as the kernel does when memory runs out: nobody gets to clean up."""
    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
