"""Datasets that another ModelKit holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit.kitfile import Code, Dataset, Kitfile
from airflow_provider_kitops.modelkit.manifest import CONFIG_TYPE, manifest_bytes
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.parents import parents_of
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.descriptor import MANIFEST
from airflow_provider_kitops.oci.errors import InvalidInput, LimitExceeded, NotFound, UnsafePath
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.unit.modelkit.conftest import Write


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StoreConfig(layout=tmp_path / "store"))


@pytest.fixture
def kit(store: Store, write: Write) -> None:
    """A ModelKit whose training data is the datasets of another, which has code too."""
    context = write({"train.csv": "1", "raw/a.csv": "2", "prepare.py": "x", "src/m.py": "y"})
    data = Kitfile(datasets=(Dataset("t", "train.csv"), Dataset("r", "raw")), code=(Code(path="prepare.py"),))
    pack(context, data, store.target("demo/data"), "v1")
    remote = Dataset("train", "data/train", remote_path="demo/data:v1")
    pack(context, Kitfile(code=(Code(path="src"),), datasets=(remote,)), store.target("demo/model"), "v1")


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("kit")
def test_they_are_unpacked_below_the_path_of_their_entry_on_request(store: Store, tmp_path: Path) -> None:
    unpack(store.target("demo/model"), "v1", tmp_path / "out", include_remote=True, parents=parents_of(store))
    assert files(tmp_path / "out") == {"Kitfile", "src/m.py", "data/train/train.csv", "data/train/raw/a.csv"}


@pytest.mark.usefixtures("kit")
def test_without_the_request_they_are_warned_about(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unpack(store.target("demo/model"), "v1", tmp_path / "out", parents=parents_of(store))
    assert files(tmp_path / "out") == {"Kitfile", "src/m.py"}
    assert "demo/data:v1" in caplog.text


@pytest.mark.usefixtures("kit")
def test_a_filter_leaves_them_out(store: Store, tmp_path: Path) -> None:
    target = store.target("demo/model")
    unpack(target, "v1", tmp_path / "out", ["code"], include_remote=True, parents=parents_of(store))
    assert files(tmp_path / "out") == {"src/m.py"}
    unpack(target, "v1", tmp_path / "two", ["datasets:train"], include_remote=True, parents=parents_of(store))
    assert files(tmp_path / "two") == {"data/train/train.csv", "data/train/raw/a.csv"}


def test_one_that_is_not_there_or_not_in_a_registry_fails_before_anything_is_written(
    store: Store, write: Write, tmp_path: Path
) -> None:
    context = write({"src/m.py": "y"})
    named = r"^The dataset d \(remotePath demo/nothing:v1\) cannot be read"
    for dataset, error, said in (
        (Dataset("d", "data", remote_path="demo/nothing:v1"), NotFound, named),
        (Dataset("d", "data", remote_path="s3://bucket/x", remote_hash="sha256:1"), InvalidInput, "SHA-256"),
    ):
        pack(context, Kitfile(code=(Code(path="src"),), datasets=(dataset,)), store.target("demo/model"), "latest")
        with pytest.raises(error, match=said):
            unpack(
                store.target("demo/model"),
                "latest",
                tmp_path / "out",
                include_remote=True,
                parents=parents_of(store),
            )
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("kit")
@pytest.mark.parametrize(
    "path", ["../up", "/abs", "a\0b", "\ud800", "C:/x", "s\\..\\x", ".modelkit-unpack-x", "d/" * 200 + "d"]
)
def test_the_path_of_an_entry_is_as_hostile_as_a_name_in_a_layer(store: Store, tmp_path: Path, path: str) -> None:
    target = store.target("demo/model")
    good = ModelKit.read(target, "v1")
    config = good.config.replace(b'"data/train"', json.dumps(path).encode())
    made = target.push(CONFIG_TYPE, config)
    evil = target.push(MANIFEST, manifest_bytes(made, [layer.descriptor for layer in good.layers], {}))
    with pytest.raises((UnsafePath, LimitExceeded, InvalidInput)):
        unpack(target, evil.digest, tmp_path / "in/out", include_remote=True, parents=parents_of(store))
    assert not (tmp_path / "in").exists()


def test_the_place_may_be_the_directory_itself(store: Store, write: Write, tmp_path: Path) -> None:
    context = write({"train.csv": "1", "src/m.py": "y"})
    pack(context, Kitfile(datasets=(Dataset("t", "train.csv"),)), store.target("demo/data"), "v1")
    remote = Dataset("t", ".", remote_path="demo/data:v1")
    pack(context, Kitfile(datasets=(remote,)), store.target("demo/model"), "v1")
    unpack(store.target("demo/model"), "v1", tmp_path / "out", include_remote=True, parents=parents_of(store))
    assert files(tmp_path / "out") == {"Kitfile", "train.csv"}
