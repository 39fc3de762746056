import base64
import json
from dataclasses import replace

import pytest

from airflow_provider_kitops.evidence.envelope import Envelope, Signature
from airflow_provider_kitops.evidence.signing import load_signer, load_verifier
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed
from tests.unit.evidence.conftest import make_keys


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_signature_is_verified_by_the_public_half_of_its_key(tmp_path, kind):
    keys = make_keys(tmp_path, kind)
    signer = load_signer(keys.private)
    signed = Envelope.from_bytes(signer.sign(Envelope(b"{}")).to_bytes())
    assert load_verifier(keys.public).verify(signed) == signer.key_id


def test_what_is_signed_is_the_pre_authentication_encoding_of_dsse(keys):
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    signed = load_signer(keys.private).sign(Envelope(b"hello world"))
    encoded = b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
    load_pem_public_key(keys.public.read_bytes()).verify(signed.signatures[0].value, encoded)


def test_a_changed_payload_is_found(keys):
    signed = load_signer(keys.private).sign(Envelope(b'{"result":"FAILED"}'))
    with pytest.raises(VerificationFailed, match="trusted key"):
        load_verifier(keys.public).verify(replace(signed, payload=b'{"result":"PASSED"}'))


def test_a_changed_payload_type_is_found(keys):
    signed = load_signer(keys.private).sign(Envelope(b"{}"))
    with pytest.raises(VerificationFailed):
        load_verifier(keys.public).verify(replace(signed, payload_type="text/plain"))


def test_a_stranger_who_uses_the_trusted_key_s_identifier_is_not_believed(tmp_path, keys):
    stranger = load_signer(make_keys(tmp_path / "stranger", "ed25519").private).sign(Envelope(b"{}"))
    trusted = load_verifier(keys.public)
    forged = replace(stranger, signatures=(Signature(trusted.key_ids[0], stranger.signatures[0].value),))
    assert trusted.claims(forged)
    with pytest.raises(VerificationFailed):
        trusted.verify(forged)


def test_a_signature_without_key_identifier_is_tried_with_every_key(keys):
    signed = load_signer(keys.private).sign(Envelope(b"{}"))
    nameless = replace(signed, signatures=(Signature("", signed.signatures[0].value),))
    assert load_verifier(keys.public).verify(nameless)


def test_any_of_several_trusted_keys_will_do(tmp_path, keys):
    other = make_keys(tmp_path / "other", "ecdsa")
    both = tmp_path / "both.pub"
    both.write_bytes(other.public.read_bytes() + keys.public.read_bytes())
    assert load_verifier(both).verify(load_signer(keys.private).sign(Envelope(b"{}")))


def test_an_unsigned_envelope_does_not_verify(keys):
    with pytest.raises(VerificationFailed, match="not signed"):
        load_verifier(keys.public).verify(Envelope(b"{}"))


def test_an_encrypted_key_takes_its_password_from_the_environment(tmp_path, monkeypatch):
    keys = make_keys(tmp_path, "ed25519", password="open sesame")
    monkeypatch.setenv("MODELKIT_KEY_PASSWORD", "open sesame")
    assert load_signer(keys.private).key_id


@pytest.mark.parametrize("password", ["", "closed"])
def test_a_wrong_password_is_an_error_that_does_not_show_it(tmp_path, monkeypatch, password):
    keys = make_keys(tmp_path, "ed25519", password="open sesame")
    monkeypatch.setenv("MODELKIT_KEY_PASSWORD", password)
    with pytest.raises(InvalidInput, match="password is wrong") as caught:
        load_signer(keys.private)
    assert "closed" not in str(caught.value)


def test_a_private_key_in_the_place_of_the_public_one_is_an_error(keys):
    with pytest.raises(InvalidInput, match="no public key"):
        load_verifier(keys.private)


def test_a_public_key_in_the_place_of_the_private_one_is_an_error(keys):
    with pytest.raises(InvalidInput, match="no private key"):
        load_signer(keys.public)


def test_a_missing_key_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InvalidInput, match=r"nowhere\.pem"):
        load_signer(tmp_path / "nowhere.pem")
    with pytest.raises(InvalidInput, match=r"nowhere\.pub"):
        load_verifier(tmp_path / "nowhere.pub")


def test_an_envelope_of_another_tool_is_read():
    value = {
        "payload": base64.urlsafe_b64encode(b"\xfb\xff{}").decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": base64.b64encode(b"s").decode()}],
    }
    assert Envelope.from_bytes(json.dumps(value).encode()) == Envelope(b"\xfb\xff{}", signatures=(Signature("", b"s"),))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"payloadType":"text/plain","payload":"","signatures":[]}',
        b'{"payloadType":"application/vnd.in-toto+json","payload":"***","signatures":[]}',
        b'{"payloadType":"application/vnd.in-toto+json","payload":"","signatures":[{}]}',
        b'{"payloadType":"application/vnd.in-toto+json","payload":7,"signatures":[]}',
    ],
)
def test_what_is_no_envelope_is_refused(data):
    with pytest.raises(VerificationFailed):
        Envelope.from_bytes(data)
