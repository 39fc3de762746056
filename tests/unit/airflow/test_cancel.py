"""A task that is told to end, as Airflow tells it: by a signal, on which the main thread calls ``on_kill``."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from tests.artifacts import CONFIG, LAYER, manifest_bytes, put_artifact
from tests.unit.oci.fake_server import Answer, FakeServer, Request, fake_server

from .conftest import Connections

#: Seconds: about one is usual, a busy machine takes longer, and without the end a registry is waited for a minute.
SOON = 10
LAYERS = [bytes([number]) * 3_000_000 for number in range(3)]


def ended(operator: KitopsBaseOperator, context: Any, ready: Callable[[], bool]) -> float:
    """Run an operator and end it when ``ready``; the seconds that it took to end."""
    told: list[float] = []

    def tell() -> None:
        until = time.monotonic() + 30
        while not ready() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        told.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    killer = threading.Thread(target=tell)
    killer.start()
    try:
        with pytest.raises(AirflowException, match="told to end") as caught:
            operator.execute(context)
        seconds = time.monotonic() - told[0]
    finally:
        killer.join()
        signal.signal(signal.SIGTERM, before)
    assert not isinstance(caught.value, AirflowFailException), "a worker that stops is no reason to give up"
    return seconds


@contextmanager
def registry(connections: Connections, answer: Callable[[Request, threading.Event], Answer]) -> Iterator[FakeServer]:
    """A registry that the connection names; what it waits for is over with the block."""
    over = threading.Event()
    with fake_server() as server:
        connections.set(host=server.host, extra={"plain_http": True})
        server.answer = lambda request: answer(request, over)
        try:
            yield server
        finally:
            over.set()


def taking_uploads(request: Request, over: threading.Event) -> Answer:
    """It takes the bytes of an upload and then never says a word."""
    if request.method == "POST":
        return Answer(202, headers={"Location": f"/v2/demo/model/blobs/uploads/{time.monotonic_ns()}"})
    if request.method in ("PUT", "PATCH"):
        over.wait(60)
    return Answer(204 if request.method == "DELETE" else 404)


def test_a_push_to_a_registry_that_goes_silent_ends_at_once_and_ends_its_uploads(
    tmp_path: Path, connections: Connections, context: Any
) -> None:
    put_artifact(Layout(tmp_path, "demo/model"), *LAYERS, tag="v1")
    operator = KitPushOperator(task_id="push", source="demo/model:v1", source_layout=tmp_path)
    with registry(connections, taking_uploads) as server:
        assert ended(operator, context, lambda: len(server.seen("PUT")) == 4) < SOON
        begun = {request.path for request in server.seen("PUT")}
        assert len(begun) == 4
        assert {request.path for request in server.seen("DELETE")} == begun
        assert server.seen("PUT", "manifests") == []


def test_a_pull_from_a_registry_that_goes_silent_ends_at_once_and_leaves_no_tag(
    tmp_path: Path, connections: Connections, context: Any
) -> None:
    config = Descriptor.of(CONFIG, b"{}")
    layers = [Descriptor.of(LAYER, layer) for layer in LAYERS]
    manifest = manifest_bytes(config, layers)

    def giving_a_part(request: Request, over: threading.Event) -> Answer:
        if "/manifests/" in request.path:
            digest = Descriptor.of(MANIFEST, manifest).digest
            return Answer(200, manifest, {"Content-Type": MANIFEST, "Docker-Content-Digest": digest})
        if request.path.endswith(config.digest):
            return Answer(200, b"{}")
        # The rest never comes.
        return Answer(200, LAYERS[0][:100_000], {"Content-Length": str(layers[0].size)})

    operator = KitPullOperator(task_id="pull", source="demo/model:v1", destination_layout=tmp_path)
    with registry(connections, giving_a_part) as server:
        assert ended(operator, context, lambda: len(server.seen("GET", "/blobs/")) == 4) < SOON
    assert Layout(tmp_path, "demo/model").tags() == []


def test_a_push_ends_at_once_also_where_the_main_thread_waits(
    tmp_path: Path, connections: Connections, context: Any
) -> None:
    def silent(request: Request, over: threading.Event) -> Answer:
        over.wait(60)
        return Answer(404)

    put_artifact(Layout(tmp_path, "demo/model"), b"layer", tag="v1")
    operator = KitPushOperator(task_id="push", source="demo/model:v1", source_layout=tmp_path)
    with registry(connections, silent) as server:
        assert ended(operator, context, lambda: bool(server.requests)) < SOON


def test_a_registry_that_does_not_even_answer_to_the_end_of_uploads_is_not_waited_for_long(
    tmp_path: Path, connections: Connections, context: Any
) -> None:
    def silent(request: Request, over: threading.Event) -> Answer:
        if request.method == "DELETE":
            over.wait(60)
        return taking_uploads(request, over)

    put_artifact(Layout(tmp_path, "demo/model"), *LAYERS, tag="v1")
    operator = KitPushOperator(task_id="push", source="demo/model:v1", source_layout=tmp_path)
    with registry(connections, silent) as server:
        assert ended(operator, context, lambda: len(server.seen("PUT")) == 4) < SOON
        assert len(server.seen("DELETE")) == 4
