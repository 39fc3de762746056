"""Lines that break, registries that stop, disks that are full: through a proxy before a real registry."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_kitops.oci import _uploads, _wire
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import RegistryUnavailable, StorageError
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.repository import Repository
from tests.artifacts import LAYER, put_artifact
from tests.integration.test_tls import make_pair
from tests.proxy import LOST, RESET, Fault, Proxy, Relay, Request
from tests.registry import Registry, free_port, run_referrers_registry, run_registry
from tests.registry_checks import assert_layout_whole, assert_registry_whole, quick_repository

SIZE = 24_000_000
PLACES = {"1%": SIZE // 100, "50%": SIZE // 2, "99%": SIZE * 99 // 100}


@pytest.fixture
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def name() -> str:
    return f"faults/{uuid.uuid4().hex}"


@pytest.fixture
def repository(proxy: Proxy, name: str) -> Iterator[Repository]:
    with quick_repository(proxy.host, name) as opened:
        yield opened


def once(fault: Fault, fits: Callable[[Request], bool]) -> Callable[[Request], Fault | None]:
    """A rule that does something to the first request that fits."""
    left = [fault]
    return lambda request: left.pop() if left and fits(request) else None


def with_body(request: Request) -> bool:
    """Whether it is the request that carries a blob up."""
    return "/blobs/uploads/" in request.path and (request.length > SIZE // 2 or "transfer-encoding" in request.headers)


def download(request: Request) -> bool:
    return request.method == "GET" and "/blobs/sha256:" in request.path


def pieces(data: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: (data[at : at + 1_000_000] for at in range(0, len(data), 1_000_000))


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("known", [True, False], ids=["put", "patch"])
@pytest.mark.parametrize("place", PLACES)
def test_an_upload_that_breaks_is_sent_again(
    repository: Repository, proxy: Proxy, data: bytes, place: str, known: bool, reset: bool, monkeypatch
) -> None:
    # What is known goes with the closing PUT, if it is small.
    monkeypatch.setattr(_uploads, "_AT_ONCE", 2 * SIZE)
    proxy.rule = once(Fault(cut_request=PLACES[place], reset=reset), with_body)
    blob = Descriptor.of(LAYER, data)
    assert repository.push(blob if known else LAYER, pieces(data)) == blob
    assert len([each for each in proxy.requests if with_body(each)]) == 2
    assert read(repository, blob, limit=SIZE) == data


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("place", PLACES)
def test_a_download_that_breaks_goes_on_there(
    repository: Repository, proxy: Proxy, data: bytes, place: str, reset: bool
) -> None:
    blob = repository.push(LAYER, data)
    proxy.rule = once(Fault(cut_answer=PLACES[place], reset=reset), download)
    assert read(repository, blob, limit=SIZE) == data
    first, second = (each for each in proxy.requests if download(each))
    assert "range" not in first.headers
    begin = int(second.headers["range"].removeprefix("bytes=").partition("-")[0])
    # A reset takes with it what has arrived and not been read.
    assert 0 < begin <= PLACES[place] if reset else begin == PLACES[place]


def test_a_download_into_a_layout_goes_on_in_the_next_process(
    repository: Repository, proxy: Proxy, data: bytes, tmp_path: Path
) -> None:
    put_artifact(repository, data, tag="v1")
    # More often than is tried, and always at the same place.
    proxy.rule = lambda request: (
        Fault(cut_answer=0 if "range" in request.headers else SIZE // 2, reset=False) if download(request) else None
    )
    with pytest.raises(RegistryUnavailable):
        copy(repository, "v1", Layout(tmp_path, "a"), "v1", concurrency=1)
    assert assert_layout_whole(tmp_path / "a") == {}
    proxy.rule = lambda request: None
    before = len(proxy.requests)
    copy(repository, "v1", Layout(tmp_path, "a"), "v1")
    begins = [each.headers.get("range") for each in proxy.requests[before:] if download(each)]
    assert f"bytes={SIZE // 2}-{SIZE - 1}" in begins
    assert "v1" in assert_layout_whole(tmp_path / "a")


@pytest.mark.parametrize("fault", [RESET, LOST], ids=["never-arrived", "answer-lost"])
@pytest.mark.parametrize("direction", ["push", "pull"])
def test_each_request_of_the_protocol_may_break(
    open_registry: Registry, proxy: Proxy, tmp_path: Path, name: str, fault: Fault, direction: str
) -> None:
    local = Layout(tmp_path / "local", "a")
    for number in range(1, 60):
        where = f"{name}/{number}"
        # New bytes each time: this registry's repositories, or the other's, may share blobs.
        manifest = put_artifact(local, os.urandom(1000), os.urandom(2000), tag="v1")
        with quick_repository(open_registry.host, where) as direct:
            if direction == "pull":
                copy(local, "v1", direct, "v1")
        before = len(proxy.requests)
        broken: list[Request] = []

        def rule(request: Request, nth: int = before + number, broken: list[Request] = broken) -> Fault | None:
            if request.number != nth:
                return None
            broken.append(request)
            return fault

        proxy.rule = rule
        with quick_repository(proxy.host, where) as there:
            if direction == "push":
                copy(local, "v1", there, "v1", mutable_tags=["v1"], concurrency=2)
                assert assert_registry_whole(open_registry, where) == {"v1": manifest.digest}
            else:
                copy(there, "v1", Layout(tmp_path / str(number), "a"), "v1", concurrency=2)
                assert assert_layout_whole(tmp_path / str(number) / "a") == {"v1": manifest.digest}
        local.untag("v1")
        if not broken:  # there is no such request any more
            assert number > (5 if direction == "pull" else 10)
            return
    pytest.fail("it does not end")


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("kind", ["docker-registry", "referrers"])
def test_a_registry_may_restart_in_the_middle(tmp_path: Path, data: bytes, kind: str, direction: str) -> None:
    run = run_registry if kind == "docker-registry" else run_referrers_registry
    port = free_port()
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        first = running.enter_context(run(tmp_path, port=port))

        def restart() -> None:
            running.close()
            stack.enter_context(run(tmp_path, port=port))

        proxy = stack.enter_context(Proxy(first.host))
        there = stack.enter_context(quick_repository(proxy.host, "a/b"))
        fault = Fault(cut_request=SIZE // 2, at_cut=restart)
        if direction == "down":
            there.push(LAYER, pieces(data))
            fault = Fault(cut_answer=SIZE // 2, at_cut=restart)
        proxy.rule = once(fault, with_body if direction == "up" else download)
        blob = there.push(LAYER, pieces(data))
        assert read(there, blob, limit=SIZE) == data
        assert len([each for each in proxy.requests if (with_body if direction == "up" else download)(each)]) >= 2


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_registry_that_forgot_an_upload_gets_it_anew(tmp_path: Path, method: str) -> None:
    """As one without a fixed secret does when it restarts, or another of several without common storage."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        first = running.enter_context(run_registry(tmp_path, port=port))

        def restart() -> None:
            running.close()
            settings = {"REGISTRY_HTTP_SECRET": "another"}
            stack.enter_context(run_registry(tmp_path, port=port, settings=settings))

        proxy = stack.enter_context(Proxy(first.host))
        there = stack.enter_context(quick_repository(proxy.host, "a/b"))
        proxy.rule = once(Fault(before=restart), lambda request: request.method == method)
        data = os.urandom(1_000_000)
        assert there.push(LAYER, pieces(data)) == Descriptor.of(LAYER, data)
        assert len(proxy.seen("POST")) == 2


@pytest.mark.parametrize("fault", ["cut_down", "cut_up", "flip_down"])
def test_tls_may_break_in_the_middle(tmp_path: Path, data: bytes, fault: str) -> None:
    authority = make_pair(tmp_path, "authority")
    own = make_pair(tmp_path, "registry", authority)
    settings = {
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(own.certificate_file),
        "REGISTRY_HTTP_TLS_KEY": str(own.key_file),
    }
    with run_registry(tmp_path / "registry", settings=settings) as registry, Relay(registry.host) as relay:
        more = {"plain_http": False, "ca_bundle": authority.certificate_file}
        with quick_repository(relay.host, "a/b", **more) as there:
            if fault == "cut_up":
                relay.cut_up = SIZE // 2
            blob = there.push(LAYER, pieces(data))
            if fault != "cut_up":
                setattr(relay, fault, relay.down + SIZE // 2)
            assert read(there, blob, limit=SIZE) == data
    assert relay.broken == 1


def test_an_answer_that_drips_is_given_up(
    repository: Repository, proxy: Proxy, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = repository.push(LAYER, data)
    monkeypatch.setattr(_wire, "WINDOW", 0.4)
    proxy.rule = lambda request: Fault(drip=0.01) if download(request) else None
    with pytest.raises(RegistryUnavailable, match="less than 1024 bytes a second"):
        read(repository, blob, limit=SIZE)
    # It went on where it had been each time, and yet did not go on for ever.
    assert 2 <= len([each for each in proxy.requests if download(each)]) <= 8


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own in memory."""
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_of_the_registry_is_told_and_leaves_no_tag(tmp_path: Path, data: bytes) -> None:
    local = Layout(tmp_path / "local", "a")
    put_artifact(local, data[:5_000_000], data, tag="v1")
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk", 16))
        registry = stack.enter_context(run_registry(disk))
        there = stack.enter_context(quick_repository(registry.host, "a/b"))
        with pytest.raises(RegistryUnavailable, match="HTTP 50") as caught:
            copy(local, "v1", there, "v1", concurrency=1)
        assert caught.value.exit_code == 7
        assert assert_registry_whole(registry, "a/b") == {}


@pytest.mark.parametrize("how", ["streamed", "copied", "downloaded"])
def test_a_full_disk_of_the_layout_leaves_nothing_half_done(
    repository: Repository, tmp_path: Path, data: bytes, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = repository if how == "downloaded" else Layout(tmp_path / "source", "a")
    put_artifact(source, data, tag="v2")

    class Roomy:
        free = 1 << 40

    # Else it is seen before anything is sent; somebody else may fill the disk meanwhile.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Roomy)
    with small_disk(tmp_path / "disk", 16) as disk:
        layout = Layout(disk, "a")
        old = put_artifact(layout, b"old", tag="v1")
        before = sorted(path for path in disk.rglob("*") if path.is_file())
        with pytest.raises(StorageError, match="full"):
            put_artifact(layout, data, tag="v2") if how == "streamed" else copy(source, "v2", layout, "v2")
        assert assert_layout_whole(disk / "a") == {"v1": old.digest}
        left = sorted(path for path in disk.rglob("*") if path.is_file())
        # The config may have come before the disk was full.
        assert all(path.stat().st_size < 100 for path in set(left) - set(before))
        new = put_artifact(layout, b"small", tag="v2")
        assert assert_layout_whole(disk / "a") == {"v1": old.digest, "v2": new.digest}
