from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.finetune.config import FineTuneConfig
from airflow_provider_kitops.workload.finetune.data import load_data

NEWS = [{"text": f"text {number}", "label": ("space", "hockey")[number % 2]} for number in range(20)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_texts_with_labels(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", NEWS)
    data = load_data(FineTuneConfig(), tmp_path)
    assert data.labels == ("hockey", "space")
    assert (data.train[1].question, data.train[1].answer) == ("text 1", "hockey")


def test_prompts_with_completions_have_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"prompt": "a", "completion": "b"}])
    data = load_data(FineTuneConfig(), tmp_path)
    assert (data.labels, data.train[0].answer) == (None, "b")


def test_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    write(tmp_path / "train.jsonl", [{"messages": turns}])
    data = load_data(FineTuneConfig(), tmp_path)
    assert (data.train[0].question, data.train[0].answer) == (turns[:1], "b")


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"body": "a", "group": 1}, {"body": "b", "group": 2}])
    data = load_data(FineTuneConfig(text_column="body", label_column="group"), tmp_path)
    assert data.labels == ("1", "2")


def test_held_out_rows_are_not_trained_on_and_are_the_same_for_a_seed(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", NEWS)
    one = load_data(FineTuneConfig(eval_fraction=0.25, seed=1), tmp_path)
    assert len(one.held_out) == 5
    assert {each.question for each in one.train} | {each.question for each in one.held_out} == {
        row["text"] for row in NEWS
    }
    assert one == load_data(FineTuneConfig(eval_fraction=0.25, seed=1), tmp_path)
    assert one.held_out != load_data(FineTuneConfig(eval_fraction=0.25, seed=2), tmp_path).held_out


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        (
            [{"body": "a", "label": "b"}],
            {},
            r"no columns 'text' and 'label' or .*Its columns are: body, label\.",
        ),
        ([{"body": "a"}], {"data": "text-label"}, "no column 'text'. Its columns are: body"),
        ([{"body": "a"}], {"task": "sequence-classification"}, "no column 'text'. Its columns are: body"),
        (NEWS[:1], {}, "only one label, 'space'"),
        (NEWS, {"labels": ("space", "cars")}, "labels that are not among labels: 'hockey'"),
        (NEWS[:4], {"eval_fraction": 0.01}, "leaves nothing to measure on"),
        ([], {}, "train.jsonl is empty"),
    ],
)
def test_data_that_cannot_be_trained_on(
    tmp_path: Path, rows: list[dict[str, Any]], config: dict[str, Any], message: str
) -> None:
    write(tmp_path / "train.jsonl", rows)
    with pytest.raises(InvalidInput, match=message):
        load_data(FineTuneConfig(**config), tmp_path)


def test_a_held_out_label_that_training_has_not_seen_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", NEWS)
    write(tmp_path / "eval.jsonl", [{"text": "x", "label": "cars"}])
    with pytest.raises(InvalidInput, match=r"not in the training data: 'cars'. Labels trained on: hockey, space"):
        load_data(FineTuneConfig(eval="eval.jsonl"), tmp_path)
