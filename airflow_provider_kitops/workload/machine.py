"""What a reference program computes on, and with which random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.machine_settings import MachineSettings


@dataclass(frozen=True)
class Machine:
    """Everything decided.

    :param device: ``cuda`` or ``cpu``.
    :param dtype: PyTorch's type of the weights.
    :param seed: of everything random.
    """

    device: str
    dtype: Any
    seed: int

    @classmethod
    def of(cls, settings: MachineSettings) -> Machine:
        """Choose, and let PyTorch use the threads that it is allowed.

        :raises InvalidInput: a GPU is asked for and there is none.
        """
        import torch

        available = torch.cuda.is_available()
        if settings.device == "cuda" and not available:
            raise InvalidInput("device is cuda, but PyTorch finds no GPU.", hint="Use device: auto or cpu.")
        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = "cuda" if available and settings.device != "cpu" else "cpu"
        usual = "bfloat16" if device == "cuda" else "float32"
        return cls(device, getattr(torch, usual if settings.dtype == "auto" else settings.dtype), settings.seed)

    def start_random(self) -> None:
        """Seed Python, NumPy and PyTorch, and on a CPU allow only algorithms that give the same bits each time."""
        import torch
        import transformers

        transformers.set_seed(self.seed)
        torch.use_deterministic_algorithms(self.device == "cpu")
