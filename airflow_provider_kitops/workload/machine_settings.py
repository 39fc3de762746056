"""What a reference program may be told about the machine. Apart from it, since a DAG file checks settings too."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


class MachineSettings(BaseModel):
    """The part of the settings that says how a program runs.

    :param seed: of everything random.
    :param device, dtype: ``auto`` is a GPU with bfloat16 if there is one, else the CPU with float32.
    :param threads: CPU threads; by default PyTorch's choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, lt=2**31)
    device: Device = "auto"
    dtype: DType = "auto"
    threads: int | None = Field(default=None, ge=1)
