"""What the reference programs make of their inputs, killed in the middle or not."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_provider_kitops.workload.progress import WorkloadProgress, parse_progress
from tests.programs import NEWS, SETTINGS, Run, first_step, prepare
from tests.tiny_model import write_tiny_model


def test_it_learns(trained: Run) -> None:
    assert trained.metrics["eval_accuracy"] == 1.0
    assert trained.metrics["final_train_loss"] < 1 < trained.metrics["train_loss"]
    assert trained.metrics["steps"] == 24


def test_it_tells_how_far_it_is(trained: Run) -> None:
    found = [progress for line in trained.lines if (progress := parse_progress(line))]
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
    assert first_step(lines) == 11
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
    assert first_step(lines) == 1


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
