"""Specifications for the reference programs: what to hand to ``run_local`` or to a pod to fine-tune or to generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_kitops.workload.spec import WorkloadSpec

#: Names of the reference programs' inputs: the content is in ``$KITOPS_INPUTS/NAME``.
BASE, DATASET, MODEL = "base", "dataset", "model"


def finetune_spec(
    *,
    base: str,
    dataset: str,
    output: str,
    config: Mapping[str, Any],
    tags: Sequence[str] = (),
    name: str = "",
    version: str = "",
    description: str = "",
    **more: Any,
) -> WorkloadSpec:
    """A specification that fine-tunes ``base`` on ``dataset``.

    The output's Kitfile names the base by digest (it is not packed again) and the adapter as a model part, so that
    whoever unpacks it gets both.

    :param base: reference, by digest, of the ModelKit with the base model.
    :param dataset: reference, by digest, of the ModelKit with the training data.
    :param output: repository, with a tag if one is to be set.
    :param config: settings of ``workload.finetune``.
    :param tags: further tags.
    :param name: the ModelKit's name; left out if empty.
    :param more: further fields of the specification (``image``, ``resources``, ``env``).
    :raises InvalidInput: a field cannot be used.
    """
    kitfile = {
        "manifestVersion": "1.0.0",
        "package": _package(name, version, description),
        "model": {
            "name": "model",
            "path": f"{{inputs.{BASE}}}",
            "framework": "transformers",
            "parts": [{"name": "adapter", "path": "adapter", "type": "lora-adapter"}],
        },
        "code": [{"path": "config.yaml", "description": "Settings of the fine-tuning, defaults filled in"}],
        "docs": [{"path": "metrics.json", "description": "Metrics of the fine-tuning"}],
    }
    return WorkloadSpec.of(
        inputs={BASE: base, DATASET: dataset},
        command=("python", "-m", "airflow_provider_kitops.workload.finetune"),
        config=dict(config),
        output={"reference": output, "kitfile": kitfile, "tags": tuple(tags)},
        **more,
    )


def generate_spec(
    *,
    model: str,
    items: str,
    output: str,
    config: Mapping[str, Any],
    tags: Sequence[str] = (),
    name: str = "",
    version: str = "",
    description: str = "",
    **more: Any,
) -> WorkloadSpec:
    """A specification that answers every item with ``model``: a fine-tuned ModelKit, or an untuned base.

    :param model: reference, by digest, of the ModelKit whose answers are wanted.
    :param items: reference, by digest, of the ModelKit with the items.
    :param output: repository of the predictions, with a tag if one is to be set.
    :param config: settings of ``workload.generate``.
    :param tags: further tags.
    :param name: the ModelKit's name; left out if empty.
    :param more: further fields of the specification (``image``, ``resources``, ``env``).
    :raises InvalidInput: a field cannot be used.
    """
    kitfile = {
        "manifestVersion": "1.0.0",
        "package": _package(name, version, description),
        "datasets": [
            {"name": "predictions", "path": "predictions.jsonl", "description": "One answer for each item, in order"}
        ],
        "code": [{"path": "config.yaml", "description": "Settings of the generation, defaults filled in"}],
        "docs": [{"path": "metrics.json", "description": "Counts and, where the items tell, the accuracy"}],
    }
    return WorkloadSpec.of(
        inputs={MODEL: model, DATASET: items},
        command=("python", "-m", "airflow_provider_kitops.workload.generate"),
        config=dict(config),
        output={"reference": output, "kitfile": kitfile, "tags": tuple(tags)},
        **more,
    )


def _package(name: str, version: str, description: str) -> dict[str, str]:
    fields = {"name": name, "version": version, "description": description}
    return {key: value for key, value in fields.items() if value}
