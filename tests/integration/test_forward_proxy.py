"""A registry that only a proxy can reach: it is asked for, told its own credentials and nobody else's.

The proxy is this module's: it knows CONNECT and absolute addresses, wants a user, and keeps what it saw.
"""

from __future__ import annotations

import base64
import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.errors import RegistryUnavailable
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.artifacts import put_artifact
from tests.integration.test_tls import Pair, make_pair
from tests.registry import PASSWORD, USERNAME, Registry, run_registry

PROXY_USER, PROXY_PASSWORD = "door", "keeper"
WANTED = b"Basic " + base64.b64encode(f"{PROXY_USER}:{PROXY_PASSWORD}".encode())


@dataclass
class Proxy:
    """A running proxy.

    :param first_lines: the first lines of the requests that it let pass.
    :param seen: everything that it could read.
    """

    port: int = 0
    first_lines: list[bytes] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)

    def url(self, password: str = PROXY_PASSWORD) -> str:
        return f"http://{PROXY_USER}:{password}@127.0.0.1:{self.port}"


def _serve(proxy: Proxy, client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(65536)
            if not data:
                return
            head += data
        line, _, rest = head.partition(b"\r\n")
        if b"Proxy-Authorization: " + WANTED not in rest.split(b"\r\n"):
            client.sendall(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
            return
        proxy.first_lines.append(line)
        method, address, _ = line.split(b" ")
        host = address if method == b"CONNECT" else address.split(b"/")[2]
        name, _, port = host.decode().partition(":")
        with socket.create_connection((name, int(port))) as server:
            if method == b"CONNECT":
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                # One request for each connection: the next may be for another server.
                proxy.seen += head
                head = head.replace(b"http://" + host, b"", 1)
                server.sendall(head)
            _pump(proxy, client, server)


def _pump(proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
    while True:
        for ready in select.select([client, server], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            proxy.seen += data[:4096]
            if ready is client and (at := data.find(b" http://")) >= 0 and at < 10:
                proxy.first_lines.append(data.partition(b"\r\n")[0])
                start = data.index(b"/", at + 8)
                data = data[: at + 1] + data[start:]
            (server if ready is client else client).sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    listener = socket.create_server(("127.0.0.1", 0))
    running = Proxy(listener.getsockname()[1])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                threading.Thread(target=_serve, args=[running, client], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield running
    listener.close()


def there_and_back(config: StoreConfig) -> None:
    data = os.urandom(2_000_000)
    with Store(config) as store:
        target = store.target("demo/through-a-proxy")
        manifest = put_artifact(target, data, tag="v1")
        assert target.resolve("v1") == manifest
        assert read(target, manifest)


def test_a_plain_registry_is_reached_through_the_proxy(proxy: Proxy, registry: Registry) -> None:
    there_and_back(StoreConfig(registry.host, plain_http=True, proxy=proxy.url()))
    assert proxy.first_lines
    assert all(f"http://{registry.host}/".encode() in line for line in proxy.first_lines)


def test_what_goes_to_a_registry_with_tls_is_not_shown_to_the_proxy(proxy: Proxy, tmp_path: Path) -> None:
    authority = make_pair(tmp_path, "authority")
    own: Pair = make_pair(tmp_path, "registry", authority)
    settings = {
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(own.certificate_file),
        "REGISTRY_HTTP_TLS_KEY": str(own.key_file),
    }
    with run_registry(tmp_path / "registry", username=USERNAME, password=PASSWORD, settings=settings) as secure:
        config = StoreConfig(
            secure.host,
            username=USERNAME,
            password=PASSWORD,
            ca_bundle=authority.certificate_file,
            proxy=proxy.url(),
        )
        there_and_back(config)
    assert {line.rpartition(b" ")[0] for line in proxy.first_lines} == {f"CONNECT {secure.host}".encode()}
    assert b"demo/through-a-proxy" not in proxy.seen
    assert base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()) not in proxy.seen


def test_a_proxy_that_refuses_is_named_and_its_password_is_not(proxy: Proxy, registry: Registry) -> None:
    for config in (
        StoreConfig(registry.host, proxy=proxy.url("wrong"), plain_http=True),
        StoreConfig(registry.host, proxy=proxy.url("wrong")),
    ):
        with Store(config) as store, pytest.raises(Exception, match="proxy") as caught:
            store.check()
        assert "wrong" not in str(caught.value)
    assert proxy.first_lines == []


def test_the_environment_names_a_proxy_and_its_exceptions(
    proxy: Proxy, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url())
    monkeypatch.setenv("no_proxy", "")
    with Store(StoreConfig(registry.host, plain_http=True)) as store:
        store.check()
    assert proxy.first_lines == [f"GET http://{registry.host}/v2/ HTTP/1.1".encode()]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Store(StoreConfig(registry.host, plain_http=True)) as store:
        store.check()
    assert len(proxy.first_lines) == 1


def test_a_proxy_that_goes_away_is_unavailable(proxy: Proxy, registry: Registry) -> None:
    with Store(StoreConfig(registry.host, plain_http=True, proxy=proxy.url().replace(str(proxy.port), "1"))) as store:
        with pytest.raises(RegistryUnavailable, match="proxy") as caught:
            store.check()
        assert caught.value.transient
