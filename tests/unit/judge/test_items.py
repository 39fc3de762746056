"""Items, pairs and predictions from JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kitops.judge.items import (
    Item,
    LabelledPair,
    items_digest,
    load_items,
    load_pairs,
    load_predictions,
)
from airflow_provider_kitops.oci.errors import InvalidInput


def written(directory: Path, text: str) -> Path:
    path = directory / "lines.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_items_pairs_and_predictions_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path, '{"id": "1", "prompt": "a\u2028b", "reference": "r", "cluster": null}\n\n{"id": "2", "prompt": "q"}'
    )
    assert load_items(path) == [Item("1", "a\u2028b", "r"), Item("2", "q")]
    pair = load_pairs(written(tmp_path, '{"id": "1", "prompt": "p", "better": "x", "worse": "y"}'))[0]
    assert (pair.better, pair.worse, pair.reference) == ("x", "y", None)
    path = written(tmp_path, '{"id": "1", "prediction": "", "seconds": 3}')
    assert load_predictions(path) == {"1": ""}


def test_the_items_that_generate_answers_are_read(tmp_path: Path) -> None:
    conversation = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "last"},
    ]
    rows: list[dict[str, object]] = [
        {"id": 1, "text": "t", "reference": 42, "source": "somewhere"},
        {"id": 2, "messages": conversation, "text": None},
        {"id": 3, "text": "t", "prompt": "p"},
    ]
    path = written(tmp_path, "\ufeff" + "".join(json.dumps(row) + "\n" for row in rows))
    assert load_items(path) == [Item("1", "t", "42"), Item("2", "last"), Item("3", "p")]
    pair = {"id": 7, "text": "t", "better": 1, "worse": 2, "source": "somewhere"}
    assert load_pairs(written(tmp_path, json.dumps(pair))) == [LabelledPair("7", "t", "1", "2")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_of_another_format_is_told_from_a_wrong_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"items.{suffix}"
    path.write_text("id,prompt\n1,p\n")
    with pytest.raises(InvalidInput, match="JSON Lines only"):
        load_items(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no lines"),
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"id": "1", "prompt": "\\ud800"}', "'prompt' holds half a surrogate pair"),
        ("[1]", "an? JSON object is expected"),
        ('{"id": "1"}', "line 1: there is no prompt; its columns are 'id'.*prompt, in text, or in messages"),
        ('{"prompt": "p", "key": 1}', "line 1: there is no id; its columns are 'key', 'prompt'.*rename a column"),
        ('{"id": "1", "messages": [{"role": "system", "content": "s"}]}', "no message of the user"),
        ('{"id": "1", "messages": "hello"}', "no message of the user"),
        ('{"id": "1", "messages": [{"role": "user", "content": null}]}', "'messages' must be a non-empty text"),
        ('{"id": true, "prompt": "p"}', "'id' must be a non-empty text"),
        ('{"id": "1", "prompt": " "}', "'prompt' must be a non-empty text"),
        ('{"id": "1", "prompt": "p"}\n{"id": "1", "prompt": "q"}', "line 2: the id '1' was used in line 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        load_items(written(tmp_path, text))


def test_a_pair_of_equal_answers_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="are the same"):
        load_pairs(written(tmp_path, '{"id": "1", "prompt": "p", "better": "x", "worse": "x "}'))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        load_items(tmp_path / "nowhere.jsonl")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match=r"lines\.jsonl: it is not UTF-8"):
        load_items(path)


def test_the_digest_of_a_set_does_not_depend_on_its_order() -> None:
    items = [Item("1", "a"), Item("2", "b", "r")]
    assert items_digest(items) == items_digest(items[::-1])
    assert items_digest(items) != items_digest([Item("1", "a"), Item("2", "b")])
