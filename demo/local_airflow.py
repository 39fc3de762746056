"""An Airflow of the demo's own: its home, database, connection and DAGs are below one directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import KitopsError

#: The connection of the DAGs, and the judge's where it is an endpoint of the user's own.
CONNECTION, JUDGE_CONNECTION = "kitops_default", "judge"

_DAGS = Path(__file__).resolve().parent.parent / "dags"
_SECONDS_TO_END = 30
_OUR_LOGGERS = "airflow.task.operators.airflow_provider_kitops"


@dataclass(frozen=True)
class OwnJudge:
    """An OpenAI-compatible endpoint of the user's own.

    :param url: base URL.
    :param model: the endpoint's name of the judge.
    :param key: the endpoint's key.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)


class DemoFailed(KitopsError):
    """A part of the demo did not end well; its log says why."""


class Airflow:
    """Runs ``airflow`` with settings that touch nothing else on this machine.

    :param home: directory for everything that Airflow writes.
    :param layout: the local layout of the connection.
    """

    def __init__(self, home: Path, layout: Path) -> None:
        self.home = home
        self.environment = {
            # Settings of another Airflow on this machine must not reach into the demo.
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(_DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__KITOPS__SCRATCH_DIRECTORY": str(home.parent / "scratch"),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # Two cores: more threads than that only get into each other's way.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(min(os.cpu_count() or 2, 8))),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore",
        }
        self._layout = layout

    def prepare(self, judge: OwnJudge | None) -> None:
        """Make the database and the connections.

        :param judge: an endpoint to judge with.
        :raises DemoFailed: Airflow could not do it.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        self._quietly("db", "migrate")
        connections: dict[str, dict[str, Any]] = {
            # The page's Test button sends port 0 where there is none, and refuses a stored connection with another.
            CONNECTION: {"conn_type": "kitops", "port": 0, "extra": json.dumps({"layout": str(self._layout)})}
        }
        if judge:
            connections[JUDGE_CONNECTION] = {
                "conn_type": "generic",
                "host": judge.url,
                "password": judge.key,
                "extra": json.dumps({"model": judge.model}),
            }
        # From a file that only this user can read: a key on a command line would be visible to everybody.
        file = self.home / "connections.json"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(connections, out)
        try:
            self._quietly("connections", "import", "--overwrite", str(file))
        finally:
            file.unlink()

    def run_dag(self, dag: str, params: Mapping[str, Any], log: Path, say: Callable[[str], None]) -> None:
        """Run one DAG to its end, telling what its tasks do.

        :param log: file for everything that Airflow logs, as JSON lines.
        :param say: gets a line for a person.
        :raises DemoFailed: the run failed.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = ["airflow", "dags", "test", dag, "--conf", json.dumps(dict(params))]
        environment = {**self.environment, "AIRFLOW__LOGGING__JSON_LOGS": "True"}
        # The run's tasks are in this process, and what they start ends with it.
        with (
            log.open("w", encoding="utf-8") as file,
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            ) as process,
        ):
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    file.write(line)
                    if told := _tell(line):
                        say(told)
            except BaseException:
                _end(process)
                raise
        if process.returncode:
            raise DemoFailed(f"The DAG {dag} failed.", hint=f"Everything it logged is in {log}.")

    def standalone(self, port: int) -> int:
        """Run all of Airflow's services in the foreground until interrupted; the exit code."""
        environment = {
            **self.environment,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            # The demo's tasks want all cores for themselves.
            "AIRFLOW__CORE__PARALLELISM": "2",
        }
        with subprocess.Popen(["airflow", "standalone"], env=environment) as process:
            return _wait(process)

    def _quietly(self, *arguments: str) -> None:
        done = subprocess.run(
            ["airflow", *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DemoFailed(f"airflow {' '.join(arguments[:2])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[Any]) -> None:
    """Ask it to end, which lets it end what it has started; then end it."""
    process.terminate()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()


def _tell(line: str) -> str:
    """What a line of Airflow's log means to a person; empty if nothing."""
    try:
        record = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(record, dict):
        return ""
    event, logger = str(record.get("event", "")), str(record.get("logger", ""))
    if event.startswith("[DAG TEST] starting task_id="):
        return "» " + event.removeprefix("[DAG TEST] starting task_id=").split()[0]
    if record.get("level") in ("error", "critical"):
        raised = [str(each.get("exc_value")) for each in record.get("exception") or () if isinstance(each, dict)]
        return "    " + ": ".join([event, *raised[:1]])
    if logger.startswith(_OUR_LOGGERS) and event.strip():
        return "    " + event
    return ""
