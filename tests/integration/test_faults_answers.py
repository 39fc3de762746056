"""Registries that are busy, broken, wrong, or point elsewhere: through a proxy before a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import (
    DigestMismatch,
    KitopsError,
    NotFound,
    RateLimited,
    RegistryUnavailable,
    VerificationFailed,
)
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.repository import Repository
from tests.artifacts import LAYER, put_artifact
from tests.proxy import Answer, Fault, Proxy, Request
from tests.registry import Registry
from tests.registry_checks import QUICK, assert_layout_whole, assert_registry_whole, quick_repository

SIZE = 4_000_000
SECRET = Credentials("alice", "open sesame")
Rule = Callable[[Request], Fault | None]


@pytest.fixture
def name() -> str:
    return f"answers/{uuid.uuid4().hex}"


@pytest.fixture
def elsewhere(open_registry: Registry) -> Iterator[Proxy]:
    """The same registry on another host."""
    with Proxy(open_registry.host, "127.0.0.2") as running:
        yield running


@pytest.fixture
def repository(proxy: Proxy, name: str) -> Iterator[Repository]:
    with quick_repository(proxy.host, name, SECRET) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "local", "a")
    put_artifact(layout, os.urandom(SIZE), os.urandom(1000), tag="v1")
    return layout


def each_once(answer: Answer) -> Rule:
    """Every request is answered so the first time that it comes."""
    seen: set[tuple[str, str]] = set()

    def rule(request: Request) -> Fault | None:
        # A session has another address every time.
        what = (request.method, request.path.partition("/uploads/")[0])
        if what in seen:
            return None
        seen.add(what)
        return Fault(answer)

    return rule


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_what_fails_once_is_asked_again(
    repository: Repository, proxy: Proxy, local: Layout, open_registry: Registry, name: str, status: int
) -> None:
    proxy.rule = each_once(Answer(status))
    digest = copy(local, "v1", repository, "v1").descriptor.digest
    assert assert_registry_whole(open_registry, name) == {"v1": digest}
    proxy.rule = each_once(Answer(status, body=b"<html>not a word of JSON</html>"))
    copy(repository, "v1", Layout(local.path.parents[1], "b"), "v1")
    assert assert_layout_whole(local.path.parents[1] / "b") == {"v1": digest}


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_says_when_is_waited_for(repository: Repository, proxy: Proxy, status: int) -> None:
    proxy.rule = each_once(Answer(status, {"Retry-After": "1"}))
    before = time.monotonic()
    assert repository.tags() == []
    assert 1 <= time.monotonic() - before < 5
    proxy.rule = lambda request: Fault(Answer(status, {"Retry-After": "3600"}))
    number = len(proxy.requests)
    with pytest.raises(RegistryUnavailable) as caught:
        repository.tags()
    assert (caught.value.retry_after, len(proxy.requests) - number) == (3600, 1)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_what_always_fails_is_told_and_leaves_no_tag(
    repository: Repository, proxy: Proxy, local: Layout, open_registry: Registry, name: str, method: str, status: int
) -> None:
    proxy.rule = lambda request: Fault(Answer(status)) if request.method == method else None
    with pytest.raises(RegistryUnavailable, match=f"HTTP {status}") as caught:
        copy(local, "v1", repository, "v1", concurrency=1)
    assert isinstance(caught.value, RateLimited) is (status == 429)
    assert (caught.value.exit_code, caught.value.transient) == (7, True)
    assert proxy.host in caught.value.message
    assert caught.value.hint
    assert len(proxy.seen(method)) <= 2 * QUICK.attempts
    assert assert_registry_whole(open_registry, name) == {}


def test_the_command_ends_with_code_7(proxy: Proxy, local: Layout) -> None:
    proxy.rule = lambda request: Fault(Answer(503))
    command = [sys.executable, "-m", "airflow_provider_kitops", "push", "a:v1", f"{proxy.host}/a:v1", "--plain-http"]
    done = subprocess.run(
        [*command, "--layout", str(local.path.parent)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "HTTP 503" in done.stderr, "Traceback" in done.stderr) == (7, True, False)


class Tokens:
    """A token service at the proxy's own address, and a registry that takes its tokens until they are revoked.

    :ivar revoke_at: the method of a request whose token has run out when its body has arrived; once.
    """

    def __init__(self, proxy: Proxy, realm: str = "") -> None:
        self.realm = realm or f"{proxy.url}/token"
        self.valid: set[str] = set()
        self.given = 0
        self.revoke_at = ""
        proxy.rule = self

    def __call__(self, request: Request) -> Fault | None:
        if request.path == "/token":
            assert request.headers["authorization"] == SECRET.basic
            self.given += 1
            self.valid.add(f"Bearer t0ken-{self.given}")
            return Fault(Answer(200, body=json.dumps({"token": f"t0ken-{self.given}", "expires_in": 300}).encode()))
        if request.method == self.revoke_at:
            self.revoke_at = ""
            self.valid.clear()
        if request.headers.get("authorization") in self.valid:
            return None
        challenge = f'Bearer realm="{self.realm}",service="registry",scope="repository:x:pull,push"'
        return Fault(Answer(401, {"WWW-Authenticate": challenge}))


@pytest.mark.parametrize("known", [True, False], ids=["put", "patch"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_token_that_runs_out_in_an_upload_is_fetched_anew(
    repository: Repository, proxy: Proxy, method: str, known: bool
) -> None:
    tokens = Tokens(proxy)
    data = os.urandom(SIZE)
    blob = Descriptor.of(LAYER, data)
    assert not repository.exists(blob)
    tokens.revoke_at = method
    source = lambda: (data[at : at + 300_000] for at in range(0, SIZE, 300_000))  # noqa: E731
    assert repository.push(blob if known else LAYER, source) == blob
    assert read(repository, blob) == data
    assert tokens.given >= (3 if tokens.revoke_at == "" else 2)


def test_a_realm_on_another_host_is_told_nothing(repository: Repository, proxy: Proxy, elsewhere: Proxy) -> None:
    Tokens(proxy, realm=f"{elsewhere.url}/token")
    with pytest.raises(VerificationFailed, match="token_hosts"):
        repository.tags()
    assert elsewhere.requests == []
    assert not any("authorization" in request.headers for request in proxy.requests)


def test_an_upload_is_not_sent_to_another_host(
    repository: Repository, proxy: Proxy, elsewhere: Proxy, local: Layout, open_registry: Registry, name: str
) -> None:
    proxy.rule = lambda request: (
        Fault(headers={"Location": f"{elsewhere.url}/v2/{name}/blobs/uploads/1"}) if request.method == "POST" else None
    )
    with pytest.raises(VerificationFailed, match="another place"):
        copy(local, "v1", repository, "v1")
    assert elsewhere.requests == []
    assert assert_registry_whole(open_registry, name) == {}


def test_a_signed_address_on_another_host_is_followed_without_credentials(
    proxy: Proxy, elsewhere: Proxy, local: Layout, open_registry: Registry, name: str
) -> None:
    with quick_repository(open_registry.host, name) as direct:
        digest = copy(local, "v1", direct, "v1").descriptor.digest
    tokens = Tokens(proxy)
    storage_breaks = [Fault(cut_answer=SIZE // 2, reset=False)]

    def rule(request: Request) -> Fault | None:
        refused = tokens(request)
        if refused is None and request.method == "GET" and "/blobs/" in request.path:
            signed = f"{elsewhere.url}{request.path}?X-Amz-Signature=s1gned-{request.number}"
            return Fault(Answer(307, {"Location": signed}))
        return refused

    def storage(request: Request) -> Fault | None:
        if not request.query.get("X-Amz-Signature"):
            return Fault(Answer(403))
        return storage_breaks.pop() if storage_breaks and request.number > 1 else None

    proxy.rule, elsewhere.rule = rule, storage
    with quick_repository(proxy.host, name, SECRET) as repository:
        copy(repository, "v1", Layout(local.path.parents[1], "b"), "v1", concurrency=1)
    assert assert_layout_whole(local.path.parents[1] / "b") == {"v1": digest}
    assert elsewhere.requests
    assert not any("authorization" in each.headers or "cookie" in each.headers for each in elsewhere.requests)
    signatures = [each.query["X-Amz-Signature"][0] for each in elsewhere.requests]
    assert len(set(signatures)) == len(signatures), "what broke is asked for at the registry again"


def wrong_byte(place: int, piece: bytes) -> bytes:
    return piece[:-1] + bytes([piece[-1] ^ 1]) if place == 0 else piece


OTHER = "sha256:" + "0" * 64
WRONG: dict[str, tuple[Callable[[Request], bool], Fault, tuple[type[KitopsError], ...]]] = {
    "blob-bytes": (lambda request: "/blobs/" in request.path, Fault(change=wrong_byte), (DigestMismatch,)),
    "blob-too-short": (
        lambda request: "/blobs/" in request.path,
        Fault(headers={"Content-Length": "500"}, reset=False),
        (DigestMismatch,),
    ),
    "blob-too-long": (
        lambda request: "/blobs/" in request.path,
        Fault(headers={"Content-Length": str(SIZE * 9)}, reset=False),
        (DigestMismatch,),
    ),
    "manifest-bytes": (lambda request: "/manifests/" in request.path, Fault(change=wrong_byte), (DigestMismatch,)),
    "manifest-too-short": (
        lambda request: "/manifests/" in request.path and request.method == "GET",
        Fault(headers={"Content-Length": "50"}, reset=False),
        (DigestMismatch,),
    ),
    "manifest-too-long": (
        lambda request: "/manifests/" in request.path and request.method == "GET",
        Fault(headers={"Content-Length": "50000"}, reset=False),
        (RegistryUnavailable,),
    ),
    "manifest-digest": (
        lambda request: "/manifests/" in request.path and request.method == "HEAD",
        Fault(headers={"Docker-Content-Digest": OTHER}),
        (NotFound, DigestMismatch),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_answers_are_noticed_and_nothing_of_them_is_kept(
    repository: Repository, proxy: Proxy, local: Layout, what: str
) -> None:
    digest = copy(local, "v1", repository, "v1").descriptor.digest
    fits, fault, errors = WRONG[what]
    proxy.rule = lambda request: fault if fits(request) else None
    layout = Layout(local.path.parents[1], "b")
    with pytest.raises(errors):
        copy(repository, "v1", layout, "v1")
    assert assert_layout_whole(layout.path) == {}
    proxy.rule = lambda request: None
    copy(repository, "v1", layout, "v1")
    assert assert_layout_whole(layout.path) == {"v1": digest}


def test_a_registry_that_stored_another_manifest_is_noticed(
    repository: Repository, proxy: Proxy, local: Layout
) -> None:
    proxy.rule = lambda request: (
        Fault(headers={"Docker-Content-Digest": OTHER})
        if request.method == "PUT" and "/manifests/" in request.path
        else None
    )
    with pytest.raises(DigestMismatch, match=OTHER):
        copy(local, "v1", repository, "v1")
    assert not [each for each in proxy.seen("PUT") if each.path.endswith("/v1")], "the tag has not been set"
