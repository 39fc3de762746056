"""in-toto Statement v1 (in-toto/attestation, spec/v1/statement.md and resource_descriptor.md)."""

from __future__ import annotations

import base64
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kitops.evidence._json import read_json
from airflow_provider_kitops.oci.canonical import canonical
from airflow_provider_kitops.oci.descriptor import is_digest, is_text
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"

#: How something was made: ``evidence.provenance``.
SLSA_PROVENANCE = "https://slsa.dev/provenance/v1"
#: What a test, here a judge with its gate, found: ``evidence.result``.
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
#: That a tag was moved, from what to what, and by which decision: ``promotion.attest``. A name, not an address.
PROMOTION = "airflow-provider-kitops:promotion/v1"


@dataclass(frozen=True)
class Subject:
    """What a statement is about.

    :param name: for people: usually ``registry/repository``.
    :param digest: ``algorithm:hex``; this alone identifies the subject.
    :raises InvalidInput: malformed digest.
    """

    name: str
    digest: str

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise InvalidInput(f"Malformed digest {self.digest[:100]!r} of the subject {self.name!r} of a statement.")


@dataclass(frozen=True)
class ResourceDescriptor:
    """Something that a predicate refers to (resource_descriptor.md); at least a uri, a digest or its content.

    :param name: what it is called where it was used.
    :param uri: where it is, for example ``oci://host/repository``.
    :param digest: ``algorithm:hex``, or empty.
    :param media_type: type of its content, or empty.
    :param content: its bytes, where they are few; None = they are elsewhere.
    :param annotations: anything else worth telling.
    :raises InvalidInput: malformed digest, or neither uri nor digest nor content.
    """

    name: str = ""
    uri: str = ""
    digest: str = ""
    media_type: str = ""
    content: bytes | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.digest and not is_digest(self.digest):
            raise InvalidInput(f"Malformed digest {self.digest[:100]!r} of the resource {self.name or self.uri!r}.")
        if not self.uri and not self.digest and self.content is None:
            raise InvalidInput(f"The resource {self.name!r} of a statement has neither a uri nor a digest.")

    def to_json(self) -> dict[str, Any]:
        """The descriptor as the specification writes it, without the empty fields."""
        value: dict[str, Any] = {"name": self.name, "uri": self.uri, "mediaType": self.media_type}
        value = {key: text for key, text in value.items() if text}
        if self.digest:
            value["digest"] = digest_set(self.digest)
        if self.content is not None:
            value["content"] = base64.b64encode(self.content).decode("ascii")
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


@dataclass(frozen=True)
class Statement:
    """A predicate about one or more subjects.

    :param subjects: what it is about.
    :param predicate_type: URI that says how to read the predicate.
    :param predicate: JSON object.
    :raises InvalidInput: no subject, or no predicate type.
    """

    subjects: Sequence[Subject]
    predicate_type: str
    predicate: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(self.subjects))
        if not self.subjects:
            raise InvalidInput("A statement needs at least one subject.")
        if not self.predicate_type:
            raise InvalidInput("A statement needs a predicate type.")

    def names(self, digest: str) -> bool:
        """Whether ``digest`` is one of the subjects."""
        return any(subject.digest == digest for subject in self.subjects)

    def to_bytes(self) -> bytes:
        """The statement as JSON; equal statements give equal bytes.

        :raises InvalidInput: the predicate holds something that JSON cannot say.
        """
        value = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": one.name, "digest": digest_set(one.digest)} for one in self.subjects],
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        }
        try:
            return canonical(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"The predicate of type {self.predicate_type} is not JSON: {error}.") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        """Read a statement.

        :raises VerificationFailed: ``data`` is not an in-toto Statement v1.
        """
        value = read_json(data, "An in-toto statement", VerificationFailed)
        try:
            if value["_type"] != STATEMENT_TYPE:
                raise VerificationFailed(f"Not an in-toto Statement v1: its type is {reprlib.repr(value['_type'])}.")
            if not isinstance(value["subject"], list):
                raise VerificationFailed("Malformed in-toto statement: its subject is no list.")
            subjects = [Subject(_name(one.get("name")), _digest(one["digest"])) for one in value["subject"]]
            predicate_type, predicate = value["predicateType"], value.get("predicate")
            predicate = {} if predicate is None else predicate
            if not is_text(predicate_type) or not isinstance(predicate, dict):
                raise VerificationFailed("Malformed in-toto statement: predicateType or predicate has a wrong type.")
            return cls(subjects, predicate_type, predicate)
        except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
            raise VerificationFailed(f"Malformed in-toto statement: {type(error).__name__}: {error}.") from error


def digest_set(digest: str) -> dict[str, str]:
    """``algorithm:hex`` as in-toto's DigestSet writes it."""
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def _name(value: Any) -> str:
    if value is None:
        return ""
    if not is_text(value):
        raise VerificationFailed("Malformed in-toto statement: the name of a subject is no text.")
    return str(value)


def _digest(value: Any) -> str:
    """The digest of a DigestSet by which OCI can name content."""
    if not isinstance(value, dict):
        raise VerificationFailed("Malformed in-toto statement: the digest of a subject is no object.")
    for algorithm in ("sha256", "sha512"):
        if isinstance(value.get(algorithm), str):
            return f"{algorithm}:{value[algorithm]}"
    raise VerificationFailed(f"A subject is named by none of sha256 and sha512, but by {reprlib.repr(sorted(value))}.")
