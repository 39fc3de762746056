"""A real Airflow of its own: home, SQLite database, and, when asked, all its processes on free loopback ports."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

AIRFLOW = str(Path(sys.executable).with_name("airflow"))


class Airflow:
    """One Airflow installation.

    :param home: its directory; made.
    :param dags: directory with its DAGs.
    :param connections: fields by connection id.
    """

    def __init__(self, home: Path, dags: Path, connections: dict[str, dict[str, Any]]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        self.env = {
            **inherited,
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
            "AIRFLOW__TRIGGERER__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
            "NO_PROXY": "127.0.0.1,localhost",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()},
        }

    def run(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command ``airflow``."""
        result = subprocess.run(
            [AIRFLOW, *arguments], env=self.env, cwd=self.home, capture_output=True, text=True, timeout=timeout
        )
        if check and result.returncode:
            raise AssertionError(f"airflow {' '.join(arguments)}: {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def migrate(self) -> None:
        """Make the database."""
        self.run("db", "migrate")

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Run the api-server, scheduler, DAG processor and triggerer; end all of them, and all they started."""
        running = self._running
        try:
            for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
                self.start(name)
                if name == "api-server":
                    self.wait("the api-server to answer", lambda: self._alive(running))
            yield
            dead = {name: process.poll() for name, process in running.items() if process.poll() is not None}
            assert not dead, f"ended by themselves: {dead}\n{self.logs()}"
        finally:
            for process in reversed(running.values()):
                process.send_signal(signal.SIGTERM)
            for process in reversed(running.values()):
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            running.clear()

    def start(self, name: str) -> None:
        """Start one of the processes."""
        command = [name]
        if name == "api-server":
            command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.home / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [AIRFLOW, *command],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill one of the processes and all that it started, as a machine that is switched off does."""
        process = self._running[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pid(self, name: str) -> int:
        """Process id of one of the processes."""
        return self._running[name].pid

    def leftovers(self) -> list[str]:
        """Command lines of processes that belong to this installation and still run."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                environment = (directory / "environ").read_bytes().split(b"\0")
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # ended meanwhile, or somebody else's
                continue
            if f"AIRFLOW_HOME={self.home}".encode() in environment and command:
                found.append(command)
        return found

    def _alive(self, running: dict[str, subprocess.Popen[bytes]]) -> bool:
        assert all(process.poll() is None for process in running.values()), self.logs()
        try:
            return requests.get(f"{self.url}/api/v2/version", timeout=5).ok
        except requests.ConnectionError:
            return False

    def api(self, method: str, path: str, **body: Any) -> Any:
        """Call the REST API."""
        token = requests.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        answer = requests.request(
            method,
            f"{self.url}/api/v2/{path}",
            json=body or None,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        assert answer.ok or answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.ok and answer.content else None

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> str:
        """Unpause and start a DAG; the run's id."""
        self.wait(f"DAG {dag_id} to be parsed", lambda: self.api("GET", f"dags/{dag_id}"))
        self.api("PATCH", f"dags/{dag_id}", is_paused=False)
        body = {"logical_date": None, "conf": conf or {}, **({"dag_run_id": run_id} if run_id else {})}
        return str(self.api("POST", f"dags/{dag_id}/dagRuns", **body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a run."""
        return str(self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """The task instance as the API shows it."""
        instance: dict[str, Any] = self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        return instance

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value?deserialize=true"
        entry = self.api("GET", path)
        return entry and entry["value"]

    def wait(self, what: str, condition: Callable[[], Any], timeout: float = 120) -> Any:
        """Wait until ``condition`` returns something true."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.5)
        raise AssertionError(f"Waited {timeout:g} s for {what}.\n{self.logs()}")

    def logs(self) -> str:
        """The end of every log, for a failed test's message."""
        files = [*sorted(self.home.glob("*.log")), *sorted((self.home / "logs").rglob("attempt=*.log"))]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-4000:]}" for file in files)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
