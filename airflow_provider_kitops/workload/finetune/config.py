"""All settings of a fine-tuning, in one place."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from airflow_provider_kitops.workload.machine_settings import MachineSettings
from airflow_provider_kitops.workload.task import TaskSettings

#: What helps where training runs away.
LOWER_RATE = "Use a lower learning_rate."


class FineTuneConfig(TaskSettings, MachineSettings):
    """Settings of ``workload.finetune``, beside those of task and machine.

    Where the data and the base are:

    :param base: folder or ``.gguf`` file below the inputs; by default the only one there is.
    :param train: data file below the inputs; by default the only ``train.jsonl``, ``.csv`` or ``.parquet``.
    :param eval: data file to measure on after training; by default none.
    :param eval_fraction: part of the training data to hold out for measuring, drawn by ``seed``; 0 holds out none.
    :param limit: use no more than this many rows of the training data, from its start.
    :param data: how rows are read; by default by the columns that they have.
    :param text_column, label_column, prompt_column, completion_column, messages_column: names of the columns.

    How it is trained:

    :param method: ``lora``, or ``qlora`` (base in 4 bits; needs a CUDA GPU and bitsandbytes).
    :param epochs: times over the data; a fraction is allowed. ``max_steps`` wins.
    :param max_steps: optimizer steps.
    :param batch_size: rows per step on the device, times ``gradient_accumulation_steps``.
    :param gradient_accumulation_steps: batches whose gradients are added up for one step.
    :param learning_rate: highest learning rate.
    :param schedule: how it goes down.
    :param warmup_ratio: part of the steps in which it goes up first.
    :param weight_decay: AdamW's decay of the weights.
    :param max_grad_norm: longer gradients are cut to this length.
    :param gradient_checkpointing: save memory, take more time.

    What is trained:

    :param lora_rank, lora_alpha, lora_dropout: the adapter's size, scale and dropout.
    :param lora_targets: names of the modules that get an adapter; ``all-linear`` for all linear ones.
    :param lora_last_layers: only this many of the last layers get one; cheaper, since gradients stop there.

    How it runs:

    :param checkpoint_steps: steps between checkpoints; 0 writes none.
    :param eval_batch_size: rows at once when measuring.
    """

    base: str | None = None
    train: str | None = None
    eval: str | None = None
    eval_fraction: float = Field(default=0.0, ge=0, lt=1)
    limit: int | None = Field(default=None, ge=1)
    data: Literal["auto", "text-label", "prompt-completion", "messages"] = "auto"
    text_column: str = "text"
    label_column: str = "label"
    prompt_column: str = "prompt"
    completion_column: str = "completion"
    messages_column: str = "messages"

    method: Literal["lora", "qlora"] = "lora"
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = False

    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=16, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_targets: tuple[str, ...] = ("all-linear",)
    lora_last_layers: int | None = Field(default=None, ge=1)

    checkpoint_steps: int = Field(default=50, ge=0)
    eval_batch_size: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _one_held_out_split(self) -> Self:
        if self.eval is not None and self.eval_fraction:
            raise ValueError("eval and eval_fraction exclude each other")
        if self.task == "sequence-classification" and self.data not in ("auto", "text-label"):
            raise ValueError("a sequence classifier is trained on text-label data")
        return self
