"""The example DAG under all of Airflow's processes: deferred, killed in every task, and still the same end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.modelkit.kitfile import parse_kitfile
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.fake_judge import KEY, FakeJudge, fake_judge
from tests.tiny_model import write_tiny_model

from .harness import Airflow

ROOT = Path(__file__).parents[3]
TEXTS = {"hockey": "the puck flew over the ice", "space": "a rocket went up into orbit"}
LABELS = tuple(TEXTS)
TRAINING = {
    "template": "{text}\nTopic:",
    "max_length": 48,
    "batch_size": 4,
    "learning_rate": 0.01,
    "lora_rank": 4,
    "threads": 1,
    "checkpoint_steps": 5,
}
#: Kills a task's own process, as the kernel does when memory runs out, some time after its first try has begun.
KILLER = """
import os, pathlib, random, signal, threading
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

@hookimpl
def on_task_instance_running(previous_state, task_instance):
    # Keyed by file rather than by try: a try that died before this hook ran has not been killed by it.
    mark = pathlib.Path(os.environ["PROVIDER_TEST_WORK"], f"{task_instance.run_id}-{task_instance.task_id}.killed")
    if not task_instance.run_id.startswith("killed") or mark.exists():
        return
    mark.touch()
    delay = random.Random(task_instance.task_id).uniform(0, 0.4) + (4 if task_instance.task_id == "fine_tune" else 0)
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()

import sys

class Killer(AirflowPlugin):
    name = "killer"
    listeners = [sys.modules[__name__]]
"""


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pack_into(layout: Path, context: Path, reference: str, sections: Mapping[str, Any]) -> None:
    repository, _, tag = reference.partition(":")
    kitfile = {"manifestVersion": "1.0.0", "package": {"name": context.name}, **sections}
    with Store(StoreConfig(layout=layout)) as store:
        pack(context, parse_kitfile(json.dumps(kitfile)), store.target(repository), tag)


def write_dataset(directory: Path) -> None:
    directory.mkdir()
    rows = [(LABELS[n % 2], f"{TEXTS[LABELS[n % 2]]} {n}") for n in range(96)]
    write_lines(directory / "train.jsonl", [{"text": text, "label": label} for label, text in rows[:32]])
    write_lines(
        directory / "items.jsonl",
        [{"id": f"i{n}", "prompt": text, "reference": label} for n, (label, text) in enumerate(rows[32:])],
    )
    write_lines(
        directory / "pairs.jsonl",
        [
            {"id": f"p{n}", "prompt": f"{n}", "better": LABELS[n % 2], "worse": "nonsense", "reference": LABELS[n % 2]}
            for n in range(40)
        ],
    )


def contents(layout: Path, repository: str) -> dict[str, str]:
    """Digest by tag, without the tags that hold a time."""
    with Store(StoreConfig(layout=layout)) as store:
        target = store.target(repository)
        return {tag: target.resolve(tag).digest for tag in target.tags()}


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_in_every_task_ends_as_one_that_is_not(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_dataset(tmp_path / "dataset")
    names = ("train", "items", "pairs")
    pack_into(
        layout,
        tmp_path / "dataset",
        "news/dataset:latest",
        {"datasets": [{"name": name, "path": f"{name}.jsonl"} for name in names]},
    )
    judge = FakeJudge(quality=lambda text: 4.0 if text.strip() in LABELS else 0.0, first_bias=1.0)
    with fake_judge(judge):
        connections = {
            "kitops_default": {"conn_type": "kitops", "extra": {"layout": str(layout)}},
            "judge": {
                "conn_type": "generic",
                "host": f"http://127.0.0.1:{judge.port}/v1",
                "password": KEY,
                "extra": {"model": "fake"},
            },
        }
        airflow = Airflow(tmp_path / "home", ROOT / "dags", connections)
        airflow.env["PROVIDER_TEST_WORK"] = str(tmp_path)
        (tmp_path / "home" / "plugins").mkdir()
        (tmp_path / "home" / "plugins" / "killer.py").write_text(KILLER)
        airflow.migrate()

        def conf(team: str) -> dict[str, Any]:
            return {
                "model": f"{team}/classifier",
                "predictions": f"{team}/predictions",
                "steps": 24,
                "training": TRAINING,
                "generation": {"template": TRAINING["template"], "max_length": 48, "max_new_tokens": 4},
                "judge_model": None,
                "llm_conn_id": "judge",
            }

        with airflow.processes():
            dag = "champion_challenger"
            killed = airflow.trigger(dag, conf("killed"), "killed")
            # There is no base model yet: the sensor must wait without holding a worker.
            airflow.wait("the sensor to defer", lambda: airflow.task(dag, killed, "base")["state"] == "deferred")
            base = tmp_path / "base"
            write_tiny_model(base)
            pack_into(layout, base, "news/base:latest", {"model": {"name": "base", "path": "."}})
            ended = ("success", "failed")
            airflow.wait("the run to end", lambda: airflow.run_state(dag, killed) in ended, timeout=420)
            assert airflow.run_state(dag, killed) == "success", airflow.logs()
            tries = {
                task: airflow.task(dag, killed, task)["try_number"]
                for task in ("incumbent", "fine_tune", "ask_challenger", "ask_champion", "judge", "gate", "promote")
            }
            assert tries["fine_tune"] >= 2
            assert sum(number >= 2 for number in tries.values()) >= 4, tries

            whole = airflow.trigger(dag, conf("whole"), "whole")
            airflow.wait("the run to end", lambda: airflow.run_state(dag, whole) in ended, timeout=300)
            assert airflow.run_state(dag, whole) == "success", airflow.logs()

            gates = [airflow.xcom(dag, run, "gate") for run in (killed, whole)]
            assert [gate["outcome"] for gate in gates] == ["promote", "promote"]
            figures = ("mean", "lower", "upper", "n", "challenger")
            assert [gates[0][name] for name in figures] == [gates[1][name] for name in figures]
    for repository in ("classifier", "predictions"):
        assert contents(layout, f"killed/{repository}") == contents(layout, f"whole/{repository}")
    champion = contents(layout, "whole/classifier")
    assert champion == {"champion": gates[1]["challenger"], "challenger": gates[1]["challenger"]}
    assert not list((tmp_path / "home" / "kitops" / "scratch").rglob("*")), "scratch is left behind"
    assert airflow.leftovers() == []
