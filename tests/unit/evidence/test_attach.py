import json
from dataclasses import replace

import pytest

from airflow_provider_kitops.evidence.attach import ATTESTATION, attach, find, load, read_file, verify
from airflow_provider_kitops.evidence.envelope import ENVELOPE_TYPE, Envelope
from airflow_provider_kitops.evidence.signing import load_signer, load_verifier
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE, TEST_RESULT, Statement, Subject
from airflow_provider_kitops.oci.descriptor import EMPTY, MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, LimitExceeded, VerificationFailed
from tests.unit.evidence.conftest import make_keys, put_manifest


def about(subject: Descriptor, predicate_type: str = TEST_RESULT, **predicate) -> Statement:
    return Statement([Subject("demo/model", subject.digest)], predicate_type, predicate)


def put_referrer(
    target, subject: Descriptor, envelope: bytes, *, predicate_type: str = TEST_RESULT, layers: int = 1, more=()
):
    """An attestation made by hand, as somebody with other intentions would make it."""
    config = target.push(Descriptor.of(EMPTY, b"{}"), b"{}")
    layer = target.push(ENVELOPE_TYPE, envelope)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ATTESTATION,
        "config": config.to_json(),
        "layers": [layer.to_json()] * layers + list(more),
        "subject": subject.to_json(),
        "annotations": {"in-toto.io/predicate-type": predicate_type},
    }
    return target.push(MANIFEST, json.dumps(manifest).encode())


def test_what_was_attached_is_found(target, model):
    made = attach(target, model, about(model, result="PASSED"), files={"report.json": b'{"n":1}'})
    [found] = find(target, model)
    assert found.descriptor == made
    assert found.statement == about(model, result="PASSED")
    assert found.signatures == ()
    assert read_file(target, found.files["report.json"]) == b'{"n":1}'
    assert load(target, made).subject == model


def test_the_manifest_is_an_artifact_with_a_subject(target, model):
    made = attach(target, model, about(model), files={"report.json": b"{}", "verdicts.bin": b"1"})
    manifest = json.loads(read_file(target, made))
    assert manifest["artifactType"] == ATTESTATION
    assert manifest["config"]["mediaType"] == EMPTY
    assert manifest["subject"] == {"mediaType": MANIFEST, "digest": model.digest, "size": model.size}
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        ENVELOPE_TYPE,
        "application/json",
        "application/octet-stream",
    ]


def test_the_same_statement_attached_again_is_the_same_manifest(target, model):
    assert attach(target, model, about(model)) == attach(target, model, about(model))
    assert len(find(target, model)) == 1


def test_statements_are_told_apart_by_their_type(target, model):
    attach(target, model, about(model, TEST_RESULT))
    attach(target, model, about(model, SLSA_PROVENANCE))
    [found] = find(target, model, SLSA_PROVENANCE)
    assert found.statement.predicate_type == SLSA_PROVENANCE
    assert len(find(target, model)) == 2


def test_a_model_without_evidence_has_none(target, model):
    assert find(target, model) == []


def test_a_statement_about_another_model_cannot_be_attached(target, model):
    other = put_manifest(target, "another model")
    with pytest.raises(InvalidInput, match=other.digest):
        attach(target, model, about(other))


UNSAFE = ["../x.json", "/x", "a/b", "a\\b", "..", ""]


@pytest.mark.parametrize("name", [*UNSAFE, "\udcff"])
def test_a_file_name_that_is_a_path_is_refused(target, model, name):
    with pytest.raises(InvalidInput, match="plain file name"):
        attach(target, model, about(model), files={name: b""})


def test_a_good_statement_moved_to_another_model_is_found_out(target, model, keys):
    good = load_signer(keys.private).sign(Envelope(about(model, result="PASSED").to_bytes()))
    bad_model = put_manifest(target, "a bad model")
    put_referrer(target, bad_model, good.to_bytes())
    with pytest.raises(VerificationFailed, match="carries a statement about"):
        find(target, bad_model)
    with pytest.raises(VerificationFailed, match="carries a statement about"):
        verify(target, bad_model, load_verifier(keys.public))


def test_a_statement_altered_after_signing_is_found_out(target, model, keys):
    signed = load_signer(keys.private).sign(Envelope(about(model, result="FAILED").to_bytes()))
    put_referrer(target, model, replace(signed, payload=about(model, result="PASSED").to_bytes()).to_bytes())
    with pytest.raises(VerificationFailed, match="names a trusted key"):
        verify(target, model, load_verifier(keys.public))


@pytest.mark.parametrize("envelope", [b"", b"{}", b"not json", Envelope(b"not a statement").to_bytes()])
def test_a_malformed_envelope_is_found_out(target, model, envelope):
    put_referrer(target, model, envelope)
    with pytest.raises(VerificationFailed):
        find(target, model)


@pytest.mark.parametrize("name", UNSAFE)
def test_a_file_whose_name_leaves_its_directory_is_found_out(target, model, name):
    file = target.push("text/plain", b"x")
    title = {"annotations": {"org.opencontainers.image.title": name}}
    put_referrer(target, model, Envelope(about(model).to_bytes()).to_bytes(), more=[file.to_json() | title])
    with pytest.raises(VerificationFailed, match="not a plain file name"):
        find(target, model)


@pytest.mark.parametrize("layers", [0, 2])
def test_one_envelope_it_must_be(target, model, layers):
    put_referrer(target, model, Envelope(about(model).to_bytes()).to_bytes(), layers=layers)
    with pytest.raises(VerificationFailed, match="instead of one"):
        find(target, model)


def test_an_annotation_that_lies_about_the_type_hides_nothing_behind_a_good_type(target, model):
    envelope = Envelope(about(model, SLSA_PROVENANCE).to_bytes()).to_bytes()
    put_referrer(target, model, envelope, predicate_type=TEST_RESULT)
    assert find(target, model, TEST_RESULT) == []


def test_only_statements_signed_by_a_trusted_key_are_verified(tmp_path, target, model, keys):
    stranger = load_signer(make_keys(tmp_path / "stranger", "ecdsa").private)
    attach(target, model, about(model, by="stranger"), signer=stranger)
    attach(target, model, about(model, by="nobody"))
    signer = load_signer(keys.private)
    attach(target, model, about(model, by="us"), signer=signer)
    [verified] = verify(target, model, load_verifier(keys.public))
    assert verified.statement.predicate == {"by": "us"}
    assert verified.verified_by == signer.key_id


def test_without_a_statement_by_a_trusted_key_verification_fails(target, model, keys):
    attach(target, model, about(model))
    with pytest.raises(VerificationFailed, match="No statement of type"):
        verify(target, model, load_verifier(keys.public), TEST_RESULT)


def test_the_listing_of_referrers_is_only_a_hint(target, model):
    """A registry without the referrers API lists them in an index that anybody may write."""
    other = put_manifest(target, "another model")
    about_other = attach(target, other, about(other))

    class Lying:
        name = target.name
        fetch = staticmethod(target.fetch)

        def referrers(self, descriptor, artifact_type=None):
            return [about_other]

    with pytest.raises(VerificationFailed, match="is listed as a referrer"):
        find(Lying(), model)


def test_a_file_larger_than_the_limit_is_not_read(target, model):
    made = attach(target, model, about(model), files={"big.txt": b"x" * 1000})
    with pytest.raises(LimitExceeded, match="999"):
        read_file(target, load(target, made).files["big.txt"], limit=999)
