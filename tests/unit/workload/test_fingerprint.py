from __future__ import annotations

import random
from pathlib import Path

import pytest

from airflow_provider_kitops.workload.finetune.config import FineTuneConfig
from airflow_provider_kitops.workload.fingerprint import fingerprint
from airflow_provider_kitops.workload.models import ModelFiles

CONFIG = FineTuneConfig()
SIZE = 20 * 1024 * 1024  # weights of more than this many bytes are not read whole


def folder(root: Path) -> ModelFiles:
    base = root / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text('{"layers": 2}')
    (base / "model.safetensors").write_bytes(b"small")
    (root / "train.jsonl").write_text("{}\n")
    return ModelFiles(base)


def named(files: ModelFiles, config: FineTuneConfig = CONFIG) -> str:
    return fingerprint([config], [files.base.parent / "train.jsonl"], files)


def test_the_same_run_elsewhere_has_the_same_name(tmp_path: Path) -> None:
    assert named(folder(tmp_path / "a")) == named(folder(tmp_path / "b"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("base/config.json", '{"layers": 3}'),
        ("base/model.safetensors", "sm411"),
        ("base/model-2.safetensors", ""),
        ("base/tokenizer.json", "{}"),
        ("train.jsonl", "[]\n"),
    ],
)
def test_another_base_under_the_same_path_or_other_data_is_another_run(tmp_path: Path, file: str, content: str) -> None:
    files = folder(tmp_path)
    before = named(files)
    (tmp_path / file).write_text(content)
    assert named(files) != before


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    files = folder(tmp_path)
    assert named(files) != named(files, FineTuneConfig(seed=1))


def test_an_adapter_counts_too(tmp_path: Path) -> None:
    files = folder(tmp_path)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    tuned = ModelFiles(files.base, adapter)
    before = named(tuned)
    assert before != named(files)
    (adapter / "adapter_model.safetensors").write_bytes(b"two")
    assert named(tuned) != before


@pytest.mark.parametrize("name", ["base/model.safetensors", "model.gguf"])
def test_large_weights_of_the_same_size_but_other_numbers_are_another_run(tmp_path: Path, name: str) -> None:
    files = folder(tmp_path)
    weights = tmp_path / name
    if weights.suffix == ".gguf":
        files = ModelFiles(weights)
    names = set()
    for seed in (1, 2):
        weights.write_bytes(random.Random(seed).randbytes(SIZE))
        names.add(named(files))
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0")
    assert len({*names, named(files)}) == 3
