"""Rows of a dataset file: JSONL, CSV or Parquet, with named columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput

SUFFIXES = (".jsonl", ".csv", ".parquet")


def find_file(inputs: Path, name: str | None, stems: Sequence[str], setting: str) -> Path:
    """The dataset file that ``name`` says, or the only file called ``STEM.jsonl``, ``.csv`` or ``.parquet``.

    :param inputs: directory that ``name`` is relative to, and that is searched.
    :param stems: names to look for, the first that is found wins.
    :param setting: the setting that would name the file, for the message.
    :raises InvalidInput: there is no such file, or several.
    """
    files = sorted(path for path in inputs.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    there = ", ".join(str(path.relative_to(inputs)) for path in files[:20]) or "none"
    if name is not None:
        path = inputs / name
        if not path.is_file():
            raise InvalidInput(f"There is no data file {name!r} in {inputs}.", hint=f"The data files are: {there}.")
        if path.suffix not in SUFFIXES:
            raise InvalidInput(f"Cannot read {name!r}.", hint=f"Data files end in {', '.join(SUFFIXES)}.")
        return path
    for stem in stems:
        found = [path for path in files if path.stem == stem]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(str(path.relative_to(inputs)) for path in found)
            raise InvalidInput(f"There are several {stem} files: {names}.", hint=f"Choose one with {setting}.")
    raise InvalidInput(
        f"Found no {' or '.join(stems)} file ({', '.join(SUFFIXES)}) in {inputs}.",
        hint=f"Name it with {setting}. The data files are: {there}.",
    )


def read_records(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of ``path`` in order. Every row has the same columns as the first.

    :param limit: read no more rows than this.
    :raises InvalidInput: unreadable, empty, or a row that is no row; the message names the line.
    """
    try:
        rows = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[path.suffix](path, limit)
    except KeyError:
        raise InvalidInput(f"Cannot read {path}.", hint=f"Data files end in {', '.join(SUFFIXES)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"Cannot read {path}: {error}.") from error
    if not rows:
        raise InvalidInput(f"The data file {path.name} is empty.")
    return rows


def need_columns(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Check that every row has a value in each of ``columns``.

    :raises InvalidInput: naming the columns there are, or the first row without a value.
    """
    for column in columns:
        if column not in rows[0]:
            raise InvalidInput(
                f"{path.name} has no column {column!r}.", hint=f"Its columns are: {', '.join(map(str, rows[0]))}."
            )
        for number, row in enumerate(rows, 1):
            if row.get(column) is None or row[column] == "":
                raise InvalidInput(f"Row {number} of {path.name} has nothing in column {column!r}.")


def _jsonl(path: Path, limit: int | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if limit is not None and len(rows) >= limit:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except RecursionError:
                raise InvalidInput(f"Line {number} of {path.name} is nested too deeply.") from None
            except ValueError as error:
                raise InvalidInput(f"Line {number} of {path.name} is no JSON: {error}.") from error
            if not isinstance(row, dict):
                raise InvalidInput(f"Line {number} of {path.name} is no JSON object.")
            rows.append(row)
    return rows


def _csv(path: Path, limit: int | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if limit is not None and len(rows) >= limit:
                    break
                if None in row or None in row.values():
                    raise InvalidInput(
                        f"Line {reader.line_num} of {path.name} has another number of fields than its header."
                    )
                rows.append(dict(row))
        except csv.Error as error:
            raise InvalidInput(f"Line {reader.line_num} of {path.name} is no CSV: {error}.") from error
    return rows


def _parquet(path: Path, limit: int | None) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                rows.extend(batch.to_pylist())
                if limit is not None and len(rows) >= limit:
                    return rows[:limit]
    except pyarrow.ArrowException as error:
        raise InvalidInput(f"{path.name} is no readable Parquet file: {error}.") from error
    return rows
