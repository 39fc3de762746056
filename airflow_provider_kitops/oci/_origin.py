"""Where a request goes, and which other places a registry may point to.

An answer may name other addresses: a redirect, the location of an upload, a token service. Each is a way to carry
credentials off, so each is checked here.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from airflow_provider_kitops.oci.errors import VerificationFailed

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port (RFC 6454): where credentials may be sent without another thought."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute address.

        :raises VerificationFailed: it is not an http or https address, or carries a user.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise VerificationFailed("A registry named a malformed address.") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
            raise VerificationFailed("A registry named an address that is not plain http or https.")
        return cls(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def joined(request_url: str, location: str) -> str:
    """The absolute form of an address that an answer to ``request_url`` names.

    :raises VerificationFailed: it is malformed.
    """
    try:
        return urljoin(request_url, location)
    except ValueError:
        raise VerificationFailed("A registry named a malformed address.") from None


def upload_location(request_url: str, location: str) -> str:
    """The absolute address of an upload session, from the ``Location`` of an answer.

    It must be at the origin that was asked, as the body and the credentials go there. A registry behind a proxy
    that ends TLS may name its own plain address; that is taken back to https and never the other way.

    :raises VerificationFailed: it is elsewhere.
    """
    asked = Origin.of(request_url)
    url = joined(request_url, location)
    found = Origin.of(url)
    if found == asked:
        return url
    parts = urlsplit(url)
    unencrypted = asked.scheme == "https" and found.scheme == "http" and found.host == asked.host
    if unencrypted and found.port in (asked.port, 80):
        return parts._replace(scheme="https", netloc=urlsplit(request_url).netloc).geturl()
    raise VerificationFailed(
        f"The registry at {asked} wants the upload to go to {found}, which is another place.",
        hint="Nothing was sent there. If the registry stands behind a proxy, make it name its public address.",
    )


def redirect_target(request_url: str, location: str) -> str:
    """The absolute address of a redirect.

    :raises VerificationFailed: it would go from https to http.
    """
    url = joined(request_url, location)
    if Origin.of(request_url).scheme == "https" and Origin.of(url).scheme == "http":
        raise VerificationFailed(
            f"The registry at {Origin.of(request_url)} redirects to {Origin.of(url)}, which is not encrypted."
        )
    return url


def check_realm(registry: Origin, realm: str, trusted: tuple[str, ...]) -> Origin:
    """Whether a token service may be told the credentials of a registry.

    It may if it is on the registry's host, or on a host of the same domain, or named by the user; and encrypted,
    unless the registry itself is not and it is on the same host.

    :param trusted: hosts that the user named.
    :raises VerificationFailed: it may not.
    """
    found = Origin.of(realm)
    encrypted = found.scheme == "https" or (registry.scheme == "http" and found.host == registry.host)
    known = found.host == registry.host or found.host in trusted or _same_domain(found.host, registry.host)
    if known and encrypted:
        return found
    reason = "not encrypted" if known else "neither on its host nor in its domain"
    raise VerificationFailed(
        f"The registry at {registry} wants tokens to be fetched from {found}, which is {reason}.",
        hint="Nothing was sent there." + ("" if known else f" If it is right, add {found.host} to token_hosts."),
    )


def _same_domain(one: str, other: str) -> bool:
    first, second = _domain(one), _domain(other)
    return bool(first) and first == second


def _domain(host: str) -> str:
    """The part of a host name that somebody had to register; empty for addresses and bare names."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        # co.uk, com.au and their like are registries of names themselves.
        shared = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
        needed = 3 if shared else 2
        return ".".join(labels[-needed:]) if len(labels) >= needed else ""
    return ""
