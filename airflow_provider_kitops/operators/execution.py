"""Where workloads run, as one setting: a DAG asks for the operators of the mode and stays the same in all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_kitops.operators.kubernetes import FineTuneKubernetesOperator, GenerateKubernetesOperator
from airflow_provider_kitops.operators.workload import FineTuneLocalOperator, GenerateLocalOperator


@dataclass(frozen=True)
class Execution:
    """The operators of one way to run workloads. All ways take the same arguments and return the same fields.

    :param name: the value of ``[kitops] execution``.
    :param fine_tune: makes the operator that fine-tunes.
    :param generate: makes the operator that lets a model answer items.
    """

    name: str
    fine_tune: Callable[..., Any]
    generate: Callable[..., Any]


_MODES = {
    "local": Execution("local", FineTuneLocalOperator, GenerateLocalOperator),
    "kubernetes": Execution("kubernetes", FineTuneKubernetesOperator, GenerateKubernetesOperator),
}


def execution(name: str | None = None) -> Execution:
    """The operators to use.

    :param name: mode; ``None`` means the option ``[kitops] execution``.
    :raises ValueError: there is no such mode.
    """
    name = name or conf.get("kitops", "execution", fallback="local")
    try:
        return _MODES[name]
    except KeyError:
        modes = ", ".join(_MODES)
        raise ValueError(f"[kitops] execution is {name!r}. The modes of this version are: {modes}.") from None
