"""What an answer that is not a success means (distribution specification 1.1, "Error Codes")."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlsplit

import requests

from airflow_provider_kitops.oci.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    InvalidInput,
    InvalidReference,
    KitopsError,
    LimitExceeded,
    NotFound,
    RateLimited,
    RegistryUnavailable,
    Unauthorized,
)

_LONGEST_BODY = 64 * 1024
# Parameters of the distribution specification, whose values are no secrets.
_OPEN = frozenset({"digest", "mount", "from", "n", "last", "artifactType", "service", "scope", "tag"})
_WANTS_TLS = "wants TLS"
_FIND = re.compile(r"^find (\S+)(?= in )")
_QUERY = re.compile(r"\?[^\s\"']+")
_AUTHORIZATION = re.compile(r"\b(Basic|Bearer)\s+[^\s\"',;]+", re.IGNORECASE)
# The first that an answer holds counts.
_BY_CODE: dict[str, tuple[type[KitopsError], str]] = {
    "MANIFEST_BLOB_UNKNOWN": (NotFound, "Push the blobs before the manifest."),
    "DIGEST_INVALID": (DigestMismatch, "The bytes changed on the way, or while they were read."),
    # It was restarted, or another of several answers, or it has swept up: another upload may come to its end.
    "BLOB_UPLOAD_UNKNOWN": (RegistryUnavailable, "The registry has lost the upload: try again."),
    "BLOB_UPLOAD_INVALID": (RegistryUnavailable, "The registry has lost the upload: try again."),
    "NAME_INVALID": (InvalidReference, "Choose a repository name that this registry allows."),
    "TAG_INVALID": (InvalidReference, "Choose a tag that this registry allows."),
}


def error_of(response: requests.Response, doing: str, secrets: Sequence[str] = ()) -> KitopsError:
    """The error for an answer; reads and closes it.

    :param doing: what was tried and on what, as in "Could not ...".
    :param secrets: what the answer may repeat, and the message may not.
    """
    codes, said = _read(response, secrets)
    if said == _WANTS_TLS:
        return as_setting(
            RegistryUnavailable(
                f"Could not {asked(doing)}: the registry speaks HTTPS.",
                hint="Leave out --plain-http, or do not set plain_http.",
            )
        )
    status = response.status_code
    tried = doing if status == 404 else asked(doing)
    message = f"Could not {tried}: the registry answered HTTP {status}{f' ({said})' if said else ''}."
    if status == 429 or "TOOMANYREQUESTS" in codes:
        wait = retry_after(response.headers.get("Retry-After"))
        hint = f"It asks to wait {wait:.0f} seconds." if wait else "It limits how often it may be asked: try later."
        return RateLimited(message, hint=hint, retry_after=wait)
    for code, (kind, hint) in _BY_CODE.items():
        if code in codes:
            return kind(message, hint=hint)
    found = _by_status(status, codes, message)
    if isinstance(found, RegistryUnavailable):
        found.retry_after = retry_after(response.headers.get("Retry-After"))
    return found


def as_setting(error: RegistryUnavailable) -> RegistryUnavailable:
    """The error as that of a setting, which no other try cures."""
    error.transient, error.exit_code = False, InvalidInput.exit_code
    return error


def asked(doing: str) -> str:
    """``doing`` where no answer came: nothing was looked for in vain, and in a push nobody asked to find anything."""
    return _FIND.sub(r"look whether \1 exists", doing)


def _by_status(status: int, codes: list[str], message: str) -> KitopsError:
    if status == 401:
        return Unauthorized(message, hint="Check the credentials, and that they cover this repository.")
    if status == 403:
        return Forbidden(message, hint="The credentials are known but do not allow this: ask for access.")
    if status == 404:
        return NotFound(message, hint="Check the name; a registry may also hide what the credentials do not cover.")
    if status == 405 or "UNSUPPORTED" in codes:
        return Forbidden(message, hint="The registry does not support this, or it is switched off in its settings.")
    if status == 407:
        return Unauthorized(message, hint="That was the proxy: check user and password in its address.")
    if status in (409, 412):
        return Conflict(message, hint="Somebody else changed it meanwhile, or the registry keeps it from changing.")
    if status == 413:
        return LimitExceeded(message, hint="The registry, or a proxy before it, limits the size of uploads.")
    if status in (408, 425) or status >= 500:
        return RegistryUnavailable(message, hint="The registry or a proxy before it is in trouble: try again later.")
    if 300 <= status < 400:
        return KitopsError(message, hint="The registry redirects what must not be redirected: check its address.")
    return KitopsError(message)


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110 §10.2.3): a number, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(int(value)))
    except OverflowError:
        return None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):  # the standard library's parser raises all of them
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, when.timestamp() - time.time())


def _read(response: requests.Response, secrets: Sequence[str]) -> tuple[list[str], str]:
    """The error codes in the body, and what it says in words."""
    try:
        body = response.raw.read(_LONGEST_BODY, decode_content=True) or b""
        # What Go's server, and nginx, answer to plain HTTP where they expect TLS.
        if b"HTTP request to an HTTPS server" in body or b"plain HTTP request was sent to HTTPS port" in body:
            return [], _WANTS_TLS
        errors = json.loads(body)["errors"]
        codes = [str(error.get("code", "")) for error in errors]
        said = "; ".join(f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors)
    except Exception:  # noqa: BLE001 - the status alone tells enough, whatever the body is
        return [], ""
    finally:
        response.close()
    sent = (response.request.headers.get("Authorization") or "").partition(" ")[2]
    # A redirect's address may be signed, and its server repeat that: as it was sent, or decoded.
    query = urlsplit(response.request.url or "").query
    pairs = [*parse_qsl(query), *(tuple(pair.partition("=")[::2]) for pair in query.split("&"))]
    signed = [value for name, value in pairs if name not in _OPEN and len(value) > 3]
    return codes, one_line(said, [sent, *secrets, *signed])


def without_queries(text: str) -> str:
    """``text`` with what stands behind the question marks of addresses left out: it may be a signature."""
    return _QUERY.sub("?…", text)


def one_line(said: str, secrets: Sequence[str]) -> str:
    """What a server says, as logs may show it: one line, not too long, without control characters and credentials.

    :param secrets: what it was sent: some repeat the whole request.
    """
    said = "".join(letter if letter.isprintable() else " " for letter in said)
    # The longest first: one may be a part of another.
    for secret in sorted({*secrets} - {""}, key=len, reverse=True):
        said = said.replace(secret, "…")
    return _AUTHORIZATION.sub(r"\1 …", without_queries(said))[:300]
