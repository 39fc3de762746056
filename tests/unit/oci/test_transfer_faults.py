"""What the registry client does when connections break and servers misbehave."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from airflow_provider_kitops.oci import _paging, _uploads
from airflow_provider_kitops.oci._status import retry_after
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import INDEX, MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    KitopsError,
    LimitExceeded,
    NotFound,
    RateLimited,
    RegistryUnavailable,
    StorageError,
    Unauthorized,
    VerificationFailed,
)
from airflow_provider_kitops.oci.repository import Repository
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.artifacts import LAYER, manifest_bytes
from tests.unit.oci.conftest import repository_of
from tests.unit.oci.fake_server import Answer, FakeServer, Request

DATA = os.urandom(300_000)
BLOB = Descriptor.of(LAYER, DATA)


def test_a_broken_download_goes_on_where_it_broke(server: FakeServer, repository: Repository) -> None:
    def answer(request: Request) -> Answer:
        begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"Content-Length": str(len(DATA) - begin)}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}"
        return Answer(206 if begin else 200, DATA[begin:], headers, cut=70_000)

    server.answer = answer
    assert read(repository, BLOB) == DATA
    ranges = [request.headers.get("Range", f"bytes=0-{len(DATA) - 1}") for request in server.seen("GET")]
    # Five pieces, though no request may be tried more than four times in a row.
    assert ranges == [f"bytes={at}-{len(DATA) - 1}" for at in range(0, len(DATA), 70_000)]


def test_nothing_is_asked_for_behind_the_end(server: FakeServer, repository: Repository) -> None:
    assert repository.fetch_from(BLOB, BLOB.size).read() == b""
    assert server.requests == []


def test_a_registry_without_ranges_is_read_from_the_beginning(server: FakeServer, repository: Repository) -> None:
    def answer(request: Request) -> Answer:
        return Answer(200, DATA, cut=150_000 if len(server.requests) == 1 else None)

    server.answer = answer
    assert read(repository, BLOB) == DATA


def test_a_registry_without_ranges_may_break_while_its_beginning_is_skipped(
    server: FakeServer, repository: Repository
) -> None:
    cuts = iter([200_000, 60_000, 150_000, None])
    server.answer = lambda request: Answer(200, DATA, {"Content-Length": str(len(DATA))}, cut=next(cuts))
    assert read(repository, BLOB) == DATA
    assert next(cuts, "none left") == "none left"


def test_a_registry_without_ranges_that_breaks_again_and_again_is_given_up(
    server: FakeServer, repository: Repository
) -> None:
    cuts = iter([200_000, *[150_000] * 100])
    server.answer = lambda request: Answer(200, DATA, {"Content-Length": str(len(DATA))}, cut=next(cuts))
    with pytest.raises(RegistryUnavailable):
        read(repository, BLOB)
    assert len(server.requests) < 12


@pytest.mark.parametrize(
    "refusal", [Answer(416), Answer(206, DATA, {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"})]
)
def test_a_registry_that_does_not_go_on_is_asked_for_the_whole(
    server: FakeServer, repository: Repository, refusal: Answer
) -> None:
    cuts = iter([100_000])

    def answer(request: Request) -> Answer:
        if "Range" in request.headers:
            return refusal
        return Answer(200, DATA, {"Content-Length": str(len(DATA))}, cut=next(cuts, None))

    server.answer = answer
    assert read(repository, BLOB) == DATA
    assert ["Range" in request.headers for request in server.requests] == [False, True, False]
    rest = repository.fetch_from(BLOB, 50_000)  # as a process that goes on where another was killed
    assert rest.read() == DATA[50_000:]


def test_a_download_that_never_moves_on_is_given_up(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: Answer(200, DATA, cut=0)
    with pytest.raises(RegistryUnavailable):
        read(repository, BLOB)
    assert len(server.requests) == 4


class Uploads:
    """Takes uploads, and does with a PATCH or PUT that has a body what the test says."""

    def __init__(self, server: FakeServer, *answers: Answer, location: str = "/v2/demo/model/blobs/uploads/1") -> None:
        self.answers = list(answers)
        self.location = location
        self.bodies: list[bytes] = []
        server.answer = self

    def __call__(self, request: Request) -> Answer:
        if request.method == "HEAD":
            return Answer(404)
        if request.method == "POST":
            return Answer(202, headers={"Location": self.location})
        if request.method == "DELETE":
            return Answer(204)
        if request.body:
            self.bodies.append(request.body)
            if self.answers:
                return self.answers.pop(0)
        done = 202 if request.method == "PATCH" else 201
        return Answer(done, headers={"Location": self.location})


@pytest.mark.parametrize("content", [BLOB, LAYER])
def test_a_failed_upload_is_sent_again_from_the_beginning(
    server: FakeServer, repository: Repository, content: Descriptor | str
) -> None:
    uploads = Uploads(server, Answer(503), Answer(500, b"oops"))
    opened = 0

    def source() -> Iterator[bytes]:
        nonlocal opened
        opened += 1
        yield DATA[:100_000]
        yield DATA[100_000:]

    assert repository.push(content, source) == BLOB
    assert opened == 3
    assert uploads.bodies == [DATA] * 3
    closing = server.seen("PUT")[-1]
    assert closing.query["digest"] == [BLOB.digest]


@pytest.mark.parametrize("content", ["known", "unknown"])
def test_a_registry_that_refuses_large_requests_gets_chunks(
    server: FakeServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(_uploads, "_CHUNK", 100_000)
    monkeypatch.setattr(_uploads, "_AT_ONCE", 0)
    kept: list[bytes] = []

    def answer(request: Request) -> Answer:
        if request.method == "PATCH" and len(request.body) > 120_000:
            return Answer(413)
        if request.method == "PATCH":
            begin = sum(map(len, kept))
            assert request.headers["Content-Range"] == f"{begin}-{begin + len(request.body) - 1}"
            assert request.headers["Content-Length"] == str(len(request.body))
            kept.append(request.body)
        status = {"HEAD": 404, "POST": 202, "PATCH": 202, "DELETE": 204}.get(request.method, 201)
        # Each answer names where the next chunk goes; the shortest that it takes is a little longer than ours.
        place = f"/v2/demo/model/blobs/uploads/{len(server.requests)}"
        return Answer(status, headers={"Location": place, "OCI-Chunk-Min-Length": "110000"})

    server.answer = answer
    assert repository.push(BLOB if content == "known" else LAYER, lambda: iter([DATA])) == BLOB
    assert [len(chunk) for chunk in kept] == [110_000, 110_000, 80_000]
    assert b"".join(kept) == DATA
    assert server.seen("PUT")[0].query["digest"] == [BLOB.digest]
    # It is known from then on.
    kept.clear()
    repository.push(LAYER, lambda: iter([DATA]))
    assert b"".join(kept) == DATA
    assert len(server.seen("DELETE")) == 1


def test_a_registry_that_refuses_chunks_too_is_told_of(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: Answer(
        {"HEAD": 404, "POST": 202}.get(request.method, 413), headers={"Location": "/v2/demo/model/blobs/uploads/1"}
    )
    with pytest.raises(LimitExceeded, match="limits the size"):
        repository.push(LAYER, lambda: iter([DATA]))


def test_what_a_failed_try_has_sent_does_not_stay_in_the_registry(server: FakeServer, repository: Repository) -> None:
    Uploads(server, Answer(503), Answer(503))
    repository.push(LAYER, lambda: iter([DATA]))
    assert len(server.seen("POST")) == 3
    assert len(server.seen("DELETE")) == 2


def test_empty_content_is_one_request_less(server: FakeServer, repository: Repository) -> None:
    Uploads(server)
    repository.push(Descriptor.of(LAYER, b""), b"")
    assert [request.method for request in server.requests] == ["HEAD", "POST", "PUT"]


def test_what_is_small_and_known_saves_a_request(server: FakeServer, repository: Repository) -> None:
    Uploads(server)
    repository.push(BLOB, lambda: iter([DATA]))
    assert [request.method for request in server.requests] == ["HEAD", "POST", "PUT"]
    assert server.seen("PUT")[0].headers["Content-Length"] == str(len(DATA))
    repository.push(LAYER, lambda: iter([DATA]))
    assert server.seen("PATCH")[0].headers["Transfer-Encoding"] == "chunked"


def test_a_source_that_fails_lets_its_request_end_so_that_the_upload_can_be_ended(
    server: FakeServer, repository: Repository
) -> None:
    uploads = Uploads(server)

    def source() -> Iterator[bytes]:
        yield DATA
        raise StorageError("The file is gone.")

    large = Descriptor(LAYER, BLOB.digest, 100_000_000)
    for content in (LAYER, large):
        with pytest.raises(StorageError, match="gone"):
            repository.push(content, source)
        assert uploads.bodies[-1] == DATA
        assert server.requests[-1].method == "DELETE"
    with pytest.raises(DigestMismatch):
        repository.push(large, lambda: iter([DATA]))
    assert server.requests[-1].method == "DELETE"
    assert server.seen("PUT") == []
    # What is small is read before anything is begun.
    server.requests.clear()
    with pytest.raises(StorageError, match="gone"):
        repository.push(BLOB, source)
    assert [request.method for request in server.requests] == ["HEAD"]


def test_an_upload_is_not_sent_to_another_host(
    server: FakeServer, elsewhere: FakeServer, repository: Repository
) -> None:
    Uploads(server, location=f"{elsewhere.url}/v2/demo/model/blobs/uploads/1")
    with pytest.raises(VerificationFailed, match="another place"):
        repository.push(BLOB, DATA)
    assert elsewhere.requests == []


@pytest.mark.parametrize("location", ["/v2/x?_state=a%2Bb", "http://{host}/v2/x?_state=a%2Bb"])
def test_a_location_may_be_relative_or_absolute_and_keeps_its_state(
    server: FakeServer, repository: Repository, location: str
) -> None:
    Uploads(server, location=location.format(host=server.host))
    repository.push(LAYER, lambda: iter([DATA]))
    closing = server.seen("PUT")[-1]
    assert closing.query == {"_state": ["a+b"], "digest": [BLOB.digest]}


def test_a_mount_that_is_refused_ends_the_upload_that_it_began(server: FakeServer) -> None:
    one = repository_of(server)
    two = Repository(server.host, "demo/other", one._client)
    Uploads(server)
    assert two.mount(BLOB, one) is False
    assert [request.method for request in server.requests] == ["POST", "DELETE"]


def test_a_redirect_to_another_host_gets_no_credentials(
    server: FakeServer, elsewhere: FakeServer, repository: Repository
) -> None:
    def answer(request: Request) -> Answer:
        if "Authorization" not in request.headers:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(307, headers={"Location": f"{elsewhere.url}/storage?signature=abc"})

    server.answer = answer
    elsewhere.answer = lambda request: Answer(200, DATA)
    assert read(repository, BLOB) == DATA
    assert "Authorization" not in elsewhere.requests[0].headers
    assert elsewhere.requests[0].query == {"signature": ["abc"]}


def test_redirects_in_a_circle_end(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: Answer(302, headers={"Location": request.path})
    with pytest.raises(KitopsError, match="in circles"):
        read(repository, BLOB)


@pytest.mark.parametrize(
    ("status", "error", "tries"),
    [
        (401, Unauthorized, 1),
        (403, Forbidden, 1),
        (404, NotFound, 1),
        (405, Forbidden, 1),
        (409, Conflict, 1),
        (412, Conflict, 1),
        (413, LimitExceeded, 1),
        (418, KitopsError, 1),
        (429, RateLimited, 4),
        (500, RegistryUnavailable, 4),
        (503, RegistryUnavailable, 4),
    ],
)
def test_each_status_has_its_error(
    server: FakeServer, repository: Repository, status: int, error: type[KitopsError], tries: int
) -> None:
    body = json.dumps({"errors": [{"code": "WHATEVER", "message": "the\nreason"}]}).encode()
    server.answer = lambda request: Answer(status, body)
    with pytest.raises(error) as caught:
        repository._manifests.put(MANIFEST, b"{}", "v1")
    assert type(caught.value) is error
    assert "the reason" in caught.value.message
    assert str(status) in caught.value.message
    assert server.host in caught.value.message
    assert caught.value.hint or status == 418
    assert len(server.requests) == tries


def test_a_registry_that_asks_to_wait_is_obeyed(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: (
        Answer(429, headers={"Retry-After": "1"}) if len(server.requests) == 1 else Answer(200)
    )
    began = time.monotonic()
    assert repository.exists(BLOB)
    assert 1 <= time.monotonic() - began < 3


def test_a_registry_that_asks_to_wait_too_long_is_left_to_the_caller(
    server: FakeServer, repository: Repository
) -> None:
    server.answer = lambda request: Answer(429, headers={"Retry-After": "3600"})
    with pytest.raises(RateLimited, match="3600 seconds") as caught:
        repository.exists(BLOB)
    assert caught.value.retry_after == 3600
    assert len(server.requests) == 1


def test_retry_after_may_be_a_date() -> None:
    assert retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=2)
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert retry_after("soon") is retry_after(None) is None


def test_tags_are_read_page_by_page(server: FakeServer, repository: Repository) -> None:
    pages = {"": (["a", "b"], "b"), "b": (["c"], "c"), "c": (None, "")}

    def answer(request: Request) -> Answer:
        tags, following = pages[request.query.get("last", [""])[0]]
        link = {"Link": f'</v2/demo/model/tags/list?last={following}&n=2>; rel="next"'} if following else {}
        return Answer(200, json.dumps({"name": "demo/model", "tags": tags}).encode(), link)

    server.answer = answer
    assert repository.tags() == ["a", "b", "c"]


LOGIN_PAGE = Answer(200, b"<html>Log in</html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    "body", [LOGIN_PAGE.body, b"", b"[]", b"null", b"{}", b'{"tags": {}}', b'{"tags": ""}', b'{"tags": [1]}']
)
def test_an_answer_that_is_no_list_does_not_count_as_an_empty_one(
    server: FakeServer, repository: Repository, body: bytes
) -> None:
    server.answer = lambda request: Answer(200, body)
    with pytest.raises(RegistryUnavailable, match="Could not list the tags"):
        repository.tags()
    with (
        Store(StoreConfig(server.host, plain_http=True)) as store,
        pytest.raises(RegistryUnavailable, match="Could not list the repositories"),
    ):
        store.repositories()


def test_a_list_without_end_is_given_up(
    server: FakeServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_paging, "_MAX_LIST", 10_000)

    def answer(request: Request) -> Answer:
        following = len(server.requests)
        tags = json.dumps({"tags": [f"v{following}-{each}" for each in range(100)]}).encode()
        return Answer(200, tags, {"Link": f'</v2/demo/model/tags/list?last={following}>; rel="next"'})

    server.answer = answer
    with pytest.raises(LimitExceeded, match="longer than 10000 bytes"):
        repository.tags()


def test_tags_that_do_not_exist_are_none(server: FakeServer, repository: Repository) -> None:
    for answer in (Answer(404), Answer(200, b'{"tags": null}')):
        server.answer = lambda request, answer=answer: answer
        assert repository.tags() == []


@pytest.mark.parametrize("link", ["{other}/v2/demo/model/tags/list?last=a", "/v2/demo/model/tags/list?last=a"])
def test_a_next_page_elsewhere_or_seen_before_is_refused(
    server: FakeServer, elsewhere: FakeServer, repository: Repository, link: str
) -> None:
    header = f'<{link.format(other=elsewhere.url)}>; rel="next"'
    server.answer = lambda request: Answer(200, b'{"tags": ["a"]}', {"Link": header})
    with pytest.raises(VerificationFailed):
        repository.tags()
    assert elsewhere.requests == []


def manifest_answer(data: bytes, **headers: str) -> Answer:
    return Answer(200, data, {"Content-Type": MANIFEST, **headers})


def test_a_manifest_with_another_digest_is_refused(server: FakeServer, repository: Repository) -> None:
    data, other = b'{"schemaVersion":2}', Descriptor.of(MANIFEST, b"other")
    server.answer = lambda request: manifest_answer(data, **{"Docker-Content-Digest": other.digest})
    with pytest.raises(DigestMismatch):
        repository._manifests.read("v1")
    with pytest.raises(DigestMismatch):
        repository._manifests.read(other.digest)
    with pytest.raises(DigestMismatch):
        repository.resolve(Descriptor.of(MANIFEST, data).digest)


def test_a_registry_that_sends_no_digest_header_is_read_and_hashed(server: FakeServer, repository: Repository) -> None:
    data = b'{"schemaVersion":2}'
    server.answer = lambda request: manifest_answer(data)
    assert repository.resolve("v1") == Descriptor.of(MANIFEST, data)


def test_an_endless_manifest_is_not_read_to_its_end(server: FakeServer, repository: Repository) -> None:
    data = b" " * (4 * 1024 * 1024 + 1)
    server.answer = lambda request: manifest_answer(data)
    with pytest.raises(LimitExceeded):
        repository.resolve("v1")


def test_what_is_no_manifest_is_said_so(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: Answer(200, b"<html>", {"Content-Type": "text/html"})
    with pytest.raises(KitopsError, match="text/html"):
        repository.resolve("v1")


MODEL = Descriptor.of(MANIFEST, b"{}")
NOTE = {"mediaType": MANIFEST, "digest": Descriptor.of(MANIFEST, b"1").digest, "size": 1, "artifactType": "a/b"}
OTHER = {**NOTE, "digest": Descriptor.of(MANIFEST, b"2").digest, "artifactType": "c/d"}


def index_of(*entries: dict[str, object], **headers: str) -> Answer:
    value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return Answer(200, json.dumps(value).encode(), {"Content-Type": INDEX, **headers})


def test_referrers_come_from_the_api_page_by_page(server: FakeServer, repository: Repository) -> None:
    def answer(request: Request) -> Answer:
        if "page" in request.query:
            return index_of(OTHER)
        return index_of(NOTE, Link='</v2/demo/model/referrers/x?page=2>; rel="next"')

    server.answer = answer
    assert [item.digest for item in repository.referrers(MODEL)] == [NOTE["digest"], OTHER["digest"]]
    # Filtered here, as this server does not.
    assert [item.digest for item in repository.referrers(MODEL, "a/b")] == [NOTE["digest"]]
    assert server.requests[-2].query == {"artifactType": ["a/b"]}


@pytest.mark.parametrize(
    "none",
    [
        Answer(404),
        Answer(303, headers={"Location": "https://127.0.0.1:1/login"}),
        Answer(200, b"<html>", {"Content-Type": "text/html"}),
        Answer(400),
    ],
    ids=["404", "redirect", "page", "400"],
)
def test_without_the_api_referrers_come_from_the_tag(server: FakeServer, repository: Repository, none: Answer) -> None:
    tag = MODEL.digest.replace(":", "-")
    server.answer = lambda request: index_of(NOTE) if request.path.endswith(tag) else none
    assert [item.digest for item in repository.referrers(MODEL)] == [NOTE["digest"]]


def test_a_login_page_does_not_mean_that_nothing_refers_to_a_manifest(
    server: FakeServer, repository: Repository
) -> None:
    server.answer = lambda request: LOGIN_PAGE
    with pytest.raises(KitopsError, match="text/html"):
        repository.referrers(MODEL)
    server.answer = lambda request: index_of(NOTE)
    assert len(repository.referrers(MODEL)) == 1
    server.answer = lambda request: LOGIN_PAGE if "referrers" in request.path else Answer(404)
    with pytest.raises(RegistryUnavailable, match="no JSON object"):
        repository.referrers(MODEL)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"schemaVersion": 1}'])
def test_a_damaged_list_of_referrers_is_an_error_and_left_alone(
    server: FakeServer, repository: Repository, body: bytes
) -> None:
    server.answer = lambda request: (
        Answer(200, body, {"Content-Type": INDEX}) if "sha256-" in request.path else Answer(404)
    )
    with pytest.raises(VerificationFailed, match="damaged"):
        repository.referrers(MODEL)


def test_a_rate_limited_referrers_api_is_no_missing_one(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: Answer(429)
    with pytest.raises(RateLimited):
        repository.referrers(MODEL)
    assert not server.seen(path="sha256-")


def test_a_registry_that_answers_the_tag_with_the_subject_itself_has_no_referrers(
    server: FakeServer, repository: Repository
) -> None:
    server.answer = lambda request: manifest_answer(b"{}") if "manifests" in request.path else Answer(404)
    assert repository.referrers(MODEL) == []


def test_a_manifest_is_pushed_again_if_the_registry_misses_blobs_that_it_has(
    server: FakeServer, repository: Repository
) -> None:
    data = manifest_bytes(BLOB, [])
    missing = json.dumps({"errors": [{"code": "DIGEST_INVALID"}, {"code": "MANIFEST_BLOB_UNKNOWN"}]}).encode()
    present = True

    def answer(request: Request) -> Answer:
        if request.method == "HEAD":
            return Answer(200 if present else 404)
        return Answer(400, missing) if len(server.seen("PUT")) == 1 or not present else Answer(201)

    server.answer = answer
    assert repository.push(MANIFEST, data) == Descriptor.of(MANIFEST, data)
    present = False
    with pytest.raises(NotFound, match="before the manifest"):
        repository.push(MANIFEST, data)
    assert len(server.seen("PUT")) == 3


def test_a_registry_in_trouble_is_not_asked_more_often_than_agreed(server: FakeServer, repository: Repository) -> None:
    server.answer = lambda request: Answer(503)
    with pytest.raises(RegistryUnavailable):
        repository.push(MANIFEST, manifest_bytes(BLOB, []))
    assert len(server.requests) == 4


def test_tls_to_a_server_that_speaks_plain_http_names_flag_and_setting(server: FakeServer) -> None:
    with Store(StoreConfig(server.host)) as store, pytest.raises(KitopsError) as caught:
        store.target("demo/model").resolve("v1")
    assert "Could not look whether v1 exists in demo/model" in str(caught.value)
    assert "--plain-http" in str(caught.value)
    assert "plain_http" in str(caught.value)
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("status", "told"),
    [(404, "Could not find v1 in demo/model"), (403, "Could not look whether v1 exists in demo/model")],
)
def test_only_what_is_not_there_could_not_be_found(
    server: FakeServer, repository: Repository, status: int, told: str
) -> None:
    server.answer = lambda request: Answer(status)
    with pytest.raises(KitopsError, match=told):
        repository.resolve("v1")


def test_what_a_registry_wants_to_be_known_is_logged_once(
    server: FakeServer, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    warnings = '299 - "Your \\"plan\\" ends soon: open sesame", 199 other "not for us", 299 - "two\u0085lines"'
    server.answer = lambda request: Answer(200, b'{"tags": []}', {"Warning": warnings})
    repository.tags()
    repository.tags()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f'The registry {server.host} warns: Your "plan" ends soon: open sesame',
        f"The registry {server.host} warns: two lines",
    ]
