from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.records import find_file, need_columns, read_records

ROWS = [{"text": "eins, zwei", "label": "zahl"}, {"text": 'ein "Hund"\nund mehr', "label": "tier"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_are_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"train{suffix}", ROWS)
    assert read_records(path) == ROWS
    assert read_records(path, limit=1) == ROWS[:1]


def test_a_label_of_digits_stays_a_text(tmp_path: Path) -> None:
    assert read_records(write(tmp_path / "a.csv", [{"text": "x", "label": "007"}])) == [{"text": "x", "label": "007"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.jsonl", "\n\n", "a.jsonl is empty"),
        ("a.csv", "text,label\n", "a.csv is empty"),
        ("a.jsonl", '{"a": 1}\n{"a": ', "Line 2 of a.jsonl is no JSON"),
        ("a.jsonl", '{"a": ' + "[" * 100_000, "Line 1 of a.jsonl is nested too deeply"),
        ("a.jsonl", "[1]\n", "Line 1 of a.jsonl is no JSON object"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "Line 3 of a.csv has another number of fields"),
        ("a.csv", "a,b\n1\n", "Line 2 of a.csv has another number of fields"),
        ("a.parquet", "no parquet", "a.parquet is no readable Parquet"),
        ("a.txt", "x", "Data files end in .jsonl, .csv, .parquet"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_records(tmp_path / name)


def test_a_missing_column_is_named_beside_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no column 'labels'\. Its columns are: text, label\."):
        need_columns(ROWS, ["text", "labels"], Path("train.jsonl"))


@pytest.mark.parametrize("row", [{"text": "x"}, {"text": "x", "label": None}, {"text": "x", "label": ""}])
def test_a_row_without_a_value_is_named(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"Row 3 of train\.jsonl has nothing in column 'label'"):
        need_columns([*ROWS, row], ["label"], Path("train.jsonl"))


def test_the_file_is_found_by_its_usual_name(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    path = write(tmp_path / "dataset" / "train.csv", ROWS)
    write(tmp_path / "dataset" / "items.jsonl", ROWS)
    assert find_file(tmp_path, None, ["train"], "train") == path
    assert find_file(tmp_path, "dataset/items.jsonl", [], "train").name == "items.jsonl"


def test_no_file_and_several_files_are_errors_that_say_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "items.jsonl", ROWS)
    with pytest.raises(InvalidInput, match=r"Found no train file.*The data files are: items\.jsonl"):
        find_file(tmp_path, None, ["train"], "train")
    with pytest.raises(InvalidInput, match=r"no data file 'x\.jsonl'.*The data files are: items\.jsonl"):
        find_file(tmp_path, "x.jsonl", ["train"], "train")
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(InvalidInput, match=r"several train files: train\.csv, train\.jsonl\. Choose one with train"):
        find_file(tmp_path, None, ["train"], "train")
