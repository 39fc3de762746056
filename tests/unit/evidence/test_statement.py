import json

import pytest

from airflow_provider_kitops.evidence.envelope import Envelope
from airflow_provider_kitops.evidence.statement import ResourceDescriptor, Statement, Subject
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed

DIGEST = "sha256:" + "a" * 64
OTHER = "sha512:" + "b" * 128


def test_a_statement_is_written_as_the_specification_says():
    statement = Statement([Subject("demo/model", DIGEST)], "https://example.com/p", {"b": 1, "a": "ü"})
    assert json.loads(statement.to_bytes()) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "demo/model", "digest": {"sha256": "a" * 64}}],
        "predicateType": "https://example.com/p",
        "predicate": {"a": "ü", "b": 1},
    }


def test_what_was_written_is_read_back():
    statement = Statement([Subject("x", DIGEST), Subject("", OTHER)], "t", {"n": [1, None]})
    assert Statement.from_bytes(statement.to_bytes()) == statement
    assert statement.names(OTHER)
    assert not statement.names("sha256:" + "c" * 64)


def test_the_order_of_the_predicate_does_not_change_the_bytes():
    one = Statement([Subject("x", DIGEST)], "t", {"a": 1, "b": 2})
    two = Statement([Subject("x", DIGEST)], "t", {"b": 2, "a": 1})
    assert one.to_bytes() == two.to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"_type": None},
        {"subject": []},
        {"subject": [{"name": "x"}]},
        {"subject": [{"name": "x", "digest": {"md5": "0" * 32}}]},
        {"subject": [{"name": "x", "digest": {"sha256": "zz"}}]},
        {"subject": "x"},
        {"predicateType": ""},
        {"predicateType": 3},
        {"predicate": [1]},
    ],
)
def test_what_is_no_statement_is_refused(change):
    value = json.loads(Statement([Subject("x", DIGEST)], "t", {}).to_bytes()) | change
    with pytest.raises(VerificationFailed):
        Statement.from_bytes(json.dumps(value).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b'"x"'])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(VerificationFailed):
        Statement.from_bytes(data)


@pytest.mark.parametrize("read", [Statement.from_bytes, Envelope.from_bytes])
def test_json_nested_too_deeply_is_refused(read):
    with pytest.raises(VerificationFailed, match="not JSON"):
        read(b"[" * 100_000)


def test_a_predicate_that_has_no_utf8_cannot_be_said():
    with pytest.raises(InvalidInput, match="not JSON"):
        Statement([Subject("model", "sha256:" + "a" * 64)], "t", {"text": "\ud800"}).to_bytes()


def test_a_statement_about_nothing_cannot_be_made():
    with pytest.raises(InvalidInput, match="at least one subject"):
        Statement([], "t", {})


def test_a_predicate_that_json_cannot_say_is_refused():
    with pytest.raises(InvalidInput, match="not JSON"):
        Statement([Subject("x", DIGEST)], "t", {"n": float("nan")}).to_bytes()


def test_a_resource_is_written_without_its_empty_fields():
    assert ResourceDescriptor(name="data", digest=DIGEST).to_json() == {"name": "data", "digest": {"sha256": "a" * 64}}


def test_a_resource_that_nothing_identifies_is_refused():
    with pytest.raises(InvalidInput, match="neither a uri nor a digest"):
        ResourceDescriptor(name="data")
