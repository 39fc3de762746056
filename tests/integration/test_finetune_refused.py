"""What the reference programs refuse, and how they say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.programs import NEWS, SETTINGS, prepare

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
