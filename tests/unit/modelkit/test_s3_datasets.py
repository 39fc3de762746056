"""Datasets in S3, against moto's server on the loopback interface, and through a proxy that loses connections.

What moto leaves out: it checks no signature and no permission, so refusals are what a fake server says, as is silence;
it knows nothing of regions, redirects, archived objects or TLS; and timeouts are not tried.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from airflow_provider_kitops.modelkit import _rules, _s3
from airflow_provider_kitops.modelkit.kitfile import Code, Dataset, Kitfile
from airflow_provider_kitops.modelkit.limits import Limits
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci import _wire
from airflow_provider_kitops.oci._retry import RetryPolicy
from airflow_provider_kitops.oci.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    InvalidInput,
    KitopsError,
    LimitExceeded,
    NotFound,
    RateLimited,
    RegistryUnavailable,
    StorageError,
    Unauthorized,
    UnsafePath,
    VerificationFailed,
)
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.target import Progress
from tests.unit.modelkit.conftest import Write
from tests.unit.oci.fake_server import Answer, FakeServer, Request, fake_server
from tests.unit.oci.test_wire import drip, talking

SECRET = "wJalrXUtnFEMI-not-to-be-shown"
CONTENT = os.urandom(3 * 1024 * 1024 + 7)
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own, and no waiting."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(_s3, "_POLICY", RetryPolicy(attempts=3, base=0.001))


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client of a server whose bucket ``data`` holds ``sets/train.bin``."""
    requests.post(f"{moto}/moto-api/reset", timeout=10)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    client = boto3.session.Session().client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="data")
    client.put_object(Bucket="data", Key="sets/train.bin", Body=CONTENT)
    return client


@pytest.fixture
def proxy(moto: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """Hands on what it is asked to the same server, and cuts each answer with content off after 1,000,000 bytes."""

    def answer(request: Request) -> Answer:
        names = ("Range", "If-Match", "Authorization", "X-Amz-Date", "X-Amz-Content-Sha256")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        found = requests.request(request.method, moto + request.path, headers=headers, timeout=10)
        kept = ("ETag", "Content-Range", "Last-Modified", "Content-Length")
        headers = {name: found.headers[name] for name in kept if name in found.headers}
        cut = 1_000_000 if request.method == "GET" and len(found.content) > 1_000_000 else None
        return Answer(found.status_code, found.content, headers, cut)

    with fake_server() as server:
        server.answer = answer
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def packed(layout: Layout, write: Write, *datasets: Dataset, code: str = "m.py") -> None:
    context = write({code: "y"})
    pack(context, Kitfile(code=(Code(path=code),), datasets=datasets), layout, "latest")


def dataset(path: str = "in/train.bin", address: str = "s3://data/sets/train.bin", sha256: str = HASH) -> Dataset:
    return Dataset("train", path, remote_path=address, remote_hash=sha256)


def fetch(layout: Layout, directory: Path, **more: Any) -> dict[str, bytes]:
    unpack(layout, "latest", directory, include_remote=True, **more)
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refused(error: type[KitopsError], layout: Layout, directory: Path, **more: Any) -> str:
    """The words of an error after which nothing is there."""
    with pytest.raises(error) as raised:
        fetch(layout, directory, **more)
    assert not directory.exists()
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None or error is InvalidInput
    return str(raised.value)


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("in/train.bin", "in/train.bin"),
        ("in", "in"),
        ("in/", "in/train.bin"),
        (".", "train.bin"),
        ("./", "train.bin"),
    ],
)
@pytest.mark.parametrize("form", ["sha256:{}", "{}"])
def test_the_object_becomes_the_file_at_the_path(
    layout: Layout, write: Write, tmp_path: Path, path: str, file: str, form: str
) -> None:
    packed(layout, write, dataset(path, sha256=form.format(HASH.upper() if form == "{}" else HASH)))
    found = fetch(layout, tmp_path / "out")
    assert set(found) == {"Kitfile", "m.py", file}
    assert found[file] == CONTENT
    assert (tmp_path / "out" / file).stat().st_mode & 0o777 == 0o644


def test_an_empty_object_is_an_empty_file(bucket: Any, layout: Layout, write: Write, tmp_path: Path) -> None:
    bucket.put_object(Bucket="data", Key="none", Body=b"")
    packed(layout, write, dataset("none", "s3://data/none", hashlib.sha256().hexdigest()))
    assert fetch(layout, tmp_path / "out")["none"] == b""


@pytest.mark.usefixtures("bucket")
def test_a_filter_leaves_it_out_and_progress_tells_of_it(layout: Layout, write: Write, tmp_path: Path) -> None:
    packed(layout, write, dataset())
    assert set(fetch(layout, tmp_path / "code", filters=["code"])) == {"m.py"}
    steps: list[Progress] = []
    assert set(fetch(layout, tmp_path / "data", filters=["datasets:train"], on_progress=steps.append)) == {
        "in/train.bin"
    }
    assert steps[-1] == Progress("download", "in/train.bin", len(CONTENT), len(CONTENT))
    assert len(steps) == 4


@pytest.mark.usefixtures("bucket")
def test_other_bytes_than_the_hash_says_leave_nothing_behind(layout: Layout, write: Write, tmp_path: Path) -> None:
    packed(layout, write, dataset(sha256="sha256:" + "0" * 64))
    said = refused(DigestMismatch, layout, tmp_path / "out")
    assert f"sha256:{HASH}" in said
    assert "s3://data/sets/train.bin" in said


@pytest.mark.parametrize(
    ("wrong", "field", "error"),
    [
        ({"sha256": "sha256:1"}, "remoteHash 'sha256:1'", InvalidInput),
        ({"sha256": "md5:" + "0" * 32}, "remoteHash 'md5:", InvalidInput),
        ({"sha256": HASH + "\n"}, "remoteHash", InvalidInput),
        ({"address": "s3://data/"}, "remotePath 's3://data/'", InvalidInput),
        ({"address": "s3://data"}, "remotePath 's3://data'", InvalidInput),
        ({"address": "s3://data/sets/"}, "all below a prefix", InvalidInput),
        ({"address": "s3://data/sets/..", "path": "d/"}, "remotePath", InvalidInput),
        ({"address": "s3://arn:aws:s3:us-east-1:1:accesspoint/x/y"}, "remotePath", InvalidInput),
        ({"address": "s3://user@host/x"}, "remotePath", InvalidInput),
        ({"address": "s3://data/a\\..\\b", "path": "."}, "below the directory", UnsafePath),
    ],
)
def test_an_entry_that_names_no_object_or_hash_is_refused_before_anything_is_asked(
    layout: Layout, write: Write, tmp_path: Path, wrong: dict[str, str], field: str, error: type[KitopsError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with fake_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setattr(_rules, "_bad_object", lambda address: None)  # as others pack it
        packed(layout, write, dataset(**wrong))
        assert field in refused(error, layout, tmp_path / "out")
        assert not server.requests


def test_a_lost_connection_is_taken_up_where_it_broke(
    proxy: FakeServer, layout: Layout, write: Write, tmp_path: Path
) -> None:
    packed(layout, write, dataset())
    assert fetch(layout, tmp_path / "out")["in/train.bin"] == CONTENT
    tag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    gets = [(each.headers.get("Range"), each.headers["If-Match"]) for each in proxy.seen("GET")]
    assert gets == [(None, tag), *((f"bytes={at}000000-", tag) for at in (1, 2, 3))]


@pytest.mark.parametrize("when", ["within the object", "before its answer", "between two tries"])
def test_an_interrupt_ends_the_wait_for_a_server_that_went_silent(
    when: str, layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, told = threading.Event(), [0.0]

    def answer(request: Request) -> Answer:
        if request.method == "HEAD":
            return Answer(200, headers={"Content-Length": str(len(CONTENT)), "ETag": '"x"'})
        if when == "between two tries":
            return Answer(503)
        if when == "before its answer":
            over.wait(30)
        return Answer(200, CONTENT[:1_500_000], {"Content-Length": str(len(CONTENT))})

    def tell() -> None:
        while not server.seen("GET"):
            time.sleep(0.02)
        time.sleep(0.3)
        told[0] = time.monotonic()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr(_s3, "_POLICY", RetryPolicy(attempts=3, base=30.0, longest=30.0))
    packed(layout, write, dataset())
    with fake_server() as server:
        server.answer = answer
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        # What is started in the background ignores the signal.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        killer = threading.Thread(target=tell, daemon=True)
        killer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                fetch(layout, tmp_path / "out")
            assert time.monotonic() - told[0] < 10
        finally:
            over.set()
            killer.join()
            signal.signal(signal.SIGINT, before)
        assert len(server.seen("GET")) == 1
    assert not (tmp_path / "out").exists()


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wire, "WINDOW", 0.3)
    packed(layout, write, dataset())
    with talking(drip(b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nETag: "x"\r\n\r\n')) as host:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        assert "download s3://data/sets/train.bin" in refused(RegistryUnavailable, layout, tmp_path / "out")


def test_an_object_that_is_replaced_meanwhile_is_a_conflict(
    proxy: FakeServer, bucket: Any, layout: Layout, write: Write, tmp_path: Path
) -> None:
    honest = proxy.answer

    def answer(request: Request) -> Answer:
        found = honest(request)
        if request.method == "GET" and found.cut:
            bucket.put_object(Bucket="data", Key="sets/train.bin", Body=b"new")
        return found

    proxy.answer = answer
    packed(layout, write, dataset())
    assert "replaced while it was read" in refused(Conflict, layout, tmp_path / "out")


def test_a_range_that_was_not_asked_for_is_not_taken(
    proxy: FakeServer, layout: Layout, write: Write, tmp_path: Path
) -> None:
    honest = proxy.answer
    proxy.answer = lambda request: honest(
        Request(request.method, request.path, {}, {**request.headers, "Range": ""}, b"")
    )
    packed(layout, write, dataset())
    assert "another range" in refused(RegistryUnavailable, layout, tmp_path / "out")


@pytest.mark.parametrize(
    ("status", "code", "error", "requests_sent"),
    [
        (404, "NoSuchBucket", NotFound, 1),
        (401, "", Unauthorized, 1),
        (403, "AccessDenied", Forbidden, 1),
        (400, "", RegistryUnavailable, 2),  # boto3 asks once more, for the bucket's region
        (429, "", RateLimited, 3),
        (503, "SlowDown", RegistryUnavailable, 3),
    ],
)
def test_what_s3_answers_is_an_error_of_this_package(
    layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    status: int, code: str, error: type[KitopsError], requests_sent: int,
) -> None:  # fmt: skip
    packed(layout, write, dataset())
    with fake_server() as server:
        server.answer = lambda request: Answer(status, f"<Error><Code>{code}</Code></Error>".encode())
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert str(status) in refused(error, layout, tmp_path / "out")
        assert len(server.requests) == requests_sent


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "ExpiredToken", "SignatureDoesNotMatch"])
def test_refused_credentials_are_told_from_missing_permission(
    layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    packed(layout, write, dataset())
    with fake_server() as server:
        body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
        head = Answer(200, headers={"Content-Length": "5", "ETag": '"x"'})
        server.answer = lambda request: head if request.method == "HEAD" else Answer(403, body)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert code in refused(Unauthorized, layout, tmp_path / "out")


def test_a_key_that_is_not_there_is_not_found(bucket: Any, layout: Layout, write: Write, tmp_path: Path) -> None:
    packed(layout, write, dataset(address="s3://data/sets/other"))
    assert "s3://data/sets/other" in refused(NotFound, layout, tmp_path / "out")


@pytest.mark.usefixtures("bucket")
def test_settings_that_cannot_be_used_say_so(
    layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(layout, write, dataset())
    with monkeypatch.context() as changed:
        changed.delenv("AWS_ACCESS_KEY_ID")
        assert "AWS_PROFILE" in refused(Unauthorized, layout, tmp_path / "out")
        changed.setenv("AWS_PROFILE", "nobody")
        assert "ProfileNotFound" in refused(InvalidInput, layout, tmp_path / "out")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"user:{SECRET}@nowhere")
    refused(InvalidInput, layout, tmp_path / "out")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    assert "can be reached" in refused(RegistryUnavailable, layout, tmp_path / "out")


def test_without_boto3_the_extra_is_named(
    layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(layout, write, dataset())
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    assert "pip install airflow-provider-kitops[s3]" in refused(InvalidInput, layout, tmp_path / "out")


@pytest.mark.usefixtures("bucket")
def test_its_size_counts_before_a_byte_is_fetched(
    proxy: FakeServer, layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(layout, write, dataset())
    refused(LimitExceeded, layout, tmp_path / "out", limits=Limits(bytes=len(CONTENT)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(CONTENT)))
    assert "too full" in refused(StorageError, layout, tmp_path / "out")
    assert not proxy.seen("GET")


@pytest.mark.usefixtures("bucket")
def test_it_is_one_of_the_files_of_its_modelkit(layout: Layout, write: Write, tmp_path: Path) -> None:
    packed(layout, write, dataset("in/train.bin"), code="in/x.py")
    (tmp_path / "out/in").mkdir(parents=True)
    (tmp_path / "out/in/train.bin").write_text("mine")
    with pytest.raises(Conflict):
        fetch(layout, tmp_path / "out")
    assert fetch(layout, tmp_path / "out", ignore_existing=True)["in/train.bin"] == b"mine"
    assert fetch(layout, tmp_path / "out", overwrite=True)["in/train.bin"] == CONTENT
    kitfile = Kitfile(code=(Code(path="in/train.bin"),), datasets=(dataset("in/"),))
    pack(write({"in/train.bin": "layer"}), kitfile, layout, "latest")
    assert "more than once" in refused(VerificationFailed, layout, tmp_path / "twice")


def test_no_log_shows_a_session_or_a_signature(
    proxy: FakeServer, layout: Layout, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    packed(layout, write, dataset())
    caplog.set_level(0)
    assert fetch(layout, tmp_path / "out")["in/train.bin"] == CONTENT
    assert any("X-Amz-Security-Token" in request.headers for request in proxy.requests)
    assert "botocore" in {record.name.partition(".")[0] for record in caplog.records}
    for secret in (SECRET, "a-session-token", "Signature="):
        assert secret not in caplog.text
