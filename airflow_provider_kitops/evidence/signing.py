"""Signing and verifying DSSE envelopes with keys in PEM files, by securesystemslib.

Ed25519, ECDSA (P-256, P-384, P-521) and RSA keys. Nothing is asked of the network.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.evidence.envelope import Envelope, Signature
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

#: Where the password of an encrypted private key is read from.
PASSWORD_VARIABLE = "MODELKIT_KEY_PASSWORD"  # noqa: S105 - the name of a variable


class Signer:
    """Signs envelopes with one private key; ``load_signer`` makes it."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"Signer(key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """The key's identifier, which the signatures carry as a hint."""
        return str(self._key.public_key.keyid)

    @property
    def verifier(self) -> Verifier:
        """Checks what this signer has signed."""
        return Verifier([self._key.public_key])

    def sign(self, envelope: Envelope) -> Envelope:
        """The envelope with one signature more."""
        signature = self._key.sign(_pae(envelope))
        return replace(
            envelope,
            signatures=(*envelope.signatures, Signature(signature.keyid, bytes.fromhex(signature.signature))),
        )


class Verifier:
    """Checks envelopes against public keys that are trusted; ``load_verifier`` makes it.

    :param keys: public keys of securesystemslib; one good signature by any of them is enough.
    """

    def __init__(self, keys: Sequence[Any]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"Verifier(key_ids={self.key_ids!r})"

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Identifiers of the trusted keys."""
        return tuple(key.keyid for key in self._keys)

    def claims(self, envelope: Envelope) -> bool:
        """Whether a signature says that it was made by one of the trusted keys; says nothing about its truth."""
        return any(signature.key_id in self.key_ids for signature in envelope.signatures)

    def verify(self, envelope: Envelope) -> str:
        """Identifier of the trusted key that signed the envelope.

        Every signature is tried with every key: the key identifier is no part of what is signed, so it may neither
        admit nor exclude a key (DSSE protocol.md).

        :raises VerificationFailed: no signature, or none by a trusted key over exactly this payload.
        """
        from securesystemslib import exceptions
        from securesystemslib.signer import Signature as SignatureOf

        if not envelope.signatures:
            raise VerificationFailed("The statement is not signed.", hint="Sign it: modelkit attest --key.")
        signed = _pae(envelope)
        for signature in envelope.signatures:
            for key in self._keys:
                try:
                    key.verify_signature(SignatureOf(key.keyid, signature.value.hex()), signed)
                except exceptions.UnverifiedSignatureError:
                    continue
                return str(key.keyid)
        made_by = ", ".join(signature.key_id or "unnamed key" for signature in envelope.signatures)
        raise VerificationFailed(
            f"No signature of the statement ({made_by}) was made over these bytes by a trusted key "
            f"({', '.join(self.key_ids)}).",
            hint="Check that the public key belongs to whoever signed; if it does, the statement was altered.",
        )


def load_signer(path: str | Path, *, password: str | None = None) -> Signer:
    """Read a private key (PEM, PKCS #8).

    :param path: file of the key.
    :param password: of an encrypted key; default is the environment variable ``MODELKIT_KEY_PASSWORD``.
    :raises InvalidInput: the libraries for signing are missing, or the file is no usable private key.
    """
    secret = password if password is not None else os.environ.get(PASSWORD_VARIABLE)
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner
    except ImportError as error:
        raise _missing() from error
    data = _read(path)
    try:
        private: PrivateKeyTypes = load_pem_private_key(data, secret.encode() if secret else None)
        return Signer(CryptoSigner(private))
    except (ValueError, TypeError, _unsupported()) as error:
        # The library's own words are left out: they are about ASN.1, and might quote what was typed.
        raise InvalidInput(
            f"{path} holds no private key that can sign, or its password is wrong.",
            hint=f"Give a PEM (PKCS #8) key of type Ed25519, ECDSA or RSA; a password goes into ${PASSWORD_VARIABLE}.",
        ) from error


def load_verifier(path: str | Path) -> Verifier:
    """Read one or more public keys (PEM, SubjectPublicKeyInfo, one after the other).

    :param path: file of the keys.
    :raises InvalidInput: the libraries for signing are missing, or the file is no usable public key.
    """
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from securesystemslib.signer import SSlibKey
    except ImportError as error:
        raise _missing() from error
    end = b"-----END PUBLIC KEY-----"
    blocks = [block + end for block in _read(path).split(end)[:-1]]
    try:
        keys = [SSlibKey.from_crypto(load_pem_public_key(block)) for block in blocks]
    except (ValueError, TypeError, _unsupported()) as error:
        raise InvalidInput(f"{path} holds no usable public key.", hint="Give the public half in PEM.") from error
    if not keys:
        raise InvalidInput(f"{path} holds no public key.", hint="Give the public half in PEM (BEGIN PUBLIC KEY).")
    return Verifier(keys)


def _pae(envelope: Envelope) -> bytes:
    """What is signed: type and payload with their lengths (pre-authentication encoding, DSSE protocol.md)."""
    from securesystemslib.dsse import Envelope as SignedEnvelope

    encoded: bytes = SignedEnvelope(envelope.payload, envelope.payload_type, {}).pae()
    return encoded


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"Cannot read the key {path}: {error.strerror}.") from error


def _missing() -> InvalidInput:
    return InvalidInput(
        "Signing and verifying need securesystemslib and cryptography.",
        hint="Install airflow-provider-kitops[sign].",
    )
