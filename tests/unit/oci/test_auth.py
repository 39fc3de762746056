"""Challenges, tokens, and to whom credentials are told."""

from __future__ import annotations

import base64
import json
import threading

import pytest
import requests

from airflow_provider_kitops.oci._origin import Origin, check_realm, redirect_target, upload_location
from airflow_provider_kitops.oci.auth import Challenge, parse_challenges
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.errors import (
    Forbidden,
    KitopsError,
    RegistryUnavailable,
    Unauthorized,
    VerificationFailed,
)
from tests.artifacts import LAYER
from tests.unit.oci.conftest import SECRET, repository_of
from tests.unit.oci.fake_server import Answer, FakeServer, Request
from tests.unit.oci.test_transfer_faults import BLOB, DATA


class TokenRegistry:
    """A registry and its token service on one host; tokens are numbered."""

    def __init__(self, server: FakeServer, realm: str = "") -> None:
        self.server = server
        self.realm = realm or f"{server.url}/token"
        self.life: float | None = 300
        self.token_status = 200
        self.valid: set[str] = set()
        self.revoked_after = ""
        server.answer = self

    def __call__(self, request: Request) -> Answer:
        if request.path == "/token":
            return self.token(request)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.valid:
            scope = "repository:demo/model:pull"
            challenge = f'Bearer realm="{self.realm}",service="registry",scope="{scope}"'
            return Answer(401, headers={"WWW-Authenticate": challenge})
        if request.method == "POST":
            return Answer(202, headers={"Location": "/v2/upload"})
        if request.method == "HEAD":
            return Answer(404)
        if request.method == self.revoked_after:
            self.valid.clear()
        return Answer(202 if request.method == "PATCH" else 201, headers={"Location": "/v2/upload"})

    def token(self, request: Request) -> Answer:
        token = f"token-{len(self.asked)}"
        self.valid.add(token)
        return Answer(self.token_status, json.dumps({"token": token, "expires_in": self.life}).encode())

    @property
    def asked(self) -> list[Request]:
        return self.server.seen(path="/token")


def test_challenges_are_read_as_the_rfc_writes_them() -> None:
    header = (
        'Basic realm="a, b=\\"c\\"", Bearer realm="https://x/token",service=reg , scope="r:a:pull,push" , Negotiate'
    )
    assert parse_challenges(header) == [
        Challenge("basic", {"realm": 'a, b="c"'}),
        Challenge("bearer", {"realm": "https://x/token", "service": "reg", "scope": "r:a:pull,push"}),
        Challenge("negotiate", {}),
    ]
    assert parse_challenges("") == []
    assert parse_challenges("=;garbage") == []


def test_a_token_is_fetched_once_and_used_again(server: FakeServer) -> None:
    registry = TokenRegistry(server)
    repository = repository_of(server)
    for _ in range(3):
        assert not repository.exists(BLOB)
    [request] = registry.asked
    assert request.query["scope"] == ["repository:demo/model:pull"]
    assert request.query["service"] == ["registry"]
    assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")) == b"alice:open sesame"


def test_pushing_asks_for_a_token_that_may_push(server: FakeServer) -> None:
    registry = TokenRegistry(server)
    repository_of(server).push(LAYER, lambda: iter([DATA]))
    assert registry.asked[-1].query["scope"] == [
        "repository:demo/model:pull,push repository:demo/model:pull",
    ]


def test_without_credentials_an_anonymous_token_is_used(server: FakeServer) -> None:
    registry = TokenRegistry(server)
    assert not repository_of(server, Credentials()).exists(BLOB)
    assert "Authorization" not in registry.asked[0].headers


def test_a_token_that_ends_during_an_upload_is_fetched_anew(server: FakeServer) -> None:
    TokenRegistry(server).revoked_after = "PATCH"
    assert repository_of(server).push(LAYER, lambda: iter([DATA])) == BLOB
    bearers = [request.headers.get("Authorization") for request in server.seen("PUT")]
    assert len(bearers) == 2, "the closing PUT is refused once, and then sent with a new token"
    assert bearers[0] != bearers[1]
    assert len(server.seen("PATCH")) == 1, "the body is not sent again for it"


def test_a_short_lived_token_is_refreshed_before_it_ends(server: FakeServer) -> None:
    registry = TokenRegistry(server)
    registry.life = 0.0001
    repository = repository_of(server)
    repository.exists(BLOB)
    repository.exists(BLOB)
    refused = [request for request in server.seen("HEAD") if "Authorization" not in request.headers]
    assert (len(registry.asked), len(refused)) == (2, 1)


def test_many_threads_share_one_token(server: FakeServer) -> None:
    registry = TokenRegistry(server)
    repository = repository_of(server)
    threads = [threading.Thread(target=repository.exists, args=(BLOB,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.asked) == 1


def test_an_identity_token_is_exchanged_in_a_body_and_not_in_an_address(server: FakeServer) -> None:
    registry = TokenRegistry(server)
    repository_of(server, Credentials(identity_token="top secret")).exists(BLOB)
    [request] = registry.asked
    assert request.method == "POST"
    assert b"grant_type=refresh_token" in request.body
    assert b"refresh_token=top+secret" in request.body
    assert request.query == {}


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Forbidden), (404, RegistryUnavailable), (500, RegistryUnavailable)]
)
def test_what_the_token_service_refuses_is_told_apart(server: FakeServer, status: int, error: type[Exception]) -> None:
    TokenRegistry(server).token_status = status
    with pytest.raises(error) as caught:
        repository_of(server).exists(BLOB)
    assert SECRET.password not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a\\r\\nX: y"}'])
def test_an_unusable_token_is_an_error(server: FakeServer, body: bytes) -> None:
    TokenRegistry(server).token = lambda request: Answer(200, body)  # type: ignore[method-assign]
    with pytest.raises(RegistryUnavailable, match="no usable token"):
        repository_of(server).exists(BLOB)


def test_a_token_service_elsewhere_is_told_nothing(server: FakeServer, elsewhere: FakeServer) -> None:
    TokenRegistry(server, realm=f"{elsewhere.url}/token")
    with pytest.raises(VerificationFailed, match="token_hosts"):
        repository_of(server).exists(BLOB)
    assert elsewhere.requests == []


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_a_registry_that_repeats_the_request_does_not_put_credentials_into_the_message(
    server: FakeServer, scheme: str
) -> None:
    tokens = TokenRegistry(server)

    def answer(request: Request) -> Answer:
        if "Authorization" not in request.headers and request.path != "/token":
            challenge = f'{scheme} realm="{tokens.realm}",service="registry"'
            return Answer(401, headers={"WWW-Authenticate": challenge})
        if request.path == "/token":
            return Answer(200, b'{"token": "t0ken-of-ours"}')
        sent = request.headers["Authorization"]
        said = f"bad request: Authorization: ['{sent}'] value {sent.split()[1]} other: bearer\nabc.def.ghi"
        return Answer(400, json.dumps({"errors": [{"code": "BAD", "message": said}]}).encode())

    server.answer = answer
    with pytest.raises(KitopsError, match="bad request: Authorization") as caught:
        repository_of(server).tags()
    secret = SECRET.basic.removeprefix("Basic ")
    assert not any(part in str(caught.value) for part in (secret, "t0ken-of-ours", "abc.def", SECRET.password))


REGISTRY = Origin("https", "registry.example.com", 443)


@pytest.mark.parametrize(
    ("realm", "trusted"),
    [
        ("https://registry.example.com/token", ()),
        ("https://registry.example.com:8443/token", ()),
        ("https://auth.example.com/token", ()),
        ("https://login.other.net/token", ("login.other.net",)),
    ],
)
def test_realms_that_may_be_told(realm: str, trusted: tuple[str, ...]) -> None:
    check_realm(REGISTRY, realm, trusted)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        (REGISTRY, "http://registry.example.com/token"),
        (REGISTRY, "https://registry.example.com.evil.net/token"),
        (REGISTRY, "https://evil.net/registry.example.com"),
        (REGISTRY, "https://alice@registry.example.com/token"),
        (REGISTRY, "file:///etc/passwd"),
        (REGISTRY, ""),
        (Origin("https", "a.co.uk", 443), "https://b.co.uk/token"),
        (Origin("https", "10.0.0.1", 443), "https://10.0.0.2/token"),
        (Origin("http", "registry", 80), "http://metadata/token"),
        (Origin("http", "registry.example.com", 80), "http://auth.example.com/token"),
    ],
)
def test_realms_that_may_not(registry: Origin, realm: str) -> None:
    with pytest.raises(VerificationFailed):
        check_realm(registry, realm, ())


def test_an_upload_location_behind_a_proxy_is_taken_back_to_https() -> None:
    asked = "https://r.example:8443/v2/a/blobs/uploads/"
    assert upload_location(asked, "http://r.example:8443/v2/x?y=1") == "https://r.example:8443/v2/x?y=1"
    assert upload_location("https://r.example/v2/", "https://r.example:443/x") == "https://r.example:443/x"
    for location in ("http://r.example:9000/x", "https://other.example/x", "//other.example/x", "https://r.example/x"):
        with pytest.raises(VerificationFailed):
            upload_location(asked, location)
    with pytest.raises(VerificationFailed):
        upload_location("http://r.example/v2/", "https://r.example/x")


def test_a_redirect_never_leaves_encryption() -> None:
    assert redirect_target("https://r.example/v2/x", "/y") == "https://r.example/y"
    with pytest.raises(VerificationFailed):
        redirect_target("https://r.example/v2/x", "http://cdn.example/y")


@pytest.mark.parametrize("leads", ["to a token service", "by a redirect"])
def test_an_answer_that_leads_elsewhere_gives_its_connection_back(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, leads: str
) -> None:
    closed = []
    real = requests.Response.close
    monkeypatch.setattr(requests.Response, "close", lambda self: (closed.append(self.status_code), real(self)))
    challenge = Answer(401, headers={"WWW-Authenticate": 'Bearer realm="https://elsewhere.example/token"'})
    server.answer = lambda request: challenge if "token" in leads else Answer(307, headers={"Location": "ftp://x/"})
    with pytest.raises(VerificationFailed):
        repository_of(server).tags()
    assert set(closed) in ({401}, {307})
