"""Whatever a hostile registry answers, it is read, or refused by one of the package's own errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_kitops.modelkit.manifest import Manifest
from airflow_provider_kitops.oci._origin import Origin, check_realm, redirect_target, upload_location
from airflow_provider_kitops.oci._paging import texts
from airflow_provider_kitops.oci._status import retry_after
from airflow_provider_kitops.oci.auth import Authenticator
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.descriptor import INDEX, MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, KitopsError, RegistryUnavailable, VerificationFailed
from airflow_provider_kitops.oci.manifest import Links
from airflow_provider_kitops.oci.repository import Repository
from tests.unit.oci.fake_server import Answer, FakeServer

GOOD = {"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": 3}
HALF_A_PAIR = "\ud800"
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def damaged(good: dict[str, Any], *more: str) -> st.SearchStrategy[Any]:
    """Any JSON, and a good object in which some fields are any JSON or missing."""
    fields = st.dictionaries(st.sampled_from([*good, *more]), ANY, max_size=3)
    without = st.sets(st.sampled_from([*good]), max_size=1)
    changed = st.builds(lambda new, gone: {k: v for k, v in {**good, **new}.items() if k not in gone}, fields, without)
    return ANY | changed


DESCRIPTOR = damaged(GOOD, "annotations", "artifactType", "urls", "platform", "data")


@given(DESCRIPTOR)
@example({**GOOD, "annotations": ["a"]})
@example({**GOOD, "annotations": []})
@example({**GOOD, "annotations": {"a": 1}})
@example({**GOOD, "annotations": {"a": HALF_A_PAIR}})
@example({**GOOD, "size": 10**4000})
@example({**GOOD, "size": True})
@example({**GOOD, "urls": "a"})
@example({**GOOD, "platform": "linux"})
@example({**GOOD, "artifactType": 1})
def test_any_json_is_a_descriptor_or_refused(value: Any) -> None:
    try:
        read = Descriptor.from_json(value)
    except InvalidInput:
        return
    assert Descriptor.from_json(read.to_json()) == read
    json.dumps(read.to_json(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"annotations": ["a"]},
        {"annotations": {"a": 1}},
        {"urls": "https://a"},
        {"urls": [1]},
        {"platform": []},
        {"data": {}},
        {"artifactType": 1},
        {"size": 2**63},
        {"mediaType": HALF_A_PAIR},
    ],
    ids=str,
)
def test_a_field_of_a_wrong_type_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"Malformed .*{next(iter(wrong))}"):
        Descriptor.from_json({**GOOD, **wrong})


def test_fields_that_a_descriptor_may_have_are_no_reason_to_refuse_it() -> None:
    more = {"urls": ["https://a"], "platform": {"os": "linux"}, "data": "YQ==", "annotations": None}
    assert Descriptor.from_json({**GOOD, **more}).size == 3


LINKS = damaged(
    {"schemaVersion": 2, "config": GOOD, "layers": [GOOD]}, "manifests", "subject", "annotations", "artifactType"
)


@given(LINKS | st.builds(lambda part: {"config": part, "layers": [part], "manifests": [part]}, DESCRIPTOR))
@example({"layers": {}})
@example({"annotations": {"a": HALF_A_PAIR}})
def test_any_json_is_a_manifest_or_refused(value: Any) -> None:
    data = json.dumps(value).encode()
    for read in (
        lambda: Links.parse(MANIFEST, data),
        lambda: Links.parse(INDEX, data),
        lambda: Manifest.parse(data, "x"),
    ):
        try:
            read()
        except InvalidInput:
            continue


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000])
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        Links.parse(MANIFEST, data)
    with pytest.raises(InvalidInput):
        Manifest.parse(data, "x")


def token_reader(body: bytes) -> str | None:
    auth = Authenticator(
        Origin("http", "r", 80), "r", lambda: Credentials("alice", "x"), lambda *_: (200, body), token_hosts=()
    )
    return auth.answer('Bearer realm="http://r/token"', "scope", None)


@given(damaged({"token": "t", "expires_in": 3}, "access_token"))
@example({"token": "t", "expires_in": 10**400})
@example({"token": "t", "expires_in": float("nan")})
@example({"token": "t", "expires_in": "1e999"})
def test_any_json_is_a_token_or_refused(value: Any) -> None:
    try:
        header = token_reader(json.dumps(value).encode())
    except RegistryUnavailable:
        return
    assert header
    assert header.startswith("Bearer ")


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"token": "t", "expires_in": 1' + b"0" * 400 + b"}", b'{"token": "t", "expires_in": NaN}'],
)
def test_a_token_with_a_life_that_is_no_time_is_refused(body: bytes) -> None:
    with pytest.raises(RegistryUnavailable, match="no usable token"):
        token_reader(body)


@given(damaged({"tags": ["a"]}))
def test_any_json_is_a_list_or_refused(value: Any) -> None:
    with contextlib.suppress(RegistryUnavailable):
        assert isinstance(texts(json.dumps(value).encode(), "tags", "list"), list)


LATIN = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=30)
ADDRESS = LATIN | LATIN.map(lambda text: f"http://{text}") | LATIN.map(lambda text: f"//{text}/x")


@given(ADDRESS)
@example("http://[")
@example("//[::1")
@example("http://a:99999999/")
@pytest.mark.parametrize(
    "read", [redirect_target, upload_location, lambda asked, text: check_realm(Origin.of(asked), text, ())]
)
def test_any_address_is_taken_or_refused(read: Callable[[str, str], object], address: str) -> None:
    with contextlib.suppress(VerificationFailed):
        read("http://registry.example/v2/", address)


@given(LATIN | st.integers().map(str))
@example("9" * 400)
@example("9" * 5000)
@example("Mon, 20 Nov 1995 19:12:08 +99999999999999")
@example("Mon, 20 Nov 99999 19:12:08 GMT")
def test_any_time_to_wait_is_seconds_or_none(value: str) -> None:
    wait = retry_after(value)
    assert wait is None or wait >= 0


@given(
    damaged({"schemaVersion": 2, "manifests": [GOOD]}, "annotations")
    | DESCRIPTOR.map(lambda entry: {"schemaVersion": 2, "manifests": [entry]}),
    st.booleans(),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example({"schemaVersion": 2, "manifests": [{**GOOD, "annotations": ["a"]}]}, True)
def test_any_json_is_a_list_of_referrers_or_refused(
    server: FakeServer, repository: Repository, value: Any, by_tag: bool
) -> None:
    body = json.dumps(value).encode()
    server.answer = lambda request: (
        Answer(404) if by_tag and "referrers" in request.path else Answer(200, body, {"Content-Type": INDEX})
    )
    try:
        found = repository.referrers(Descriptor.of(MANIFEST, b"subject"))
    except KitopsError:
        return
    assert all(isinstance(item, Descriptor) for item in found)


def test_a_list_of_referrers_that_is_null_is_empty(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: Answer(200, b'{"schemaVersion": 2, "manifests": null}', {"Content-Type": INDEX})
    assert repository.referrers(Descriptor.of(MANIFEST, b"subject")) == []
    assert not server.seen(path="sha256-")


@pytest.mark.parametrize("link", ["http://[", "//[::1/x", "http://a:b/"])
def test_a_next_page_that_is_no_address_is_refused(server: FakeServer, repository: Repository, link: str) -> None:
    server.answer = lambda request: Answer(200, b'{"tags": ["a"]}', {"Link": f'<{link}>; rel="next"'})
    with pytest.raises(VerificationFailed, match="malformed address"):
        repository.tags()


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1_0", "x"])
def test_a_length_that_is_no_number_is_not_believed(server: FakeServer, repository: Repository, length: str) -> None:
    def answer(request: Any) -> Answer:
        if request.method == "HEAD":
            headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": Descriptor.of(MANIFEST, b"{}").digest}
            return Answer(200, headers={**headers, "Content-Length": length})
        return Answer(200, b"{}", {"Content-Type": MANIFEST})

    server.answer = answer
    assert repository.resolve("v1").size == 2  # that of the manifest itself, which is fetched instead
    assert server.seen("GET", "manifests/v1")


@pytest.mark.parametrize("location", ["//[::1/x", "http://[", "http://a:b/", "\xff\xfe"])
def test_a_redirect_to_what_is_no_address_is_refused(server: FakeServer, repository: Repository, location: str) -> None:
    server.answer = lambda request: Answer(307, headers={"Location": location})
    with pytest.raises(KitopsError):
        repository.tags()
