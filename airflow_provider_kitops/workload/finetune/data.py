"""Training data: rows of a file as questions with answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.finetune.config import FineTuneConfig
from airflow_provider_kitops.workload.records import find_file, need_columns, read_records
from airflow_provider_kitops.workload.task import Question, split_messages


@dataclass(frozen=True)
class Example:
    """A question with its right answer (a label, where there are labels)."""

    question: Question
    answer: str


@dataclass(frozen=True)
class Data:
    """What is trained and measured on.

    :param files: the files read, for the fingerprint of the run.
    :param labels: the labels, sorted; None where answers are free text.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    labels: tuple[str, ...] | None
    files: tuple[Path, ...]


def load_data(config: FineTuneConfig, inputs: Path) -> Data:
    """Read, check and split the data.

    :raises InvalidInput: no file, no row, a missing column, or a label that training knows nothing of.
    """
    path = find_file(inputs, config.train, ("train",), "train")
    rows = read_records(path, config.limit)
    kind = config.data if config.data != "auto" else _kind(config, rows, path)
    train = _examples(config, kind, rows, path)
    held_out: list[Example] = []
    files = [path]
    if config.eval is not None:
        held_out_path = find_file(inputs, config.eval, (), "eval")
        held_out = _examples(config, kind, read_records(held_out_path), held_out_path)
        files.append(held_out_path)
    elif config.eval_fraction:
        train, held_out = _split(train, config)
    labels = None
    if kind == "text-label":
        labels = _labels(config, train, held_out)
    return Data(train, held_out, labels, tuple(files))


def _kind(config: FineTuneConfig, rows: Sequence[dict[str, Any]], path: Path) -> str:
    ways = {
        "text-label": (config.text_column, config.label_column),
        "prompt-completion": (config.prompt_column, config.completion_column),
        "messages": (config.messages_column,),
    }
    if config.task == "sequence-classification":
        return "text-label"
    for kind, columns in ways.items():
        if all(column in rows[0] for column in columns):
            return kind
    wanted = " or ".join(" and ".join(map(repr, columns)) for columns in ways.values())
    raise InvalidInput(
        f"{path.name} has no columns {wanted}.", hint=f"Its columns are: {', '.join(map(str, rows[0]))}."
    )


def _examples(config: FineTuneConfig, kind: str, rows: Sequence[dict[str, Any]], path: Path) -> list[Example]:
    if kind == "messages":
        need_columns(rows, [config.messages_column], path)
        return [
            Example(*split_messages(row[config.messages_column], f"Row {number} of {path.name}"))
            for number, row in enumerate(rows, 1)
        ]
    question, answer = (
        (config.text_column, config.label_column)
        if kind == "text-label"
        else (config.prompt_column, config.completion_column)
    )
    need_columns(rows, [question, answer], path)
    return [Example(str(row[question]), str(row[answer])) for row in rows]


def _split(examples: list[Example], config: FineTuneConfig) -> tuple[list[Example], list[Example]]:
    count = round(len(examples) * config.eval_fraction)
    if not 0 < count < len(examples):
        raise InvalidInput(
            f"eval_fraction {config.eval_fraction} of {len(examples)} rows leaves nothing to "
            + ("measure on." if count == 0 else "train on.")
        )
    chosen = set(random.Random(config.seed).sample(range(len(examples)), count))  # noqa: S311 - no secret
    return (
        [each for number, each in enumerate(examples) if number not in chosen],
        [each for number, each in enumerate(examples) if number in chosen],
    )


def _labels(config: FineTuneConfig, train: Sequence[Example], held_out: Sequence[Example]) -> tuple[str, ...]:
    seen = {example.answer for example in train}
    labels = config.labels or tuple(sorted(seen))
    if unknown := sorted(seen - set(labels)):
        raise InvalidInput(
            f"The training data has labels that are not among labels: {', '.join(map(repr, unknown[:10]))}.",
            hint=f"labels are: {', '.join(labels)}.",
        )
    if len(labels) < 2:
        raise InvalidInput(f"The training data has only one label, {labels[0]!r}: there is nothing to learn.")
    if unseen := sorted({example.answer for example in held_out} - seen):
        raise InvalidInput(
            f"The held-out data has labels that are not in the training data: {', '.join(map(repr, unseen[:10]))}.",
            hint=f"Labels trained on: {', '.join(sorted(seen))}.",
        )
    return labels
