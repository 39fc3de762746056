"""A registry behind TLS: its certificate, ours, and a proxy on the way."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.errors import RegistryUnavailable
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.artifacts import put_artifact
from tests.registry import free_port, run_registry


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in memory and in files."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_file: Path
    key_file: Path


def make_pair(directory: Path, name: str, issuer: Pair | None = None) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signer = issuer.key if issuer else key
    # From Python 3.13 on certificates must say these things as RFC 5280 wants them.
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=issuer is None,
        crl_sign=issuer is None,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(usage, critical=True)
        .sign(signer, hashes.SHA256())
    )
    pair = Pair(certificate, key, directory / f"{name}.pem", directory / f"{name}.key")
    pair.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


@pytest.fixture
def authority(tmp_path: Path) -> Pair:
    return make_pair(tmp_path, "authority")


@pytest.fixture
def secure(tmp_path: Path, authority: Pair):
    """A registry with a certificate of the authority's, which wants one of the client too."""
    own = make_pair(tmp_path, "registry", authority)
    settings = {
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(own.certificate_file),
        "REGISTRY_HTTP_TLS_KEY": str(own.key_file),
        "REGISTRY_HTTP_TLS_CLIENTCAS": f"[{authority.certificate_file}]",
    }
    with run_registry(tmp_path / "registry", settings=settings) as running:
        yield running


def test_both_sides_show_their_certificates(secure, authority: Pair, tmp_path: Path, monkeypatch) -> None:
    # What the environment trusts does not replace what the connection says.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    client = make_pair(tmp_path, "client", authority)
    config = StoreConfig(
        secure.host,
        ca_bundle=authority.certificate_file,
        client_cert=client.certificate_file,
        client_key=client.key_file,
    )
    with Store(config) as store:
        data = os.urandom(300_000)
        manifest = put_artifact(store.target("demo/model"), data, tag="v1")
        assert store.resolve("demo/model:v1")[1] == manifest
        assert read(store.target("demo/model"), manifest)


def test_a_certificate_that_nobody_trusts_is_refused_for_good(secure) -> None:
    with Store(StoreConfig(secure.host)) as store, pytest.raises(RegistryUnavailable, match="ca_bundle") as caught:
        store.check()
    assert not caught.value.transient


def test_a_missing_client_certificate_is_reported(secure, authority: Pair) -> None:
    with (
        Store(StoreConfig(secure.host, ca_bundle=authority.certificate_file)) as store,
        pytest.raises(RegistryUnavailable, match="client_cert"),
    ):
        store.check()


def test_plain_http_to_a_registry_with_tls_is_told(secure) -> None:
    with Store(StoreConfig(secure.host, plain_http=True)) as store, pytest.raises(Exception, match="plain_http"):
        store.check()


def test_a_proxy_that_is_not_there_is_named_as_the_trouble(secure) -> None:
    proxy = f"http://user:hidden@127.0.0.1:{free_port()}"
    with (
        Store(StoreConfig("registry.invalid", proxy=proxy)) as store,
        pytest.raises(RegistryUnavailable, match="proxy") as caught,
    ):
        store.check()
    assert "hidden" not in str(caught.value)
