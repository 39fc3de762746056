"""Where the ModelKit is looked up that another is based on, also after both were copied elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit.kitfile import Kitfile, Model, ModelPart
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.parents import parents_of
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import InvalidReference, NotFound
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.memory_target import MemoryTarget
from tests.unit.modelkit.conftest import Write
from tests.unit.oci.fake_server import Answer, FakeServer, Request, fake_server

FIRST = "first.example:5000"
BASE = Kitfile(model=Model(name="base", path="w"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(StoreConfig(layout=tmp_path / "store")) as store:
        yield store


@pytest.fixture
def base(write: Write) -> tuple[MemoryTarget, ModelKit]:
    """A base in the first registry."""
    target = MemoryTarget()
    return target, pack(write({"w/a": "1", "adapter/b": "2"}), BASE, target)


def tuned(store: Store, base: str, write: Write) -> ModelKit:
    kitfile = Kitfile(model=Model(path=base, parts=(ModelPart(path="adapter"),)))
    return pack(write({"adapter/b": "2"}), kitfile, store.target("team/tuned"), "v1")


def test_a_base_that_was_copied_along_is_found_by_its_digest(
    store: Store, base: tuple[MemoryTarget, ModelKit], write: Write, tmp_path: Path
) -> None:
    first, packed = base
    digest = packed.descriptor.digest
    tuned(store, f"{FIRST}/team/base@{digest}", write)
    with pytest.raises(
        NotFound, match=rf"^The base model {FIRST}/team/base@{digest} \(model.path of the K.*local layout.*Copy it"
    ):
        unpack(store.target("team/tuned"), "v1", tmp_path / "out", parents=parents_of(store))
    assert not (tmp_path / "out").exists()
    copy(first, digest, store.target("team/base"))
    unpack(store.target("team/tuned"), "v1", tmp_path / "out", parents=parents_of(store))
    assert (tmp_path / "out" / "w" / "a").read_text() == "1"


def test_a_base_of_another_registry_must_be_pinned(store: Store, write: Write, tmp_path: Path) -> None:
    pack(write({"w/a": "of somebody else"}), BASE, store.target("team/base"), "v1")
    tuned(store, f"{FIRST}/team/base:v1", write)
    with pytest.raises(InvalidReference, match="not pinned by a digest"):
        unpack(store.target("team/tuned"), "v1", tmp_path / "out", parents=parents_of(store))


def test_a_missing_base_is_told_from_the_modelkit_that_was_named(store: Store, write: Write, tmp_path: Path) -> None:
    tuned(store, "team/middle:v1", write)
    with pytest.raises(NotFound, match=r"^The base model team/middle:v1 \(model\.path of the Kitfile\) cannot be read"):
        unpack(store.target("team/tuned"), "v1", tmp_path / "out", parents=parents_of(store))
    kitfile = Kitfile(model=Model(path="team/base:v1", parts=(ModelPart(path="adapter"),)))
    pack(write({"adapter/b": "2"}), kitfile, store.target("team/middle"), "v1")
    with pytest.raises(NotFound, match=r"^The base model team/base:v1 \(model\.path of team/middle:v1\)"):
        unpack(store.target("team/tuned"), "v1", tmp_path / "out", parents=parents_of(store))


@pytest.fixture
def second() -> Iterator[FakeServer]:
    with fake_server() as running:
        yield running


@pytest.mark.parametrize("missing", [404, 401, 403])
@pytest.mark.parametrize("place", ["team/base", "mirror/team/base"])
def test_in_a_registry_the_path_is_tried_as_it_stands_and_below_the_namespace(
    second: FakeServer, place: str, missing: int
) -> None:
    manifest = json.dumps({"schemaVersion": 2}).encode()
    digest = Descriptor.of(MANIFEST, manifest).digest

    def answer(request: Request) -> Answer:
        if request.path == f"/v2/{place}/manifests/{digest}":
            return Answer(200, manifest, {"Content-Type": MANIFEST, "Docker-Content-Digest": digest})
        return Answer(missing)

    second.answer = answer
    with Store(StoreConfig(second.host, namespace="mirror", plain_http=True)) as store:
        target, selector = parents_of(store)(f"{FIRST}/team/base@{digest}")
        assert (target.name, selector) == (f"{second.host}/{place}", digest)
        with pytest.raises(NotFound, match=f"in {second.host}"):
            parents_of(store)(f"{FIRST}/team/other@{digest}")


def test_a_base_without_registry_or_of_this_one_is_where_it_says(second: FakeServer) -> None:
    with Store(StoreConfig(second.host, namespace="mirror", plain_http=True)) as store:
        found = [parents_of(store)(text) for text in ("team/base:v1", f"{second.host}/team/base", "team/base:v1")]
    assert [(target.name.partition("/")[2], selector) for target, selector in found] == [
        ("mirror/team/base", "v1"),
        ("team/base", "latest"),
        ("mirror/team/base", "v1"),
    ]
    assert second.requests == []
