"""Answers of a model, in batches: written by a causal language model, or chosen by a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.oci.errors import WorkloadFailed
from airflow_provider_kitops.workload.task import Question, Task, TaskKind


@dataclass(frozen=True)
class Answer:
    """One answer.

    :param text: the answer, without surrounding white space.
    :param tokens: tokens written (0 where a classifier chose).
    :param probability: of the chosen label; None where text was written.
    """

    text: str
    tokens: int = 0
    probability: float | None = None


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Temperature 0 is greedy: always the likeliest token.

    :param temperature: above 0, tokens are drawn at random.
    :param top_p: draw only from the likeliest tokens that have this much probability together.
    :param seed: each batch has its own stream of random numbers, made from this and the batch's place.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def answers(
    model: Any,
    tokenizer: Any,
    task: Task,
    questions: Sequence[Question],
    *,
    batch_size: int,
    sampling: Sampling | None = None,
    first_batch: int = 0,
) -> Iterator[list[Answer]]:
    """Answer ``questions`` batch by batch, in order.

    The same questions in the same batches give the same answers, whether the run was interrupted between or not.

    :param first_batch: number of the first batch, for its random numbers.
    :raises WorkloadFailed: a classifier's probabilities are no numbers.
    """
    import torch

    sampling = sampling or Sampling()
    model.eval()
    for number, start in enumerate(range(0, len(questions), batch_size), first_batch):
        batch = [task.prompt_ids(tokenizer, question) for question in questions[start : start + batch_size]]
        inputs = {key: value.to(model.device) for key, value in pad(batch, tokenizer.pad_token_id, task.task).items()}
        with torch.inference_mode():
            if task.task == "sequence-classification":
                yield _choose(model, task, inputs)
            else:
                torch.manual_seed(sampling.seed * 1_000_003 + number)
                yield _write(model, tokenizer, task, inputs, sampling)


def pad(batch: Sequence[Sequence[int]], pad_id: int, task: TaskKind) -> dict[str, Any]:
    """Token ids as one tensor with the mask that hides the padding; both (batch, length).

    Padding is in front where text is written (it must go on at the end), and behind where a head looks at the first
    or the last real token.
    """
    import torch

    length = max(len(ids) for ids in batch)
    rows, masks = [], []
    for ids in batch:
        missing = length - len(ids)
        front, behind = (0, missing) if task == "sequence-classification" else (missing, 0)
        rows.append([pad_id] * front + list(ids) + [pad_id] * behind)
        masks.append([0] * front + [1] * len(ids) + [0] * behind)
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def _choose(model: Any, task: Task, inputs: dict[str, Any]) -> list[Answer]:
    assert task.labels is not None
    probabilities = model(**inputs).logits.float().softmax(-1)
    best = probabilities.max(-1)
    if not bool(best.values.isfinite().all()):
        raise WorkloadFailed("The model's probabilities are no numbers.", hint="Its weights are broken: train anew.")
    return [
        Answer(task.labels[index], probability=round(probability, 6))
        for index, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _write(model: Any, tokenizer: Any, task: Task, inputs: dict[str, Any], sampling: Sampling) -> list[Answer]:
    from transformers import GenerationConfig

    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    # Settings that come with the base (its own temperature, repetition penalty) would silently change the answers.
    config = GenerationConfig(
        max_new_tokens=task.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **(drawn if sampling.temperature > 0 else {"do_sample": False}),
    )
    written = model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :]
    found = []
    for row in written.tolist():
        ids = row[: row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row
        found.append(Answer(tokenizer.decode(ids, skip_special_tokens=True).strip(), tokens=len(ids)))
    return found
