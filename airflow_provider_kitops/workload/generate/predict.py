"""The generation itself: model and items in, one prediction for each item out."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.answers import Answer, Sampling, answers
from airflow_provider_kitops.workload.fingerprint import fingerprint
from airflow_provider_kitops.workload.generate.config import GenerateConfig
from airflow_provider_kitops.workload.machine import Machine
from airflow_provider_kitops.workload.models import (
    ModelFiles,
    find_model,
    load_adapter,
    load_base,
    load_tokenizer,
)
from airflow_provider_kitops.workload.program import Directories, write_metrics
from airflow_provider_kitops.workload.progress import WorkloadProgress, report
from airflow_provider_kitops.workload.records import find_file, need_columns, read_records
from airflow_provider_kitops.workload.settings import dump_settings
from airflow_provider_kitops.workload.task import Question, Task


@dataclass(frozen=True)
class _Item:
    id: str
    question: Question
    reference: str | None


def generate(config: GenerateConfig, directories: Directories) -> None:
    """Answer every item and write ``predictions.jsonl``, ``metrics.json`` and ``config.yaml`` to the output directory.

    A prediction is ``{"id", "prompt", "prediction"}``, with ``reference`` where the item has one and ``probability``
    where a classifier chose; they are in the order of the items. A run that was killed goes on after its last whole
    batch, with the same result.

    :raises InvalidInput: settings, items or model cannot be used.
    :raises WorkloadFailed: the model's probabilities are no numbers.
    """
    report(WorkloadProgress("load"))
    items, path = _load_items(config, directories.inputs)
    files = find_model(directories.inputs, config.base, config.adapter)
    saved = Task.load(files.adapter) if files.adapter else None
    if files.adapter and saved is None:
        raise InvalidInput(
            f"The adapter {files.adapter.relative_to(directories.inputs)} has no task.json.",
            hint="It says how the model is asked; an adapter made elsewhere needs one written by hand.",
        )
    machine = Machine.of(config)
    tokenizer = load_tokenizer(files)
    task = saved or Task.decide(config, None, tokenizer)
    name = fingerprint([config, task], [path], files)
    journal = _Journal(directories.checkpoints / "generate", name, config.batch_size)
    written = journal.read(items)
    if len(written) < len(items):
        model = load_base(files, task, tokenizer, machine)
        model = load_adapter(model, files.adapter) if files.adapter else model.eval()
        written = _answer(config, model, tokenizer, task, items, written, journal)
    lines = "".join(_line(item, answer) for item, answer in zip(items, written, strict=True))
    (directories.output / "predictions.jsonl").write_text(lines, encoding="utf-8")
    metrics = _metrics(task, files, items, written)
    write_metrics(metrics, directories)
    dump_settings(config, directories.output / "config.yaml")
    print(f"Generated: {json.dumps(metrics)}", flush=True)  # noqa: T201 - the log of the program
    journal.remove()


def _load_items(config: GenerateConfig, inputs: Path) -> tuple[list[_Item], Path]:
    path = find_file(inputs, config.items, ("items",), "items")
    rows = read_records(path, config.limit)
    column = config.question_column
    if column is None:
        column = next((each for each in ("text", "messages", "prompt") if each in rows[0]), "text")
    need_columns(rows, [config.id_column, column], path)
    items: list[_Item] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        name, question, reference = str(row[config.id_column]), row[column], row.get(config.reference_column)
        if name in seen:
            raise InvalidInput(f"Row {number} of {path.name} has the id {name!r} of an earlier row.")
        seen.add(name)
        if isinstance(question, list):
            if not question or not all(
                isinstance(each, dict) and {"role", "content"} <= set(each) for each in question
            ):
                raise InvalidInput(f"Row {number} of {path.name} is no list of messages with role and content.")
        else:
            question = str(question)
        items.append(_Item(name, question, None if reference is None else str(reference)))
    return items, path


def _answer(
    config: GenerateConfig,
    model: Any,
    tokenizer: Any,
    task: Task,
    items: Sequence[_Item],
    written: list[Answer],
    journal: _Journal,
) -> list[Answer]:
    questions = [item.question for item in items[len(written) :]]
    sampling = Sampling(config.temperature, config.top_p, config.seed)
    began, tokens, before = time.monotonic(), 0, len(written)
    for batch in answers(
        model,
        tokenizer,
        task,
        questions,
        batch_size=config.batch_size,
        sampling=sampling,
        first_batch=len(written) // config.batch_size,
    ):
        journal.append(items[len(written) : len(written) + len(batch)], batch)
        written = [*written, *batch]
        tokens += sum(answer.tokens for answer in batch)
        seconds = max(time.monotonic() - began, 1e-9)
        report(
            WorkloadProgress(
                "generate",
                len(written),
                len(items),
                tokens_per_second=tokens / seconds if tokens else None,
                eta=(len(items) - len(written)) * seconds / (len(written) - before),
            )
        )
    return written


def _line(item: _Item, answer: Answer) -> str:
    value: dict[str, Any] = {"id": item.id, "prompt": item.question, "prediction": answer.text}
    if item.reference is not None:
        value["reference"] = item.reference
    if answer.probability is not None:
        value["probability"] = answer.probability
    return json.dumps(value, ensure_ascii=False) + "\n"


def _metrics(task: Task, files: ModelFiles, items: Sequence[_Item], written: Sequence[Answer]) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "task": task.task,
        "tuned": files.adapter is not None,
        "items": len(items),
        "empty_answers": sum(not answer.text for answer in written),
    }
    if task.labels:
        metrics["answers_that_are_labels"] = sum(answer.text in task.labels for answer in written)
    judged = [(item, answer) for item, answer in zip(items, written, strict=True) if item.reference is not None]
    if judged:
        right = sum(item.reference == answer.text for item, answer in judged)
        metrics["exact_match"] = round(right / len(judged), 6)
    return metrics


class _Journal:
    """Answers given so far, whole batches only, so that a killed run goes on with the same batches."""

    def __init__(self, directory: Path, fingerprint: str, batch_size: int) -> None:
        self.path, self.batch_size = directory / f"{fingerprint}.jsonl", batch_size
        if directory.exists() and not self.path.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)

    def read(self, items: Sequence[_Item]) -> list[Answer]:
        """The answers of whole batches; what comes after them is cut off."""
        if not self.path.exists():
            return []
        found: list[Answer] = []
        whole = b""
        for number, raw in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            try:
                batch = json.loads(raw)
            except ValueError:
                break
            start = number * self.batch_size
            expected = [item.id for item in items[start : start + self.batch_size]]
            if not raw.endswith(b"\n") or [each["id"] for each in batch] != expected:
                break
            found += [Answer(each["text"], each["tokens"], each["probability"]) for each in batch]
            whole += raw
        self.path.write_bytes(whole)
        return found

    def append(self, items: Sequence[_Item], batch: Sequence[Answer]) -> None:
        """Write one batch, and be sure that it is written."""
        values = [
            {"id": item.id, "text": answer.text, "tokens": answer.tokens, "probability": answer.probability}
            for item, answer in zip(items, batch, strict=True)
        ]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """The run is over."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
