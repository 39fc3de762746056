"""Why a connection could not be made or broke, in words that say what to do."""

from __future__ import annotations

import ssl
from typing import Any

import requests
import urllib3

from airflow_provider_kitops.oci._status import as_setting, asked
from airflow_provider_kitops.oci.errors import KitopsError, RegistryUnavailable


def connection_error(error: BaseException, doing: str, plain_http: bool) -> KitopsError:
    """The error for a connection that could not be made or broke."""
    chain = _chain(error)
    reason = _reason(chain)
    permanent, hint = False, "See whether the registry runs and can be reached from here."
    if any(isinstance(link, requests.exceptions.ProxyError | urllib3.exceptions.ProxyError) for link in chain):
        hint = "The proxy is in the way: check its address and whether it allows this."
    elif any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        permanent, hint = (
            True,
            "Its certificate is not trusted: give the CA that signed it as --ca-bundle, or ca_bundle.",
        )
    elif any(isinstance(link, ssl.SSLError) and _broke_off(link) for link in chain):
        pass
    elif any(isinstance(link, ssl.SSLError | requests.exceptions.SSLError) for link in chain):
        permanent, hint = True, "TLS failed. If the registry speaks plain HTTP, give --plain-http, or set plain_http."
        if any("CERTIFICATE" in str(getattr(link, "reason", "")) for link in chain):
            hint = "The registry wants another certificate from us: see --client-cert, client_cert and client_key."
    elif any(isinstance(link, ConnectionRefusedError) for link in chain):
        hint = "Nothing listens there: check host and port, and whether the registry runs."
    elif any(isinstance(link, urllib3.exceptions.NameResolutionError) for link in chain):
        hint = "The name of the host is not known here: check its spelling."
    elif plain_http and "BadStatusLine" in reason:
        permanent, hint = True, "The registry may speak HTTPS: leave out --plain-http, or do not set plain_http."
    elif isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidProxyURL):
        permanent = True
    elif type(error) in (OSError, FileNotFoundError, PermissionError):
        # requests finds a file of certificates missing or unusable only when it connects.
        permanent, hint = True, "Check the files for TLS that the settings name."
    found = RegistryUnavailable(f"Could not {asked(doing)}: {reason}.", hint=hint)
    return as_setting(found) if permanent else found


def _broke_off(error: ssl.SSLError) -> bool:
    """Whether a line broke, or garbled what it carried, and not that both sides cannot agree."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError) or error.reason in (
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "UNEXPECTED_EOF_WHILE_READING",
    )


def _chain(error: BaseException) -> list[BaseException]:
    """An error and all that it was made from: libraries keep the cause in several places."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and all(link is not other for other in found):
            found.append(link)
            waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return found


def _reason(chain: list[BaseException]) -> str:
    """The innermost error in words. Those of requests are left out: they show whole addresses."""
    for link in reversed(chain):
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"certificate verification failed ({link.verify_message})"
        if isinstance(link, OSError) and link.strerror and not isinstance(link, requests.RequestException):
            if isinstance(link, ssl.SSLError):
                return f"TLS: {link.reason or 'the connection broke'}"
            return link.strerror.lower()
    if any(isinstance(link, TimeoutError | requests.exceptions.Timeout) for link in chain):
        return "no answer in time"
    return f"the connection broke ({type(chain[-1]).__name__})"
