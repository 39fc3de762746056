"""Answers that hardly come, or have no end, are given up; and what waits for one can be ended at once."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_kitops.oci import _wire
from airflow_provider_kitops.oci._retry import RetryPolicy
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import Interrupted, NotFound, RegistryUnavailable
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.parallel import run_all
from airflow_provider_kitops.oci.repository import Repository
from tests.artifacts import LAYER, put_artifact
from tests.unit.oci.conftest import repository_of
from tests.unit.oci.fake_server import Answer, FakeServer

BLOB = Descriptor.of(LAYER, b"x" * 100_000)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nContent-Type: application/octet-stream\r\n\r\n"
Talk = Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """A server that reads a request and then does as ``talk`` says; its host."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            talk(connection, over)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=[listener.accept()[0]], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.close()


def drip(data: bytes) -> Talk:
    """Send the head of an answer and then a byte at a time, for ever."""

    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data)
        while not over.wait(0.02):
            connection.sendall(b"x")

    return talk


def again_and_again(data: bytes) -> Talk:
    def talk(connection: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            connection.sendall(data)

    return talk


def silent(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(HEAD + b"x" * 10)
    over.wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "WINDOW", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("talk", "said"),
    [
        pytest.param(drip(HEAD), "it sent less than 1024 bytes a second", id="a-body"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nX-Long: "), "it sent less than 1024 bytes a second", id="a-header"),
        pytest.param(again_and_again(b"HTTP/1.1 100 Continue\r\n\r\n"), "have no end", id="interim-answers"),
        pytest.param(
            again_and_again(b"HTTP/1.1 100 Continue\r\n" + b"X: y\r\n" * 50 + b"\r\n"), "have no end", id="headers"
        ),
    ],
)
def test_an_answer_that_hardly_comes_or_has_no_end_is_given_up(talk: Talk, said: str) -> None:
    with talking(talk) as host:
        before = time.monotonic()
        with pytest.raises(RegistryUnavailable, match=said):
            read(repository_of(FakeServer(host)), BLOB)
        assert time.monotonic() - before < 30


@pytest.mark.usefixtures("impatient")
def test_slow_is_not_too_slow() -> None:
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(HEAD)
        for _ in range(50):
            connection.sendall(b"x" * 2000)
            over.wait(0.02)

    with talking(talk) as host:
        assert read(repository_of(FakeServer(host)), BLOB) == b"x" * 100_000


def test_the_time_that_the_reader_takes_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "WINDOW", 0.1)

    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(HEAD + b"x" * 100_000)
        over.wait()

    with talking(talk) as host, repository_of(FakeServer(host)).fetch(BLOB) as reader:
        found = 0
        while data := reader.read(20_000):
            found += len(data)
            time.sleep(0.1)
        assert found == 100_000


def ended_by_an_interrupt(repository: Repository, work: Callable[[], object]) -> float:
    """Interrupt ``work`` after a moment; the seconds that it took to end, which would be a minute and more without."""
    ended: list[float] = []

    def wait() -> None:
        with pytest.raises(Interrupted):
            work()
        ended.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    before = time.monotonic()
    repository.interrupt()
    waiting.join(30)
    return ended[0] - before


def test_what_waits_for_a_silent_registry_is_ended_at_once() -> None:
    with talking(silent) as host:
        repository = repository_of(FakeServer(host))
        assert ended_by_an_interrupt(repository, lambda: read(repository, BLOB)) < 10
        with pytest.raises(Interrupted):  # nothing is begun any more
            repository.exists(BLOB)


def test_a_pause_before_another_try_is_ended_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    repository = repository_of(FakeServer(host), retry=RetryPolicy(attempts=4, base=60.0, longest=60.0))
    assert ended_by_an_interrupt(repository, lambda: repository.exists(BLOB)) < 10


def test_an_interrupted_caller_does_not_wait_for_its_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a signal does it: the exception is raised in the main thread, which waits for the others."""
    with talking(silent) as host:
        repository = repository_of(FakeServer(host))

        def interrupted(*_: object, **__: object) -> None:
            time.sleep(0.3)
            raise KeyboardInterrupt

        monkeypatch.setattr("airflow_provider_kitops.oci.parallel.wait", interrupted)
        before = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run_all([lambda stop: read(repository, BLOB)], 2, (repository, Layout(tmp_path, "a/b")))
        assert time.monotonic() - before < 15


def test_a_copy_interrupts_both_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[object] = []

    def run(jobs: object, concurrency: int, targets: tuple[object, ...]) -> None:
        given.extend(targets)

    monkeypatch.setattr("airflow_provider_kitops.oci.copy.run_all", run)
    source, destination = Layout(tmp_path / "1", "a/b"), Layout(tmp_path / "2", "a/b")
    put_artifact(source, b"layer", tag="v1")
    with pytest.raises(NotFound):  # the manifest comes without what the jobs would have copied
        copy(source, "v1", destination, "v1")
    assert given == [source, destination]


def test_a_client_is_of_use_again_when_its_threads_have_ended(
    server: FakeServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    server.answer = lambda request: Answer(200, b'{"tags": ["v1"]}')
    monkeypatch.setattr("airflow_provider_kitops.oci.parallel.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all([lambda stop: repository.tags()], 2, [repository])
    assert repository.tags() == ["v1"]


def never(connection: socket.socket, over: threading.Event) -> None:
    over.wait()


@pytest.mark.parametrize("settings", [{"plain_http": False}, {"plain_http": True}], ids=["handshake", "answer"])
def test_a_connection_that_is_being_made_is_ended_too(settings: dict[str, bool]) -> None:
    with talking(never) as host:
        repository = repository_of(FakeServer(host), **settings)
        assert ended_by_an_interrupt(repository, lambda: repository.tags()) < 10


def test_a_connection_that_is_made_after_the_cut_is_ended() -> None:
    wire = _wire.Wire()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        wire.cut()
        wire.add(one)
        assert one.recv(1) == b""
        wire.mend()
        other = socket.create_connection(listener.getsockname())
        wire.add(other)
        accepted = [listener.accept()[0] for _ in range(2)]
        accepted[1].sendall(b"x")
        assert other.recv(1) == b"x"
        for each in (one, other, *accepted):
            each.close()


def test_no_log_shows_a_signature_or_what_is_sent_in_place_of_headers(caplog: pytest.LogCaptureFixture) -> None:
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nforged\x1b[31m line\r\n\r\n")

    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="urllib3")  # Kubernetes' client, in the same process, makes it say less
    with talking(talk) as host:
        client = repository_of(FakeServer(host))._client
        with pytest.raises(NotFound):
            client.send("GET", "/v2/x?signature=s3cret", doing="find x", scope="")
    assert "/v2/x?" in caplog.text
    assert "s3cret" not in caplog.text
    assert "forged" not in caplog.text
