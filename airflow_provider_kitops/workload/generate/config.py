"""All settings of a generation, in one place."""

from __future__ import annotations

from pydantic import Field

from airflow_provider_kitops.workload.machine_settings import MachineSettings
from airflow_provider_kitops.workload.task import TaskSettings


class GenerateConfig(TaskSettings, MachineSettings):
    """Settings of ``workload.generate``, beside those of task and machine.

    The task's are for an untuned base only. A fine-tuned model brings the task it was trained for, and is
    asked in no other way.

    :param base, adapter: below the inputs; by default the only ones there are. An empty ``adapter`` means the base
        alone.
    :param items: data file below the inputs; by default the only ``items.jsonl``, ``.csv`` or ``.parquet``.
    :param id_column: what names an item; each once.
    :param question_column: text or messages to answer; by default ``text``, ``messages`` or ``prompt``,
        whichever there is first.
    :param reference_column: the right answer, if the items have one; the accuracy comes from it.
    :param limit: answer only this many items, from the start.
    :param batch_size: items at once.
    :param temperature: 0 always takes the likeliest token; above, tokens are drawn at random.
    :param top_p: draw only from the likeliest tokens that have this much probability together.
    """

    base: str | None = None
    adapter: str | None = None
    items: str | None = None
    id_column: str = "id"
    question_column: str | None = None
    reference_column: str = "reference"
    limit: int | None = Field(default=None, ge=1)

    batch_size: int = Field(default=16, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
