"""Find and load models in unpacked ModelKits: a Hugging Face folder or a GGUF file, and an adapter on it.

Nothing is ever downloaded, and no code that comes with a model is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.machine import Machine
from airflow_provider_kitops.workload.task import Task

ADAPTER_FILE = "adapter_config.json"


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk.

    :param base: Hugging Face folder, or GGUF file.
    :param adapter: folder of the adapter; None for an untuned base.
    """

    base: Path
    adapter: Path | None = None

    @property
    def is_gguf(self) -> bool:
        """Whether the base is a GGUF file, which is turned into full-size weights while it is loaded."""
        return self.base.suffix == ".gguf"


def find_model(inputs: Path, base: str | None = None, adapter: str | None = None) -> ModelFiles:
    """The model below ``inputs``: a base by ``config.json`` or ``*.gguf``, an adapter by ``adapter_config.json``.

    :param base: folder or file, relative to ``inputs``; by default the only one there is.
    :param adapter: folder, likewise; an empty text means that no adapter is wanted.
    :raises InvalidInput: no base, several bases or adapters and none chosen, or a choice that is none.
    """
    return ModelFiles(_find_base(inputs, base), _find_adapter(inputs, adapter))


def _find_base(inputs: Path, name: str | None) -> Path:
    if name is not None:
        path = inputs / name
        if path.is_dir():
            inside = [each for each in _bases(path) if each.parent == path or each == path]
            if len(inside) == 1:
                return inside[0]
        elif path.is_file() and path.suffix == ".gguf":
            return path
        raise InvalidInput(f"There is no base model {name!r} in {inputs}.", hint=_there(inputs, _bases(inputs)))
    found = _bases(inputs)
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidInput(
            f"Found no base model in {inputs}.",
            hint="A base is a folder with config.json and weights, or one .gguf file.",
        )
    raise InvalidInput(f"Found several base models in {inputs}.", hint="Choose with base. " + _there(inputs, found))


def _find_adapter(inputs: Path, name: str | None) -> Path | None:
    if name == "":
        return None
    found = sorted(path.parent for path in inputs.rglob(ADAPTER_FILE))
    if name is not None:
        if inputs / name not in found:
            raise InvalidInput(f"There is no adapter {name!r} in {inputs}.", hint=_there(inputs, found))
        return inputs / name
    if len(found) > 1:
        raise InvalidInput(f"Found several adapters in {inputs}.", hint="Choose with adapter. " + _there(inputs, found))
    return found[0] if found else None


def _bases(directory: Path) -> list[Path]:
    folders = [
        path.parent
        for path in directory.rglob("config.json")
        if not (path.parent / ADAPTER_FILE).exists()
        and (any(path.parent.glob("*.safetensors")) or any(path.parent.glob("pytorch_model*.bin")))
    ]
    return sorted([*folders, *(path for path in directory.rglob("*.gguf") if path.is_file())])


def _there(inputs: Path, paths: Iterable[Path]) -> str:
    return "There are: " + (", ".join(str(path.relative_to(inputs)) for path in paths) or "none") + "."


def load_tokenizer(files: ModelFiles) -> Any:
    """The base's tokenizer, with a padding token (the end-of-text token where it has none).

    :raises InvalidInput: there is no usable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        with _parsed_once(files):
            tokenizer = AutoTokenizer.from_pretrained(**_source(files))
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise InvalidInput(f"Cannot load a tokenizer from {files.base}: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise InvalidInput(f"The tokenizer of {files.base} has no end-of-text token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(files: ModelFiles, task: Task, tokenizer: Any, machine: Machine, *, quantize: bool = False) -> Any:
    """The base model on ``machine``; for classification with a new head of one output for each label.

    Random numbers start here: head, adapter and training draw from the seed in this order.

    :param quantize: load the weights in 4 bits (NF4, double quantisation) for QLoRA.
    :raises InvalidInput: the folder or file is no model of a known kind, or this machine cannot quantise.
    """
    import transformers

    machine.start_random()
    arguments: dict[str, Any] = {**_source(files), "dtype": machine.dtype}
    if files.is_gguf and hasattr(transformers, "GgufConfig"):
        # An adapter is trained on plain weights; blocks kept packed cannot pass gradients on.
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if quantize:
        arguments["quantization_config"] = _four_bits(files, machine)
        arguments["device_map"] = {"": 0}
    kind = "AutoModelForCausalLM"
    if task.task == "sequence-classification":
        assert task.labels is not None
        kind = "AutoModelForSequenceClassification"
        arguments.update(
            num_labels=len(task.labels),
            id2label=dict(enumerate(task.labels)),
            label2id={label: number for number, label in enumerate(task.labels)},
        )
    try:
        with _parsed_once(files):
            model = getattr(transformers, kind).from_pretrained(**arguments)
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise InvalidInput(f"Cannot load a base model from {files.base}: {_first_line(error)}") from error
    # A classifier looks for the last token that is no padding, so the model must know which token that is.
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:  # classifiers have none
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if files.is_gguf:
        # The weights are plain numbers by now; the mark that stays behind would forbid training them.
        model.hf_quantizer = None
    return model if quantize else model.to(machine.device)


def load_adapter(model: Any, adapter: Path) -> Any:
    """``model`` with the adapter on it, ready to answer.

    :raises InvalidInput: the adapter is damaged or made for another base.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(adapter)).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InvalidInput(
            f"Cannot put the adapter {adapter.name} on the base model: {_first_line(error)}",
            hint="It must have been trained on this base.",
        ) from error


def _source(files: ModelFiles) -> dict[str, Any]:
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if files.is_gguf:
        return {"pretrained_model_name_or_path": str(files.base.parent), "gguf_file": files.base.name, **common}
    return {"pretrained_model_name_or_path": str(files.base), **common}


@contextmanager
def _parsed_once(files: ModelFiles) -> Iterator[None]:
    """Let Transformers read a GGUF file's metadata once in a process.

    It reads them anew for tokenizer, config and weights, and makes the table of tensor names anew for every module.
    Both depend on nothing but the file, and take most of the time that loading a small model takes.
    """
    if not files.is_gguf:
        yield
        return
    import gguf

    before = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = _reader, _names
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


@cache
def _reader(path: str) -> Any:
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(path)


@cache
def _names(architecture: Any, blocks: int) -> Any:
    from gguf.tensor_mapping import get_tensor_name_map

    return get_tensor_name_map(architecture, blocks)


def _four_bits(files: ModelFiles, machine: Machine) -> Any:
    import importlib.util

    if machine.device != "cuda":
        raise InvalidInput("QLoRA needs a CUDA GPU, and there is none.", hint="Use method: lora.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InvalidInput(
            "QLoRA needs the package bitsandbytes, which is not installed.",
            hint="Install airflow-provider-kitops[qlora], or use method: lora.",
        )
    if files.is_gguf:
        raise InvalidInput(
            "QLoRA cannot quantise a GGUF file anew.", hint="Use a Hugging Face folder as base, or method: lora."
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=machine.dtype,
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:500]
