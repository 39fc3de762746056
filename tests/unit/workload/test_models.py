from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.models import find_model


def touch(inputs: Path, *names: str) -> Path:
    for name in names:
        path = inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return inputs


def test_a_folder_with_config_and_weights_is_a_base(tmp_path: Path) -> None:
    touch(tmp_path, "base/smol/config.json", "base/smol/model.safetensors", "dataset/config.json")
    found = find_model(tmp_path)
    assert (found.base, found.adapter, found.is_gguf) == (tmp_path / "base/smol", None, False)


def test_a_gguf_file_is_a_base_and_an_adapter_is_found_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "model/smol.gguf", "model/adapter/adapter_config.json", "model/adapter/adapter_model.safetensors")
    found = find_model(tmp_path)
    assert (found.base, found.adapter, found.is_gguf) == (
        tmp_path / "model/smol.gguf",
        tmp_path / "model/adapter",
        True,
    )
    assert find_model(tmp_path, adapter="").adapter is None


def test_an_adapters_folder_is_no_base(tmp_path: Path) -> None:
    touch(tmp_path, "m/adapter_config.json", "m/config.json", "m/adapter_model.safetensors")
    with pytest.raises(InvalidInput, match="Found no base model"):
        find_model(tmp_path)


def test_of_several_bases_one_must_be_chosen(tmp_path: Path) -> None:
    touch(tmp_path, "base/a.gguf", "base/b.gguf")
    with pytest.raises(InvalidInput, match=r"several base models.*There are: base/a\.gguf, base/b\.gguf"):
        find_model(tmp_path)
    assert find_model(tmp_path, "base/b.gguf").base == tmp_path / "base/b.gguf"


def test_of_several_adapters_one_must_be_chosen(tmp_path: Path) -> None:
    touch(tmp_path, "base/a.gguf", "x/adapter_config.json", "y/adapter_config.json")
    with pytest.raises(InvalidInput, match=r"several adapters.*There are: x, y"):
        find_model(tmp_path)
    assert find_model(tmp_path, adapter="y").adapter == tmp_path / "y"


def test_a_choice_that_is_none_says_what_there_is(tmp_path: Path) -> None:
    touch(tmp_path, "base/a.gguf", "x/adapter_config.json")
    with pytest.raises(InvalidInput, match=r"no base model 'bsae'.*There are: base/a\.gguf"):
        find_model(tmp_path, "bsae")
    with pytest.raises(InvalidInput, match=r"no adapter 'z'.*There are: x"):
        find_model(tmp_path, adapter="z")


def test_a_chosen_folder_may_hold_the_gguf_file(tmp_path: Path) -> None:
    touch(tmp_path, "base/a.gguf", "other/b.gguf")
    assert find_model(tmp_path, "base").base == tmp_path / "base/a.gguf"
