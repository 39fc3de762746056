"""What is judged must not have been trained on, whatever the seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput
from demo.dataset import Row, Sizes, read_own, write_datasets

SIZES = Sizes(train=10, items=12, pairs=8, words=5)
LABELS = ("cars", "guns", "space")


def rows(prefix: str, count: int) -> list[Row]:
    return [Row(f"{prefix} {number} some words and more of them", LABELS[number % 3]) for number in range(count)]


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_both_trained_on_and_judged(tmp_path: Path, seed: int) -> None:
    train = rows("old", 60)
    # Some messages stand in both parts, as cross-posts do.
    write_datasets(tmp_path, train, rows("new", 30) + train[:20], SIZES, seed)
    trained = {row["text"] for row in read(tmp_path / "all" / "train.jsonl")}
    items = read(tmp_path / "all" / "items.jsonl")
    pairs = read(tmp_path / "all" / "pairs.jsonl")
    assert len(trained) == 30
    assert len(items) == 12
    assert len(pairs) == 8
    assert not trained & {row["prompt"] for row in items}
    assert not trained & {pair["prompt"] for pair in pairs}
    assert all(pair["better"] == pair["reference"] != pair["worse"] for pair in pairs)


def test_the_datasets_differ_only_in_what_is_trained_on(tmp_path: Path) -> None:
    write_datasets(tmp_path, rows("old", 60), rows("new", 30), SIZES, 0)
    for name in ("items.jsonl", "pairs.jsonl"):
        assert len({(tmp_path / part / name).read_bytes() for part in ("all", "some", "shuffled")}) == 1
    everything, some, shuffled = (read(tmp_path / part / "train.jsonl") for part in ("all", "some", "shuffled"))
    assert len({row["label"] for row in everything}) == 3
    assert len({row["label"] for row in some}) == 2
    assert all(row in everything for row in some)
    assert [row["text"] for row in some] == [row["text"] for row in shuffled]
    assert sorted(row["label"] for row in some) == sorted(row["label"] for row in shuffled)
    assert some != shuffled


def test_a_dataset_that_is_too_small_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="12 rows are needed for held-out items, 3 are left"):
        write_datasets(tmp_path, rows("old", 60), rows("new", 3), SIZES, 0)


def test_a_file_of_ones_own_needs_text_and_label(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("text,class\na,b\n")
    with pytest.raises(InvalidInput, match=r"no column 'label'.*text, class"):
        read_own(file)
    with pytest.raises(InvalidInput, match="There is no dataset"):
        read_own(tmp_path / "missing.csv")


def test_a_quarter_of_ones_own_file_is_held_out(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps({"text": f"t{n}", "label": LABELS[n % 3]}) + "\n" for n in range(40)))
    train, test = read_own(file)
    assert len(test) == 10
    assert not {row.text for row in train} & {row.text for row in test}
    assert (train, test) == read_own(file)
