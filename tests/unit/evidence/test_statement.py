import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_kitops.evidence.envelope import Envelope, Signature
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


def test_a_resource_may_carry_its_content():
    assert ResourceDescriptor(name="m", content=b"{}").to_json() == {"name": "m", "content": "e30="}


def test_a_resource_that_nothing_identifies_is_refused():
    with pytest.raises(InvalidInput, match="neither a uri nor a digest"):
        ResourceDescriptor(name="data")


HALF_A_PAIR = "\ud800"
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
STATEMENT = json.loads(Statement([Subject("x", DIGEST)], "t", {}).to_bytes())
ENVELOPE = json.loads(Envelope(b"{}", signatures=(Signature("k", b"s"),)).to_bytes())


def changed(good, **parts):
    """Any JSON, or a good document in which one field is any JSON, as is one field of a member of its lists."""
    fields = st.dictionaries(st.sampled_from([*good]), ANY, max_size=2).map(lambda new: {**good, **new})
    members = [
        st.dictionaries(st.sampled_from(names), ANY).map(lambda new, key=key: {**good, key: [{**good[key][0], **new}]})
        for key, names in parts.items()
    ]
    return st.one_of(ANY, fields, *members)


@given(changed(STATEMENT, subject=["name", "digest"]))
@example({**STATEMENT, "subject": [{"name": HALF_A_PAIR, "digest": {"sha256": "a" * 64}}]})
@example({**STATEMENT, "subject": [{"name": "x", "digest": "sha256"}]})
@example({**STATEMENT, "subject": [{"name": "x", "digest": {"sha256": {}}}]})
@example({**STATEMENT, "predicate": []})
def test_any_json_is_a_statement_or_refused(value):
    with contextlib.suppress(VerificationFailed):
        read = Statement.from_bytes(json.dumps(value).encode())
        assert [one.name.encode() for one in read.subjects]
        assert isinstance(read.predicate, dict)


@given(changed(ENVELOPE, signatures=["keyid", "sig"]))
@example({**ENVELOPE, "signatures": {}})
@example({**ENVELOPE, "signatures": ""})
@example({**ENVELOPE, "signatures": [{"keyid": HALF_A_PAIR, "sig": ""}]})
@example({**ENVELOPE, "signatures": [{"keyid": ["k"], "sig": ""}]})
def test_any_json_is_an_envelope_or_refused(value):
    with contextlib.suppress(VerificationFailed):
        read = Envelope.from_bytes(json.dumps(value).encode())
        assert Envelope.from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize("wrong", [{}, "", [{"keyid": HALF_A_PAIR, "sig": ""}], [{"keyid": ["k"], "sig": ""}], None])
def test_signatures_that_are_no_list_of_them_are_not_taken_for_none(wrong):
    with pytest.raises(VerificationFailed, match="Malformed DSSE envelope"):
        Envelope.from_bytes(json.dumps({**ENVELOPE, "signatures": wrong}).encode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": {}},
        {"subject": [{"name": ["x"], "digest": {"sha256": "a" * 64}}]},
        {"subject": [{"name": HALF_A_PAIR, "digest": {"sha256": "a" * 64}}]},
        {"predicateType": HALF_A_PAIR},
        {"predicate": []},
        {"predicate": ""},
    ],
)
def test_a_statement_with_a_field_of_another_type_is_refused(wrong):
    with pytest.raises(VerificationFailed, match="Malformed in-toto statement"):
        Statement.from_bytes(json.dumps({**STATEMENT, **wrong}).encode())
