"""The fine-tuning itself: base and data in, adapter and metrics out."""

from __future__ import annotations

import json
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput, WorkloadFailed
from airflow_provider_kitops.workload.answers import answers
from airflow_provider_kitops.workload.finetune.checkpoints import Checkpoints
from airflow_provider_kitops.workload.finetune.config import LOWER_RATE, FineTuneConfig
from airflow_provider_kitops.workload.finetune.data import Data, load_data
from airflow_provider_kitops.workload.fingerprint import fingerprint
from airflow_provider_kitops.workload.machine import Machine
from airflow_provider_kitops.workload.models import (
    ADAPTER_FILE,
    find_model,
    load_base,
    load_tokenizer,
)
from airflow_provider_kitops.workload.program import Directories, check_metrics, write_metrics
from airflow_provider_kitops.workload.progress import WorkloadProgress, report
from airflow_provider_kitops.workload.settings import dump_settings
from airflow_provider_kitops.workload.task import Task


def finetune(config: FineTuneConfig, directories: Directories) -> None:
    """Fine-tune and write ``adapter/``, ``metrics.json`` and ``config.yaml`` to the output directory.

    Everything that can be wrong with the input is found before a model is loaded. The same input gives the same
    bytes on the same machine without a GPU, also when the run was interrupted and went on from a checkpoint.
    SIGTERM during the training ends it after the step that is under way, with a checkpoint; a second one at once.

    :raises InvalidInput: settings, data or base cannot be used.
    :raises WorkloadFailed: loss, weights or a metric are no numbers any more. The checkpoints stay.
    :raises SystemExit: with 143, after SIGTERM.
    """
    report(WorkloadProgress("load"))
    data = load_data(config, directories.inputs)
    files = find_model(directories.inputs, config.base)
    if files.adapter:
        raise InvalidInput(
            f"The base model comes with an adapter ({files.adapter.relative_to(directories.inputs)}).",
            hint="Fine-tune the base that the adapter was made for.",
        )
    machine = Machine.of(config)
    tokenizer = load_tokenizer(files)
    task = Task.decide(config, data.labels, tokenizer)
    model = load_base(files, task, tokenizer, machine, quantize=config.method == "qlora")
    model = _with_adapter(model, config)
    checkpoints = Checkpoints(directories.checkpoints / "finetune", fingerprint([config], data.files, files))
    from airflow_provider_kitops.workload.finetune.termination import Termination
    from airflow_provider_kitops.workload.finetune.trainer import make_trainer, train

    termination = Termination()
    trainer = make_trainer(model, tokenizer, task, data, config, checkpoints, termination)
    last = checkpoints.last()
    if last is not None:
        _say(f"Going on from the checkpoint of step {last.rpartition('-')[2]}.")
    train(trainer, checkpoints, termination)
    if termination.requested:
        _say(f"Terminated: the checkpoint of step {trainer.state.global_step} is whole, the next run goes on from it.")
        raise SystemExit(128 + signal.SIGTERM)
    _check_weights(model)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    metrics: dict[str, Any] = {
        "task": task.task,
        "method": config.method,
        "seed": config.seed,
        "train_examples": len(data.train),
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0.0, 4),
        "trainable_parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        "train_loss": _mean(losses),
        "final_train_loss": _mean(losses[-10:]),
    }
    if data.held_out:
        metrics.update(_evaluate(trainer, model, tokenizer, task, data, config))
    check_metrics(metrics)
    _save(model, task, directories, files.base)
    dump_settings(config, directories.output / "config.yaml")
    write_metrics(metrics, directories)
    _say(f"Fine-tuned: {json.dumps(metrics)}")
    checkpoints.remove()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the log of the program


def _with_adapter(model: Any, config: FineTuneConfig) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    if config.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config.gradient_checkpointing)
    layers = None
    targets: str | list[str] = list(config.lora_targets)
    if config.lora_targets == ("all-linear",):
        targets = "all-linear"
    if config.lora_last_layers is not None:
        count = model.config.get_text_config().num_hidden_layers
        layers = list(range(max(0, count - config.lora_last_layers), count))
        if targets == "all-linear":
            targets = _linear_names(model)
    try:
        return get_peft_model(
            model,
            LoraConfig(
                task_type=TaskType.SEQ_CLS if config.task == "sequence-classification" else TaskType.CAUSAL_LM,
                r=config.lora_rank,
                lora_alpha=config.lora_alpha,
                lora_dropout=config.lora_dropout,
                target_modules=targets,
                layers_to_transform=layers,
            ),
        )
    except ValueError as error:
        raise InvalidInput(
            f"Cannot put an adapter on this base: {error}",
            hint=f"Its linear modules are: {', '.join(_linear_names(model))}.",
        ) from error


def _linear_names(model: Any) -> list[str]:
    """Last parts of the names of all linear modules inside the layers (not of the heads on top)."""
    import torch

    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and any(part.isdigit() for part in name.split("."))
        }
    )


def _check_weights(model: Any) -> None:
    """The loss of a step is computed before the step is made: after the last one, only the weights can tell."""
    for name, weights in model.named_parameters():
        if weights.requires_grad and not bool(weights.isfinite().all()):
            raise WorkloadFailed(f"The trained weights {name} are no numbers any more.", hint=LOWER_RATE)


def _evaluate(
    trainer: Any, model: Any, tokenizer: Any, task: Task, data: Data, config: FineTuneConfig
) -> dict[str, Any]:
    report(WorkloadProgress("evaluate", 0, len(data.held_out)))
    measured: dict[str, Any] = {
        "eval_examples": len(data.held_out),
        "eval_loss": round(trainer.evaluate()["eval_loss"], 6),
    }
    if task.labels is None:
        return measured
    right = done = 0
    questions = [example.question for example in data.held_out]
    for batch in answers(model, tokenizer, task, questions, batch_size=config.eval_batch_size):
        for answer in batch:
            right += answer.text == data.held_out[done].answer
            done += 1
        report(WorkloadProgress("evaluate", done, len(questions)))
    measured["eval_accuracy"] = round(right / done, 6)
    return measured


def _save(model: Any, task: Task, directories: Directories, base: Path) -> None:
    directory = directories.output / "adapter"
    if directory.exists():
        shutil.rmtree(directory)
    with warnings.catch_warnings():
        # A base from a GGUF file has no config.json, which PEFT looks for to learn whether the vocabulary has grown.
        warnings.simplefilter("ignore", UserWarning)
        model.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)
    # PEFT writes where the base was on this machine, and sets in the order of this process.
    path = directory / ADAPTER_FILE
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["base_model_name_or_path"] = base.relative_to(directories.inputs).as_posix()
    for key in ("target_modules", "modules_to_save"):
        if isinstance(saved.get(key), list):
            saved[key].sort()
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    task.save(directory)


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 6) if values else 0.0
