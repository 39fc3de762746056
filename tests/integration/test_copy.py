"""Copying between a local layout and registries, both ways."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator

import pytest

from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.copy import CopyResult, copy
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import Conflict, DigestMismatch
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.oci.target import Progress, Target
from tests.artifacts import LAYER, put_artifact, put_index, put_referrer
from tests.registry import Registry


@pytest.fixture
def local(tmp_path) -> Store:
    return Store(StoreConfig(layout=tmp_path / "layout"))


@pytest.fixture
def remote(each_registry: Registry) -> Iterator[Store]:
    config = StoreConfig(
        each_registry.host,
        namespace=f"copy-{uuid.uuid4().hex}",
        username=each_registry.username,
        password=each_registry.password,
        plain_http=True,
    )
    with Store(config) as store:
        yield store


def size_of(target: Target, manifest: Descriptor, *layers: bytes) -> int:
    config = len(b'{"layers": 0}')
    return manifest.size + config + sum(map(len, layers))


def test_there_and_back_again_keeps_every_byte(local: Store, remote: Store) -> None:
    layers = [os.urandom(size) for size in (2_500_000, 10, 1)]
    manifest = put_artifact(local.target("a"), *layers, tag="v1")
    pushed = copy(local.target("a"), "v1", remote.target("b"), ["v1", "latest"])
    assert pushed == CopyResult(manifest, size_of(local.target("a"), manifest, *layers), 0, 0)
    pulled = copy(remote.target("b"), "latest", local.target("c"), "v2")
    assert pulled.descriptor == manifest
    assert read(local.target("c"), manifest) == read(local.target("a"), manifest)
    assert [read(local.target("c"), Descriptor.of(LAYER, layer)) for layer in layers] == layers
    assert (remote.target("b").tags(), local.target("c").tags()) == (["latest", "v1"], ["v2"])


def test_the_second_time_everything_is_skipped(local: Store, remote: Store) -> None:
    put_artifact(local.target("a"), b"x" * 1000, tag="v1")
    first = copy(local.target("a"), "v1", remote.target("a"), "v1")
    again = copy(local.target("a"), "v1", remote.target("a"), "v1")
    assert (again.copied, again.skipped, again.mounted) == (0, first.copied + first.skipped, 0)


def test_inside_one_registry_blobs_are_mounted(remote: Store, each_registry: Registry) -> None:
    layer = os.urandom(100_000)
    manifest = put_artifact(remote.target("a"), layer, tag="v1")
    result = copy(remote.target("a"), "v1", remote.target("b"), "v1")
    # Where every repository has the blobs of all, there is nothing to mount.
    there = result.mounted if each_registry.full else result.skipped
    assert (result.copied, there) == (manifest.size, len(layer) + len(b'{"layers": 1}'))
    assert read(remote.target("b"), Descriptor.of(LAYER, layer)) == layer


def test_between_two_registries_nothing_touches_the_disk(remote: Store, registry: Registry) -> None:
    layer = os.urandom(3_000_000)
    manifest = put_artifact(remote.target("a"), layer, tag="v1")
    with Store(StoreConfig(registry.host, plain_http=True)) as other:
        where = other.target(remote.config.namespace)
        assert copy(remote.target("a"), "v1", where, "v1").copied == size_of(where, manifest, layer)
        assert read(where, Descriptor.of(LAYER, layer)) == layer


def test_referrers_and_theirs_go_along_when_asked(local: Store, remote: Store) -> None:
    model = put_artifact(local.target("a"), b"weights", tag="v1")
    note = put_referrer(local.target("a"), model)
    signature = put_referrer(local.target("a"), note, "application/vnd.example.signature")
    copy(local.target("a"), "v1", remote.target("plain"), "v1")
    assert remote.target("plain").referrers(model) == []
    copy(local.target("a"), "v1", remote.target("a"), "v1", referrers=True)
    assert [item.digest for item in remote.target("a").referrers(model)] == [note.digest]
    assert [item.digest for item in remote.target("a").referrers(note)] == [signature.digest]
    copy(remote.target("a"), "v1", local.target("back"), "v1", referrers=True)
    assert [item.digest for item in local.target("back").referrers(note)] == [signature.digest]


def test_a_referrer_that_was_never_listed_is_listed_by_the_next_copy(
    local: Store, remote: Store, each_registry: Registry
) -> None:
    if not each_registry.full:
        pytest.skip("this registry lists by itself")
    model = put_artifact(local.target("a"), b"weights", tag="v1")
    note = put_referrer(local.target("a"), model)
    target = remote.target("a")
    copy(local.target("a"), "v1", target, "v1", referrers=True)
    target._referrers._update(model, note, present=False)  # type: ignore[attr-defined]
    assert target.referrers(model) == []
    copy(local.target("a"), "v1", target, "v1", referrers=True)
    assert [item.digest for item in target.referrers(model)] == [note.digest]


def test_an_index_brings_all_that_it_lists(local: Store, remote: Store) -> None:
    parts = [put_artifact(local.target("a"), text) for text in (b"one", b"two")]
    index = put_index(local.target("a"), *parts, tag="all")
    copy(local.target("a"), "all", remote.target("a"), "all")
    assert remote.target("a").resolve("all") == index
    assert all(remote.target("a").exists(part) for part in parts)


def test_a_tag_that_may_not_move_stops_the_copy_before_anything_is_sent(local: Store, remote: Store) -> None:
    first = put_artifact(local.target("a"), b"first", tag="v1")
    second = put_artifact(local.target("b"), b"second", tag="v1")
    copy(local.target("a"), "v1", remote.target("a"), "v1")
    with pytest.raises(Conflict) as caught:
        copy(local.target("b"), "v1", remote.target("a"), "v1")
    assert first.digest in str(caught.value)
    assert second.digest in str(caught.value)
    assert not remote.target("a").exists(Descriptor.of(LAYER, b"second"))
    copy(local.target("b"), "v1", remote.target("a"), "champion")
    copy(local.target("a"), "v1", remote.target("a"), "champion")
    assert remote.target("a").resolve("champion") == first


def test_a_damaged_source_leaves_no_manifest_behind(local: Store, remote: Store, tmp_path) -> None:
    layer = os.urandom(700_000)
    manifest = put_artifact(local.target("a"), layer, b"small", tag="v1")
    path = tmp_path / "layout/a/blobs/sha256" / Descriptor.of(LAYER, layer).digest.partition(":")[2]
    path.chmod(0o644)
    path.write_bytes(bytes([layer[0] ^ 1]) + layer[1:])
    with pytest.raises(DigestMismatch):
        copy(local.target("a"), "v1", remote.target("a"), "v1")
    assert not remote.target("a").exists(manifest)
    assert remote.target("a").tags() == []


def test_progress_tells_all_bytes(local: Store, remote: Store) -> None:
    layer = os.urandom(2_100_000)
    put_artifact(local.target("a"), layer, tag="v1")
    steps: list[Progress] = []
    lock = threading.Lock()

    def hook(step: Progress) -> None:
        with lock:
            steps.append(step)

    result = copy(local.target("a"), "v1", remote.target("a"), "v1", on_progress=hook)
    ends = {step.name: step for step in steps}
    assert all(step.done == step.total for step in ends.values())
    assert sum(step.done for step in ends.values() if step.action == "upload") == result.copied
    assert {step.action for step in steps} <= {"upload", "skip"}
    assert next(step.done for step in steps if step.total == len(layer)) < len(layer)
