"""A server that answers what a test tells it to, and a client that does not wait long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_kitops.oci._http import HttpSettings, RegistryClient
from airflow_provider_kitops.oci._retry import RetryPolicy
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.repository import Repository
from tests.unit.oci.fake_server import FakeServer, fake_server

QUICK = RetryPolicy(attempts=4, base=0.001, longest=0.01)
SECRET = Credentials("alice", "open sesame")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[FakeServer]:
    """Another server, on another host name."""
    with fake_server("127.0.0.2") as running:
        yield running


_clients: list[RegistryClient] = []


@pytest.fixture(autouse=True)
def _all_clients_are_closed() -> Iterator[None]:
    """Else their sockets are found by the garbage collector, which may run when a test has used up the stack."""
    yield
    while _clients:
        _clients.pop().close()


def client_of(server: FakeServer, credentials: Credentials = SECRET, **settings: object) -> RegistryClient:
    values: dict[str, object] = {"plain_http": True, "retry": QUICK, **settings}
    client = RegistryClient(server.host, HttpSettings(**values), lambda: credentials)  # type: ignore[arg-type]
    _clients.append(client)
    return client


def repository_of(server: FakeServer, credentials: Credentials = SECRET, **settings: object) -> Repository:
    return Repository(server.host, "demo/model", client_of(server, credentials, **settings))


@pytest.fixture
def repository(server: FakeServer) -> Repository:
    return repository_of(server)
