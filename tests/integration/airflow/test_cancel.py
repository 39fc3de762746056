"""A real registry that goes silent in the middle of a transfer, and a task that is told to end then."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators.copy import KitCopyOperator
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from tests.artifacts import put_artifact
from tests.proxy import Fault, Proxy, Request
from tests.registry import Registry
from tests.unit.airflow.conftest import Connections, connections, context
from tests.unit.airflow.test_cancel import SOON, ended

__all__ = ["connections", "context"]

SIZE = 20_000_000
AT = 5_000_000


@contextmanager
def going_silent(
    registry: Registry, connections: Connections, method: str
) -> Iterator[tuple[Proxy, list[str], threading.Event]]:
    """The registry behind a connection, silent once a blob has come that far; those that have; and what ends it."""
    over = threading.Event()
    reached: list[str] = []

    def rule(request: Request) -> Fault | None:
        if request.method != method or "/blobs/" not in request.path:
            return None

        def stop() -> None:
            reached.append(request.path)
            over.wait(60)

        return Fault(cut_request=AT, at_cut=stop) if method != "GET" else Fault(cut_answer=AT, at_cut=stop)

    with Proxy(registry.host) as proxy:
        proxy.rule = rule
        connections.set(host=proxy.host, extra={"plain_http": True, "namespace": f"cancel-{os.urandom(4).hex()}"})
        try:
            yield proxy, reached, over
        finally:
            over.set()


@pytest.fixture
def operators(connections: Connections, tmp_path: Path) -> dict[str, Callable[[], KitopsBaseOperator]]:
    """What uploads two blobs of ``SIZE`` to the connection, by verb."""
    layers = [os.urandom(SIZE) for _ in range(2)]
    put_artifact(Layout(tmp_path / "layout", "demo/model"), *layers, tag="v1")
    connections.set("here", extra={"layout": str(tmp_path / "layout")})
    for name, layer in zip("ab", layers, strict=True):
        (tmp_path / f"{name}.bin").write_bytes(layer)
    kitfile = {"manifestVersion": "1.0.0", "datasets": [{"path": f"{name}.bin"} for name in "ab"]}
    return {
        "push": lambda: KitPushOperator(task_id="push", source="demo/model:v1", source_layout=tmp_path / "layout"),
        "copy": lambda: KitCopyOperator(task_id="copy", source="demo/model:v1", source_conn_id="here"),
        "pack": lambda: KitPackOperator(
            task_id="pack", context_directory=tmp_path, reference="demo/model:v1", kitfile=kitfile
        ),
    }


@pytest.mark.parametrize("verb", ["push", "copy", "pack"])
def test_an_upload_to_a_silent_registry_ends_with_its_task(
    registry: Registry, connections: Connections, context: Any, operators: Any, verb: str
) -> None:
    operator = operators[verb]()
    with going_silent(registry, connections, "PATCH") as (proxy, reached, _):
        assert ended(operator, context, lambda: len(reached) == 2) < SOON
        # What this registry does with it is another matter: it keeps an upload that broke, and cannot be told.
        assert set(reached) <= {each.path for each in proxy.seen("DELETE")}
        assert proxy.seen("PUT", "/manifests/") == []


@pytest.mark.parametrize("verb", ["push", "copy", "pack"])
def test_an_upload_that_goes_on_is_ended_in_order(
    registry: Registry, connections: Connections, context: Any, operators: Any, verb: str, monkeypatch
) -> None:
    operator = operators[verb]()
    on_kill = operator.on_kill
    with going_silent(registry, connections, "PATCH") as (proxy, reached, over):

        def goes_on() -> None:
            over.set()
            on_kill()

        monkeypatch.setattr(operator, "on_kill", goes_on)
        assert ended(operator, context, lambda: len(reached) == 2) < SOON
        # One that was faster than the signal has come to its end.
        assert set(reached) <= {each.path for method in ("DELETE", "PUT") for each in proxy.seen(method)}
        (repository,) = {each.path.partition("/blobs/")[0].removeprefix("/v2/") for each in proxy.seen("POST")}
        assert registry.uploads(repository) == 0


def test_a_pull_ends_with_its_task(registry: Registry, connections: Connections, context: Any, tmp_path: Path) -> None:
    with going_silent(registry, connections, "GET") as (proxy, reached, _):
        with Store(StoreConfig(registry=registry.host, plain_http=True)) as store:
            repository = f"cancel-{os.urandom(4).hex()}/model"
            put_artifact(store.target(repository), os.urandom(SIZE), os.urandom(SIZE), tag="v1")
        connections.set(host=proxy.host, extra={"plain_http": True})
        operator = KitPullOperator(task_id="pull", source=f"{repository}:v1", destination_layout=tmp_path)
        assert ended(operator, context, lambda: len(reached) == 2) < SOON
    assert Layout(tmp_path, repository).tags() == []
