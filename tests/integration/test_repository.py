"""The registry client against docker-registry 2.8, with and without authentication, and one with the referrers API."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import (
    DigestMismatch,
    Forbidden,
    InvalidReference,
    LimitExceeded,
    NotFound,
    RegistryUnavailable,
    Unauthorized,
)
from airflow_provider_kitops.oci.repository import Repository
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.oci.target import Target
from tests.artifacts import LAYER, manifest_bytes, put_artifact, put_referrer
from tests.registry import Registry, free_port, run_registry


@pytest.fixture
def store(each_registry: Registry) -> Iterator[Store]:
    with Store(config_of(each_registry)) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    return f"demo/{uuid.uuid4().hex}"


@pytest.fixture
def target(store: Store, name: str) -> Target:
    return store.target(name)


def config_of(registry: Registry, **more: object) -> StoreConfig:
    values = {"username": registry.username, "password": registry.password, "plain_http": True, **more}
    return StoreConfig(registry.host, **values)  # type: ignore[arg-type]


def absent(name: str = "x") -> Descriptor:
    return Descriptor.of(LAYER, name.encode())


def test_what_is_pushed_can_be_fetched(target: Target) -> None:
    data = os.urandom(3_000_000)
    manifest = put_artifact(target, data, b"", tag="v1")
    assert target.resolve("v1") == manifest == target.resolve(manifest.digest)
    layers = [Descriptor.from_json(item) for item in json.loads(read(target, manifest))["layers"]]
    assert [read(target, layer) for layer in layers] == [data, b""]
    assert target.tags() == ["v1"]


def test_a_stream_of_unknown_digest_is_hashed_on_the_way(target: Target) -> None:
    data = os.urandom(1_500_001)
    pieces = [data[at : at + 700_001] for at in range(0, len(data), 700_001)]
    assert target.push(LAYER, lambda: iter(pieces)) == Descriptor.of(LAYER, data)
    assert target.push(LAYER, lambda: iter([])) == Descriptor.of(LAYER, b"")
    assert read(target, Descriptor.of(LAYER, data)) == data


def test_a_blob_can_go_up_in_chunks(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(target, Repository)
    monkeypatch.setattr(target._client, "upload_chunk", 1_000_000)
    for size in (5_000_000, 5_500_000):
        data = os.urandom(size)
        blob = Descriptor.of(LAYER, data)
        assert target.push(LAYER if size == 5_000_000 else blob, lambda data=data: iter([data])) == blob
        assert read(target, blob, limit=size) == data


def test_a_blob_that_is_there_is_not_read_again(target: Target) -> None:
    layer = target.push(LAYER, b"bytes")

    def never() -> Iterator[bytes]:
        raise AssertionError("The source was read.")

    assert target.push(layer, never) == layer


def test_bytes_that_differ_from_their_descriptor_are_not_stored(target: Target, each_registry: Registry) -> None:
    data = os.urandom(600_000)
    claimed = Descriptor.of(LAYER, os.urandom(600_000))
    with pytest.raises(DigestMismatch, match=claimed.digest):
        target.push(claimed, lambda: iter([data]))
    with pytest.raises(DigestMismatch):
        target.push(Descriptor(LAYER, Descriptor.of(LAYER, data).digest, 599_999), lambda: iter([data]))
    if each_registry.full:  # where every repository has the blobs of all, an empty one is there
        with pytest.raises(DigestMismatch):
            target.push(Descriptor(LAYER, Descriptor.of(LAYER, b"").digest, 0), b"not empty")
    with pytest.raises(DigestMismatch):
        target.push(Descriptor.of(MANIFEST, b"{}"), b"{ }")
    assert not target.exists(claimed)
    assert not each_registry.blob(claimed.digest).exists()
    assert not each_registry.blob(Descriptor.of(LAYER, data).digest).exists()


def test_an_error_of_the_source_reaches_the_caller_and_ends_the_upload(
    target: Target, name: str, each_registry: Registry
) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 600_000
        raise PermissionError(13, "Permission denied", "weights.bin")

    with pytest.raises(PermissionError, match=r"weights\.bin"):
        target.push(LAYER, broken)
    assert not each_registry.full or each_registry.uploads(name) == 0


def test_a_manifest_keeps_its_bytes_under_every_tag(target: Target) -> None:
    manifest = put_artifact(target, b"one", tag="v1")
    before = read(target, manifest)
    for tag in ("v2", "latest"):
        target.tag(manifest, tag)
        assert target.resolve(tag) == manifest
    assert read(target, target.resolve("latest")) == before
    assert target.tags() == ["latest", "v1", "v2"]


def test_a_manifest_whose_blobs_are_missing_is_refused(target: Target, each_registry: Registry) -> None:
    if not each_registry.full:
        pytest.skip("this registry takes it")
    with pytest.raises(NotFound, match="MANIFEST_BLOB_UNKNOWN"):
        target.push(MANIFEST, manifest_bytes(absent(), [absent("y")]))


def test_a_manifest_larger_than_4_mib_is_refused_on_both_ways(target: Target) -> None:
    with pytest.raises(LimitExceeded):
        target.push(MANIFEST, b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(LimitExceeded):
        read(target, Descriptor(MANIFEST, absent().digest, 4 * 1024 * 1024 + 1))


def test_what_is_not_there_is_not_found(target: Target, each_registry: Registry) -> None:
    put_artifact(target, b"one")
    with pytest.raises(NotFound, match="v9"):
        target.resolve("v9")
    # The other registry answers the deletion of a blob that is not there with HTTP 500.
    for call in (target.fetch, target.delete) if each_registry.full else (target.fetch,):
        with pytest.raises(NotFound, match=absent().digest):
            call(absent())
        with pytest.raises(NotFound):
            call(Descriptor(MANIFEST, absent().digest, 10))
    with pytest.raises(NotFound):
        target.tag(Descriptor(MANIFEST, absent().digest, 10), "v1")
    assert not target.exists(absent())
    assert not target.exists(Descriptor(MANIFEST, absent().digest, 10))


def test_a_repository_that_does_not_exist_has_no_tags_and_no_referrers(target: Target) -> None:
    assert target.tags() == []
    assert target.referrers(Descriptor(MANIFEST, absent().digest, 10)) == []
    with pytest.raises(NotFound):
        target.resolve("latest")


def test_delete_removes_a_manifest_with_its_tags(target: Target, each_registry: Registry) -> None:
    manifest = put_artifact(target, b"one", tag="v1")
    target.tag(manifest, "v2")
    target.delete(manifest)
    assert not target.exists(manifest)
    assert not each_registry.full or target.tags() == []
    layer = Descriptor.of(LAYER, b"one")
    target.delete(layer)
    assert not target.exists(layer)


def test_untag_leaves_the_manifest(target: Target) -> None:
    manifest = put_artifact(target, b"one", tag="v1")
    target.tag(manifest, "v2")
    target.untag("v1")
    assert target.tags() == ["v2"]
    assert target.exists(manifest)
    with pytest.raises(NotFound):
        target.untag("v1")


def test_a_registry_that_does_not_delete_says_so(tmp_path) -> None:
    with run_registry(tmp_path, delete=False) as strict, Store(config_of(strict)) as store:
        target = store.target("demo/model")
        manifest = put_artifact(target, b"one", tag="v1")
        for refused in (lambda: target.delete(manifest), lambda: target.untag("v1")):
            with pytest.raises(Forbidden, match="switched off"):
                refused()
        assert target.resolve("v1") == manifest


def test_referrers_are_listed_by_the_api_or_else_the_tag_schema(target: Target) -> None:
    model = put_artifact(target, b"weights", tag="v1")
    note = put_referrer(target, model, note="first")
    other = put_referrer(target, model, "application/vnd.example.other")
    found = target.referrers(model)
    assert {item.digest for item in found} == {note.digest, other.digest}
    [listed] = target.referrers(model, "application/vnd.example.note")
    assert (listed.digest, listed.artifact_type, dict(listed.annotations)) == (
        note.digest,
        "application/vnd.example.note",
        {"note": "first"},
    )
    assert put_referrer(target, model, note="first") == note
    assert len(target.referrers(model)) == 2
    assert target.tags() == ["v1"]
    target.delete(note)
    assert [item.digest for item in target.referrers(model)] == [other.digest]


def test_the_tag_schema_is_used_only_where_there_is_no_api(each_registry: Registry, name: str) -> None:
    with Store(config_of(each_registry)) as store:
        model = put_artifact(store.target(name), b"weights", tag="v1")
        note = put_referrer(store.target(name), model)
    credentials = (each_registry.username, each_registry.password) if each_registry.username else None
    listed = requests.get(f"{each_registry.url}/v2/{name}/tags/list", auth=credentials, timeout=10).json()["tags"]
    assert ("v1" in listed, len(listed)) == (True, 2 if each_registry.full else 1)
    with Store(config_of(each_registry)) as fresh:  # that has not learnt anything yet
        assert [item.digest for item in fresh.target(name).referrers(model)] == [note.digest]


def test_referrers_that_clients_add_at_the_same_time_are_all_listed(each_registry: Registry, name: str) -> None:
    stores = [Store(config_of(each_registry)) for _ in range(4)]
    model = put_artifact(stores[0].target(name), b"weights")
    with ThreadPoolExecutor(4) as pool:
        added = [
            pool.submit(put_referrer, store.target(name), model, note=f"{number} {turn}")
            for turn in range(3)
            for number, store in enumerate(stores)
        ]
        digests = {each.result().digest for each in added}
    assert {item.digest for item in stores[0].target(name).referrers(model)} == digests
    for store in stores:
        store.close()


def test_an_upload_survives_a_restart_of_the_registry(tmp_path) -> None:
    data = os.urandom(4_000_000)
    port = free_port()
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        first = running.enter_context(run_registry(tmp_path, port=port))
        opened = 0

        def source() -> Iterator[bytes]:
            nonlocal opened
            opened += 1
            yield data[:2_000_000]
            if opened == 1:
                running.close()
                stack.enter_context(run_registry(tmp_path, port=port))
            yield data[2_000_000:]

        with Store(config_of(first)) as store:
            target = store.target("demo/model")
            assert target.push(LAYER, source) == Descriptor.of(LAYER, data)
            assert read(target, Descriptor.of(LAYER, data)) == data
        assert opened == 2


def test_a_blob_is_mounted_from_another_repository(
    store: Store, target: Target, name: str, each_registry: Registry
) -> None:
    layer = target.push(LAYER, os.urandom(1000))
    other = store.target(f"{name}-2")
    assert other.mount(layer, target) is each_registry.full  # type: ignore[attr-defined]
    assert other.exists(layer)
    assert not other.mount(absent(), target)  # type: ignore[attr-defined]
    assert not other.exists(absent())


def test_a_damaged_blob_never_reads_to_its_end(target: Target, each_registry: Registry) -> None:
    data = os.urandom(2_000_000)
    layer = target.push(LAYER, data)
    path = each_registry.blob(layer.digest)
    # The other registry looks by itself, and has it no longer.
    seen = DigestMismatch if each_registry.full else NotFound
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(seen), target.fetch(layer) as reader:
        reader.read()
    path.write_bytes(data[:-1])
    with pytest.raises(seen):
        read(target, layer)


def test_check_tells_whose_credentials_are_accepted(private_registry: Registry, registry: Registry) -> None:
    with Store(config_of(private_registry)) as store:
        assert store.check() == f"The registry {private_registry.host} answers and accepts the user robot."
    with Store(config_of(registry)) as store:
        assert store.check() == f"The registry {registry.host} answers and asks for no credentials."


def test_missing_and_wrong_credentials_are_told_apart(private_registry: Registry, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Store(config_of(private_registry, username="", password="")) as store:
        with pytest.raises(Unauthorized, match="Give credentials"):
            store.check()
        with pytest.raises(Unauthorized, match="Give credentials"):
            store.target("demo/model").push(LAYER, b"x")
    with Store(config_of(private_registry, password="another secret")) as store:
        with pytest.raises(Unauthorized, match="Check user and password") as caught:
            store.resolve("demo/model:v1")
        assert "another secret" not in str(caught.value) + repr(store.config)


def test_credentials_are_found_in_dockers_config_file(private_registry: Registry, tmp_path) -> None:
    auth = requests.auth._basic_auth_str(private_registry.username, private_registry.password).removeprefix("Basic ")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {f"http://{private_registry.host}/v2/": {"auth": auth}}}))
    for where in (config, tmp_path):
        with Store(config_of(private_registry, username="", password="", docker_config=where)) as store:
            assert "accepts the user robot" in store.check()


def test_nobody_listening_is_unavailable_and_transient() -> None:
    host = f"127.0.0.1:{free_port()}"
    with Store(StoreConfig(host, plain_http=True)) as store:
        store.target("x")
        with pytest.raises(RegistryUnavailable, match="connection refused") as caught:
            store.check()
    assert caught.value.transient
    assert host in str(caught.value)


def test_tls_to_a_plain_registry_hints_at_plain_http(registry: Registry) -> None:
    with Store(StoreConfig(registry.host)) as store, pytest.raises(RegistryUnavailable, match="plain_http") as caught:
        store.check()
    assert not caught.value.transient


def test_repositories_are_listed_below_the_namespace(private_registry: Registry, name: str) -> None:
    with Store(config_of(private_registry, namespace=name)) as store:
        put_artifact(store.target("a/b"), b"x", tag="v1")
        put_artifact(store.target("c"), b"x", tag="v1")
        assert store.repositories() == ["a/b", "c"]
        pinned, _ = store.resolve("a/b:v1")
        assert str(pinned).startswith(f"{private_registry.host}/{name}/a/b@sha256:")
        assert store.resolve(pinned)[0] == pinned


def test_another_registry_is_refused_before_anything_is_sent(store: Store) -> None:
    with pytest.raises(InvalidReference, match=r"registry\.example"):
        store.target("registry.example/model:v1")


def test_no_password_is_taken_from_netrc(private_registry: Registry, tmp_path, monkeypatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login {private_registry.username} password {private_registry.password}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Store(config_of(private_registry, username="", password="")) as store, pytest.raises(Unauthorized):
        store.check()
