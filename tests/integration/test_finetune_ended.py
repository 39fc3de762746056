"""The reference program of fine-tuning, told to end by a signal."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.workload.progress import WorkloadProgress, parse_progress
from tests.programs import NEWS, SETTINGS, Run, first_step, prepare

#: Each step takes long enough to be met by a signal.
SLOW_STEPS = """
import time, transformers
whole = transformers.Trainer.training_step
def training_step(self, *arguments, **named):
    time.sleep(0.1)
    return whole(self, *arguments, **named)
transformers.Trainer.training_step = training_step
"""

#: SIGTERM comes when the last step has been made, before train() returns.
TERMINATE_AT_THE_END = """
import os, signal, transformers
whole = transformers.Trainer._finalize_training
def finalize(self, *arguments, **named):
    os.kill(os.getpid(), signal.SIGTERM)
    return whole(self, *arguments, **named)
transformers.Trainer._finalize_training = finalize
"""


def terminate(run: Run, config: dict[str, Any], *, at: int) -> int:
    """Send SIGTERM when the step ``at`` has been made, and return the step whose checkpoint it says is whole."""
    process = run.start("finetune", config, sabotage=SLOW_STEPS)
    assert process.stdout is not None
    for line in process.stdout:
        if (found := parse_progress(line)) and found.phase == "train" and (found.step or 0) >= at:
            break
    process.terminate()
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGTERM, rest
    return saved(rest)


def saved(lines: str) -> int:
    match = re.search(r"Terminated: the checkpoint of step (\d+) is whole", lines)
    assert match, lines
    return int(match[1])


@pytest.mark.parametrize("checkpoint_steps", [0, 5])
def test_a_terminated_run_goes_on_at_exactly_the_step_where_it_ended(
    trained: Run, tiny_base: Path, tmp_path: Path, checkpoint_steps: int
) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS)
    config = {**SETTINGS, "checkpoint_steps": checkpoint_steps}
    step = terminate(run, config, at=11)
    assert 11 <= step < 24
    again = terminate(run, config, at=step + 3)
    assert again >= step + 3
    lines = run.run("finetune", config)
    assert f"Going on from the checkpoint of step {again}." in lines
    assert first_step(lines) == again + 1
    name = "adapter/adapter_model.safetensors"
    assert run.files()[name] == trained.files()[name]
    assert run.metrics["train_loss"] == trained.metrics["train_loss"]


@pytest.mark.parametrize("checkpoint_steps", [0, 1])
def test_termination_after_the_last_step_loses_nothing_and_adds_no_step(
    tiny_base: Path, tmp_path: Path, checkpoint_steps: int
) -> None:
    # In the middle of an epoch, where Transformers would make another step.
    config = {**SETTINGS, "max_steps": 11, "checkpoint_steps": checkpoint_steps}
    runs = [prepare(tmp_path / name, tiny_base).data("dataset/train.jsonl", NEWS) for name in ("whole", "ended")]
    runs[0].run("finetune", config)
    process = runs[1].start("finetune", config, sabotage=TERMINATE_AT_THE_END)
    lines = process.communicate(timeout=280)[0]
    assert (process.returncode, saved(lines)) == (128 + signal.SIGTERM, 11)
    assert "Going on from the checkpoint of step 11." in runs[1].run("finetune", config)
    assert runs[0].files() == runs[1].files()


#: The step never ends: only a second signal can end the program.
STUCK = """
import time, transformers
def training_step(self, *arguments, **named):
    print("stuck", flush=True)
    time.sleep(100)
transformers.Trainer.training_step = training_step
"""


def test_a_second_signal_ends_it_at_once(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS)
    process = run.start("finetune", SETTINGS, sabotage=STUCK)
    assert process.stdout is not None
    next(line for line in process.stdout if "stuck" in line)
    process.terminate()
    next(line for line in process.stdout if line.startswith("SIGTERM: ending after this step"))
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 20
    assert not list(run.checkpoints.rglob("checkpoint-*"))


def test_a_signal_while_the_model_is_loaded_ends_it_at_once(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS)
    process = run.start("finetune", SETTINGS)
    assert process.stdout is not None
    next(line for line in process.stdout if parse_progress(line) == WorkloadProgress("load"))
    process.terminate()
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "checkpoint" not in rest


def test_a_run_that_is_terminated_does_not_end_with_zero(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS)
    process = run.start("finetune", {**SETTINGS, "max_steps": 100000})
    assert process.stdout is not None
    next(line for line in process.stdout if "train" in line)
    process.terminate()
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 60
