"""The reference programs as they are started in a pod: real processes, real libraries, a tiny model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_kitops.workload.progress import WorkloadProgress, parse_progress
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
        """Run it to its end and return its lines; fails if it fails."""
        process = self.start(program, config)
        lines = process.communicate(timeout=280)[0].splitlines()
        assert process.returncode == 0, "\n".join(lines)
        return lines

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
    run.lines = run.run("finetune", {**SETTINGS, "eval": "dataset/held-out.jsonl"})  # type: ignore[attr-defined]
    return run


def test_it_learns(trained: Run) -> None:
    assert trained.metrics["eval_accuracy"] == 1.0
    assert trained.metrics["final_train_loss"] < 1 < trained.metrics["train_loss"]
    assert trained.metrics["steps"] == 24


def test_it_tells_how_far_it_is(trained: Run) -> None:
    found = [progress for line in trained.lines if (progress := parse_progress(line))]  # type: ignore[attr-defined]
    assert found[0] == WorkloadProgress("load")
    last = [progress for progress in found if progress.phase == "train"][-1]
    assert (last.step, last.total, last.eta) == (24, 24, 0)
    assert last.loss is not None
    assert last.tokens_per_second is not None
    assert last.tokens_per_second > 0


def test_the_output_holds_no_path_of_this_machine_and_no_clock(trained: Run) -> None:
    files = trained.files()
    assert sorted(files) == [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/task.json",
        "config.yaml",
        "metrics.json",
    ]
    for name, data in files.items():
        assert str(trained.root).encode() not in data, name
    assert json.loads(files["adapter/adapter_config.json"])["base_model_name_or_path"] == "base"
    assert not any("time" in key or "second" in key for key in trained.metrics)


def test_checkpoints_are_removed_when_it_is_done(trained: Run) -> None:
    assert not list(trained.checkpoints.rglob("checkpoint-*"))


#: Dies when the checkpoint of step 15 has been written, but not yet marked as whole.
KILL_WHILE_SAVING = """
import os, signal
from airflow_provider_kitops.workload.finetune.checkpoints import Checkpoints
whole = Checkpoints.mark
Checkpoints.mark = lambda self, step: os.kill(os.getpid(), signal.SIGKILL) if step == 15 else whole(self, step)
"""


def test_a_killed_run_that_is_started_again_gives_the_same_bytes(trained: Run, tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS).data("dataset/held-out.jsonl", NEWS[:6])
    config = {**SETTINGS, "eval": "dataset/held-out.jsonl"}
    run.kill("finetune", config, KILL_WHILE_SAVING)
    assert not (run.output / "adapter").exists()
    assert (run.checkpoints / "finetune" / "checkpoint-15" / "trainer_state.json").exists()
    lines = run.run("finetune", config)
    first = next(progress for line in lines if (progress := parse_progress(line)) and progress.phase == "train")
    assert first.step is not None
    assert first.step > 10
    assert run.files() == trained.files()


def test_another_base_under_the_same_path_is_trained_from_the_start(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", tiny_base).data("dataset/train.jsonl", NEWS)
    run.kill("finetune", SETTINGS, KILL_WHILE_SAVING)
    other = write_tiny_model(tmp_path / "other", seed=1)
    sizes = {path.name: path.stat().st_size for path in (run.inputs / "base").iterdir()}
    for path in other.iterdir():
        (run.inputs / "base" / path.name).write_bytes(path.read_bytes())
        assert sizes[path.name] == path.stat().st_size
    lines = run.run("finetune", SETTINGS)
    first = next(progress for line in lines if (progress := parse_progress(line)) and progress.phase == "train")
    assert first.step == 1


#: The last step, after which no loss is computed, breaks the weights.
BREAK_WEIGHTS = """
import transformers
whole = transformers.Trainer.train
def train(self, *arguments, **named):
    result = whole(self, *arguments, **named)
    next(each for each in self.model.parameters() if each.requires_grad).data.fill_(float("inf"))
    return result
transformers.Trainer.train = train
"""

#: Measuring finds no number.
BREAK_MEASURING = """
import transformers
transformers.Trainer.evaluate = lambda self, *arguments, **named: {"eval_loss": float("nan")}
"""


@pytest.mark.parametrize(
    ("config", "sabotage", "message"),
    [
        ({"learning_rate": 1e35}, "", "error: The training loss is nan in step 2: it is no number any more."),
        ({}, BREAK_WEIGHTS, "error: The trained weights "),
        ({}, BREAK_MEASURING, "error: These metrics are no numbers: eval_loss is nan."),
    ],
)
def test_what_is_no_number_is_a_failure_and_the_checkpoints_stay(
    tiny_base: Path, tmp_path: Path, config: dict[str, Any], sabotage: str, message: str
) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS).data("dataset/held-out.jsonl", NEWS[:6])
    settings = {**SETTINGS, "max_steps": 4, "checkpoint_steps": 1, "eval": "dataset/held-out.jsonl", **config}
    code, line = run.refuse("finetune", settings, sabotage)
    assert code == 1
    assert line.startswith(message), line
    assert list((run.checkpoints / "finetune").glob("checkpoint-*"))


def test_another_seed_gives_another_adapter(trained: Run, tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS)
    run.run("finetune", {**SETTINGS, "seed": 1, "max_steps": 2})
    assert run.files()["adapter/adapter_model.safetensors"] != trained.files()["adapter/adapter_model.safetensors"]


ITEMS = [{"id": f"i{n}", "text": row["text"], "reference": row["label"]} for n, row in enumerate(NEWS[:10])]


def test_generate_asks_as_finetune_trained_and_keeps_the_order(trained: Run, tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base, adapter=trained.output / "adapter").data("items/items.jsonl", ITEMS)
    # The task settings are those of another prompt: a tuned model is asked in its own way nevertheless.
    run.run("generate", {"batch_size": 4, "threads": 1, "template": "Something else: {text}"})
    assert [line["id"] for line in run.predictions] == [item["id"] for item in ITEMS]
    assert [line["prediction"] for line in run.predictions] == [item["reference"] for item in ITEMS]
    assert run.predictions[0] == {
        "id": "i0",
        "prompt": NEWS[0]["text"],
        "prediction": "hockey",
        "reference": "hockey",
    }
    assert (run.metrics["exact_match"], run.metrics["tuned"]) == (1.0, True)


#: Dies in the middle of writing the third batch to the journal.
KILL_WHILE_WRITING = """
import os, signal
from airflow_provider_kitops.workload.generate.predict import _Journal
whole, batches = _Journal.append, []
def append(self, items, batch):
    whole(self, items, batch)
    batches.append(batch)
    if len(batches) == 3:
        os.truncate(self.path, self.path.stat().st_size - 20)
        os.kill(os.getpid(), signal.SIGKILL)
_Journal.append = append
"""


def test_a_killed_generation_that_is_started_again_gives_the_same_bytes(
    trained: Run, tiny_base: Path, tmp_path: Path
) -> None:
    # Drawn at random, so that an answer depends on its batch's own random numbers.
    config = {"batch_size": 2, "threads": 1, "temperature": 5.0, "seed": 3}
    runs = [
        prepare(tmp_path / name, tiny_base, adapter=trained.output / "adapter").data("items/items.jsonl", ITEMS)
        for name in ("whole", "killed")
    ]
    runs[0].run("generate", config)
    runs[1].kill("generate", config, KILL_WHILE_WRITING)
    assert not (runs[1].output / "predictions.jsonl").exists()
    lines = runs[1].run("generate", config)
    steps = [progress.step for line in lines if (progress := parse_progress(line)) and progress.phase == "generate"]
    assert steps == [6, 8, 10]
    assert runs[0].files() == runs[1].files()
    assert len({line["prediction"] for line in runs[0].predictions}) > 2


def test_an_untuned_base_is_asked_by_the_settings(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("items/items.jsonl", ITEMS)
    run.run("generate", {"template": "{text}\nTopic:", "labels": ["hockey", "space"], "max_length": 48, "threads": 1})
    assert run.metrics["tuned"] is False
    assert run.metrics["exact_match"] < 0.5


def test_a_classifier_is_trained_and_asked(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path / "t", tiny_base).data("dataset/train.jsonl", NEWS)
    run.run("finetune", {**SETTINGS, "task": "sequence-classification", "eval_fraction": 0.25})
    assert run.metrics["eval_examples"] == 8
    assert run.metrics["eval_accuracy"] == 1.0
    asked = prepare(tmp_path / "g", tiny_base, adapter=run.output / "adapter").data("items/items.jsonl", ITEMS)
    asked.run("generate", {"threads": 1})
    assert asked.metrics["exact_match"] == 1.0
    assert all(0.5 < line["probability"] <= 1 for line in asked.predictions)


def test_conversations_are_trained_on_and_answered(tiny_base: Path, tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}] for row in NEWS]
    run = prepare(tmp_path / "t", tiny_base).data("dataset/train.jsonl", [{"messages": each} for each in turns])
    run.run("finetune", {**SETTINGS, "max_new_tokens": 12, "lora_last_layers": 2})
    items = [{"id": n, "messages": each[:1], "reference": each[1]["content"]} for n, each in enumerate(turns[:4])]
    asked = prepare(tmp_path / "g", tiny_base, adapter=run.output / "adapter").data("items/items.jsonl", items)
    asked.run("generate", {"threads": 1})
    assert asked.metrics["exact_match"] == 1.0


def test_qlora_without_a_gpu_is_refused_in_one_line(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS)
    code, line = run.refuse("finetune", {**SETTINGS, "method": "qlora", "device": "cpu"})
    assert (code, line) == (2, "error: QLoRA needs a CUDA GPU, and there is none. Use method: lora.")


@pytest.mark.parametrize(
    ("program", "rows", "config", "message"),
    [
        ("finetune", [], {}, "error: The data file train.jsonl is empty."),
        ("finetune", [{"body": "x"}], {}, "Its columns are: body."),
        ("finetune", NEWS, {"base": "bsae"}, "error: There is no base model 'bsae'"),
        ("finetune", NEWS, {"lerning_rate": 1}, "Did you mean learning_rate?"),
        ("finetune", NEWS, {"lora_targets": ["no_such"]}, "Its linear modules are: down_proj, gate_proj, k_proj"),
        ("finetune", NEWS, {"device": "cuda"}, "error: device is cuda, but PyTorch finds no GPU."),
        ("generate", NEWS, {}, "error: Found no items file"),
        ("generate", NEWS, {"items": "dataset/train.jsonl"}, "no column 'id'. Its columns are: text, label."),
    ],
)
def test_wrong_input_gives_one_clear_line(
    tiny_base: Path, tmp_path: Path, program: str, rows: list[dict[str, Any]], config: dict[str, Any], message: str
) -> None:
    if config.get("device") == "cuda":
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", rows)
    code, line = run.refuse(program, config)
    assert code == 2
    assert message in line


def test_a_damaged_base_gives_one_clear_line(tiny_base: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path, tiny_base).data("dataset/train.jsonl", NEWS)
    (run.inputs / "base" / "config.json").write_text("{}")
    code, line = run.refuse("finetune", SETTINGS)
    assert code == 2
    assert line.startswith("error: Cannot load a")


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


def first_step(lines: list[str]) -> int | None:
    return next(found.step for line in lines if (found := parse_progress(line)) and found.phase == "train")


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
