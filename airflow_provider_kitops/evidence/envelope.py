"""DSSE envelope (secure-systems-lab/dsse, envelope.md): a payload, its type, and the signatures over both."""

from __future__ import annotations

import base64
import json
import reprlib
from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.evidence._json import read_json
from airflow_provider_kitops.oci.descriptor import is_text
from airflow_provider_kitops.oci.errors import VerificationFailed

ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Signature:
    """One signature of an envelope.

    :param key_id: hint which key made it; not authenticated, may be empty.
    :param value: the raw signature.
    """

    key_id: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload with the signatures over it; none for an unsigned statement.

    :param payload: serialised statement.
    :param payload_type: media type of the payload, which the signatures cover too.
    :param signatures: in the order in which they were made.
    """

    payload: bytes
    payload_type: str = PAYLOAD_TYPE
    signatures: tuple[Signature, ...] = ()

    def to_bytes(self) -> bytes:
        """The envelope as JSON; equal envelopes give equal bytes."""
        value = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": one.key_id, "sig": base64.b64encode(one.value).decode()} for one in self.signatures
            ],
        }
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Read an envelope, signed or not, with standard or URL-safe base64 as the specification allows.

        :raises VerificationFailed: ``data`` is not an envelope of an in-toto statement.
        """
        value = read_json(data, "A DSSE envelope", VerificationFailed)
        try:
            payload_type = value["payloadType"]
            payload = _decode(value["payload"])
            if not isinstance(value["signatures"], list):
                raise VerificationFailed("Malformed DSSE envelope: its signatures are no list.")
            signatures = tuple(Signature(_key_id(one.get("keyid")), _decode(one["sig"])) for one in value["signatures"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VerificationFailed(f"Malformed DSSE envelope: {type(error).__name__}: {error}.") from error
        if payload_type != PAYLOAD_TYPE:
            raise VerificationFailed(f"A DSSE envelope holds {reprlib.repr(payload_type)}, not {PAYLOAD_TYPE}.")
        return cls(payload, payload_type, signatures)


def _key_id(value: Any) -> str:
    if value is None:
        return ""
    if not is_text(value):
        raise VerificationFailed("Malformed DSSE envelope: a keyid is no text.")
    return str(value)


def _decode(text: str) -> bytes:
    return base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"}), validate=True)
