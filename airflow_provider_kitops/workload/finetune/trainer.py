"""The trainers: TRL's for causal language models, Transformers' for classifiers, with this package's progress lines.

Imports torch, transformers and trl when it is imported; nothing does that before the input has been checked.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from airflow_provider_kitops.oci.errors import WorkloadFailed
from airflow_provider_kitops.workload.answers import pad
from airflow_provider_kitops.workload.finetune.checkpoints import Checkpoints
from airflow_provider_kitops.workload.finetune.config import LOWER_RATE, FineTuneConfig
from airflow_provider_kitops.workload.finetune.data import Data, Example
from airflow_provider_kitops.workload.finetune.termination import Termination
from airflow_provider_kitops.workload.progress import WorkloadProgress, report
from airflow_provider_kitops.workload.task import Task

_IGNORED = -100  # label of tokens that do not count in the loss


def make_trainer(
    model: Any,
    tokenizer: Any,
    task: Task,
    data: Data,
    config: FineTuneConfig,
    checkpoints: Checkpoints,
    termination: Termination,
) -> Any:
    """A trainer, ready to ``train()``, for ``model`` with its adapter.

    :param termination: once it is asked for, the trainer saves a checkpoint after the step that it is in, and stops.
    """
    classify = task.task == "sequence-classification"
    arguments: dict[str, Any] = {
        "output_dir": str(checkpoints.directory),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.eval_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_checkpointing": config.gradient_checkpointing,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_ratio,  # below 1 it is a part of all steps
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch",
        "seed": config.seed,
        "bf16": next(model.parameters()).dtype == torch.bfloat16,
        "fp16": next(model.parameters()).dtype == torch.float16,
        "use_cpu": model.device.type == "cpu",
        "save_strategy": "steps" if config.checkpoint_steps else "no",
        "save_steps": config.checkpoint_steps or 1,
        "save_total_limit": 2,
        "eval_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show a loss that is no number as 0
        "disable_tqdm": True,
        "report_to": [],
        "remove_unused_columns": False,
        "dataloader_pin_memory": model.device.type == "cuda",
    }
    parts: dict[str, Any] = {
        "model": model,
        "train_dataset": _dataset(data.train, tokenizer, task),
        "eval_dataset": _dataset(data.held_out, tokenizer, task) if data.held_out else None,
        "processing_class": tokenizer,
        "data_collator": _Collator(tokenizer.pad_token_id, task, _accepts(model, "position_ids")),
    }
    if classify:
        trainer: Any = _ClassifierTrainer(args=TrainingArguments(**arguments), **parts)
    else:
        # Rows come as tokens, cut to length already; TRL has nothing left to prepare.
        trainer = _WriterTrainer(args=SFTConfig(**arguments, max_length=None), **parts)
    # Only this package's lines; the default would print every log entry.
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "PrinterCallback":
            trainer.remove_callback(callback)
    trainer.add_callback(_Progress(trainer, checkpoints))
    trainer.add_callback(_Stopping(termination))
    return trainer


def train(trainer: Any, checkpoints: Checkpoints, termination: Termination) -> None:
    """Train to the end, or until termination is asked for: then there is a checkpoint of the last step that was made.

    Goes on from the last whole checkpoint, if there is one.
    """
    with termination.deferred():
        with contextlib.suppress(_NothingLeft):
            trainer.train(resume_from_checkpoint=checkpoints.last())
        step = trainer.state.global_step
        if termination.requested and not checkpoints.is_whole(step):
            # It was asked for when the last step had been made already.
            trainer._save_checkpoint(trainer.model, None)
            checkpoints.mark(step)


class _Counting:
    """Counts the tokens trained on, for the progress lines."""

    tokens = 0

    def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        self.tokens += int(inputs["attention_mask"].sum())
        return super().training_step(model, inputs, *more, **named)  # type: ignore[misc]


class _ClassifierTrainer(_Counting, Trainer):  # type: ignore[misc]
    pass


class _WriterTrainer(_Counting, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, which on a CPU computes the vocabulary's logits only where an answer is.

    TRL's own loss does that with a GPU kernel; elsewhere it computes them for every token of the prompt, which for a
    short answer after a long prompt is much of the whole step.
    """

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if return_outputs or model.device.type != "cpu" or not _accepts(model, "logits_to_keep"):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        first = int((labels != _IGNORED).any(0).nonzero()[0])
        keep = labels.shape[1] - first + 1  # the token before the answer predicts its first
        named = {key: value for key, value in inputs.items() if key != "labels"}
        logits = model(**named, use_cache=False, logits_to_keep=keep).logits[:, :-1]
        wanted = labels[:, first:]
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        return loss / (num_items_in_batch if num_items_in_batch is not None else (wanted != _IGNORED).sum())


class _Collator:
    def __init__(self, pad_id: int, task: Task, positions: bool) -> None:
        self.pad_id, self.task, self.positions = pad_id, task, positions

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = pad([row["input_ids"] for row in rows], self.pad_id, self.task.task)
        if self.task.task == "sequence-classification":
            return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}
        length = batch["input_ids"].shape[1]
        batch["labels"] = torch.tensor([[_IGNORED] * (length - len(row["labels"])) + row["labels"] for row in rows])
        if self.positions:
            # As generate() counts them: the first real token is number 0, however much padding is before it.
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return batch


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Writes a progress line for each step, at most ten a second, and marks whole checkpoints."""

    def __init__(self, trainer: Any, checkpoints: Checkpoints) -> None:
        self.trainer, self.checkpoints = trainer, checkpoints
        self.first = 0
        self.began = self.told = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.first = state.global_step
        self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            # Before a checkpoint of this step is written: there is nothing to go on from.
            raise WorkloadFailed(
                f"The training loss is {logs['loss']} in step {state.global_step}: it is no number any more.",
                hint=LOWER_RATE,
            )
        now = time.monotonic()
        last = state.global_step >= state.max_steps
        if not logs or "loss" not in logs or (now - self.told < 0.1 and not last):
            return
        self.told = now
        done, seconds = state.global_step - self.first, max(now - self.began, 1e-9)
        report(
            WorkloadProgress(
                "train",
                state.global_step,
                state.max_steps,
                loss=logs["loss"],
                tokens_per_second=self.trainer.tokens / seconds,
                eta=(state.max_steps - state.global_step) * seconds / max(done, 1),
            )
        )

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.checkpoints.mark(state.global_step)


class _NothingLeft(Exception):
    """The checkpoint is that of the last step. Transformers would make one step more in the middle of an epoch."""


class _Stopping(TrainerCallback):  # type: ignore[misc]
    """Ends the training early on request, with a checkpoint, whatever the settings say about those."""

    def __init__(self, termination: Termination) -> None:
        self.termination = termination

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step >= state.max_steps:
            raise _NothingLeft

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self.termination.requested:
            control.should_save = control.should_training_stop = True


def _dataset(examples: Sequence[Example], tokenizer: Any, task: Task) -> Any:
    rows: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for example in examples:
        prompt = task.prompt_ids(tokenizer, example.question)
        if task.task == "sequence-classification":
            assert task.labels is not None
            rows["input_ids"].append(prompt)
            rows["labels"].append(task.labels.index(example.answer))
        else:
            answer = task.answer_ids(tokenizer, example.answer)
            rows["input_ids"].append(prompt + answer)
            rows["labels"].append([_IGNORED] * len(prompt) + answer)
    return Dataset.from_dict(rows)


def _accepts(model: Any, argument: str) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return argument in inspect.signature(type(inner).forward).parameters
