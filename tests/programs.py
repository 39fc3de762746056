"""The reference programs as they are started in a pod: real processes, real libraries, a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_kitops.workload.progress import parse_progress
from tests.tiny_model import write_tiny_model

HOCKEY, SPACE = "the puck flew over the ice", "a rocket went up into orbit"
NEWS = [{"text": f"{(HOCKEY, SPACE)[n % 2]} {n}", "label": ("hockey", "space")[n % 2]} for n in range(32)]
SETTINGS = {
    "template": "{text}\nTopic:",
    "max_length": 48,
    "batch_size": 4,
    "max_steps": 24,
    "learning_rate": 0.01,
    "lora_rank": 4,
    "threads": 1,
    "checkpoint_steps": 5,
}


class Run:
    """Directories of one workload, and its program."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inputs, self.config, self.output = root / "in", root / "config", root / "out"
        self.checkpoints = root / "checkpoints"
        self.lines: list[str] = []
        for directory in (self.inputs, self.config):
            directory.mkdir(parents=True, exist_ok=True)

    def data(self, name: str, rows: list[dict[str, Any]]) -> Run:
        path = self.inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return self

    def start(self, program: str, config: dict[str, Any], *, sabotage: str = "") -> subprocess.Popen[str]:
        """Start the program, after running the Python code ``sabotage`` in its process."""
        (self.config / "config.yaml").write_text(yaml.safe_dump(config))
        names = {"INPUTS": self.inputs, "CONFIG": self.config, "OUTPUT": self.output, "CHECKPOINTS": self.checkpoints}
        module = f"airflow_provider_kitops.workload.{program}"
        return subprocess.Popen(
            [sys.executable, "-c", f"{sabotage}\nimport runpy\nrunpy.run_module({module!r}, run_name='__main__')"],
            env={**os.environ, **{f"KITOPS_{name}": str(path) for name, path in names.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, program: str, config: dict[str, Any]) -> list[str]:
        """Run it to its end and return its lines, which are kept; fails if it fails."""
        process = self.start(program, config)
        self.lines = process.communicate(timeout=280)[0].splitlines()
        assert process.returncode == 0, "\n".join(self.lines)
        return self.lines

    def kill(self, program: str, config: dict[str, Any], sabotage: str) -> None:
        """Run it until its process kills itself at the point that ``sabotage`` says."""
        process = self.start(program, config, sabotage=sabotage)
        lines = process.communicate(timeout=280)[0]
        assert process.returncode == -signal.SIGKILL, lines

    def refuse(self, program: str, config: dict[str, Any], sabotage: str = "") -> tuple[int, str]:
        """Run it, see it fail and leave nothing, and return its exit code and last line."""
        process = self.start(program, config, sabotage=sabotage)
        lines = process.communicate(timeout=280)[0].splitlines()
        assert process.returncode != 0
        assert not (self.output / "adapter").exists()
        assert not (self.output / "predictions.jsonl").exists()
        assert not (self.output / "metrics.json").exists()
        return process.returncode, lines[-1]

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.output / "metrics.json").read_text())
        return metrics

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / "predictions.jsonl").read_text().splitlines()]

    def files(self) -> dict[str, bytes]:
        """Every byte of the output."""
        return {
            str(path.relative_to(self.output)): path.read_bytes()
            for path in sorted(self.output.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def prepare(root: Path, base: Path, *, adapter: Path | None = None) -> Run:
    run = Run(root)
    (run.inputs / "base").mkdir()
    for path in base.iterdir():
        (run.inputs / "base" / path.name).write_bytes(path.read_bytes())
    if adapter:
        (run.inputs / "model").mkdir()
        for path in adapter.iterdir():
            (run.inputs / "model" / path.name).write_bytes(path.read_bytes())
    return run


@pytest.fixture(scope="session")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted fine-tuning of the causal model, measured on what it was trained on."""
    run = prepare(tmp_path_factory.mktemp("trained"), tiny_base).data("dataset/train.jsonl", NEWS)
    run.data("dataset/held-out.jsonl", NEWS[:6])
    run.run("finetune", {**SETTINGS, "eval": "dataset/held-out.jsonl"})
    return run


def first_step(lines: list[str]) -> int | None:
    """The first step that a run says it has made."""
    return next(found.step for line in lines if (found := parse_progress(line)) and found.phase == "train")
