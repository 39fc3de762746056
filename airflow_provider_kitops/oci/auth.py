"""Authentication to a registry: challenges (RFC 9110 §11), basic, and bearer tokens of a token service.

A request is first sent as it is. A 401 names the scheme; from then on the header is known and sent at once. Tokens
are kept per scope and fetched anew shortly before they end, so an upload may take longer than a token lives.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.oci._origin import Origin, check_realm
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.errors import Forbidden, RegistryUnavailable, Unauthorized

# A token whose life is not told lives a minute (distribution's token specification).
_DEFAULT_LIFE = 60.0
# Seconds before its end at which a token is no longer used: a request takes some time to arrive.
_MARGIN = 10.0
_CLIENT = "airflow-provider-kitops"

#: Sends one request to a token service: (method, url, parameters, headers) to (status, body).
Fetch = Callable[[str, str, Mapping[str, str], Mapping[str, str]], tuple[int, bytes]]


@dataclass(frozen=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header.

    :param scheme: in lower case.
    :param parameters: names in lower case.
    """

    scheme: str
    parameters: Mapping[str, str]


_CHALLENGE = re.compile(
    r"""\s*,?\s*(?:
        (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))
        | (?P<scheme>[!#$%&'*+.^_`|~0-9A-Za-z-]+)(?=\s|,|$)
    )""",
    re.VERBOSE,
)


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a ``WWW-Authenticate`` header; what cannot be read is left out."""
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(header) and (match := _CHALLENGE.match(header, at)):
        at = match.end()
        if match["scheme"]:
            found.append((match["scheme"].lower(), {}))
        elif found:
            quoted = match["quoted"]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match["plain"]
            found[-1][1][match["name"].lower()] = value
    return [Challenge(scheme, parameters) for scheme, parameters in found]


@dataclass(frozen=True)
class _Token:
    header: str
    until: float


class Authenticator:
    """The ``Authorization`` headers for one registry. May be used from several threads.

    :param registry: origin of the registry; the headers are for it alone.
    :param name: the registry as the user wrote it, for messages.
    :param credentials: called once, when they are first needed.
    :param fetch: sends a request to a token service, following no redirect.
    :param token_hosts: token services outside the registry's domain that may be told the credentials.
    """

    def __init__(
        self,
        registry: Origin,
        name: str,
        credentials: Callable[[], Credentials],
        fetch: Fetch,
        token_hosts: tuple[str, ...] = (),
    ) -> None:
        self._registry = registry
        self._name = name
        self._find = credentials
        self._fetch = fetch
        self._token_hosts = token_hosts
        self._lock = threading.RLock()
        self._found: Credentials | None = None
        self._basic = False
        self._challenges: dict[str, Challenge] = {}
        self._tokens: dict[str, _Token] = {}

    @property
    def credentials(self) -> Credentials:
        """The credentials in use; empty if there are none."""
        with self._lock:
            if self._found is None:
                self._found = self._find()
            return self._found

    def secrets(self) -> tuple[str, ...]:
        """All that no message may repeat: the password, the identity token, and the tokens that were fetched."""
        with self._lock:
            tokens = [token.header.partition(" ")[2] for token in self._tokens.values()]
            found = self._found or Credentials()
            basic = found.basic.partition(" ")[2] if found.password else ""
            return tuple(secret for secret in (found.password, found.identity_token, basic, *tokens) if secret)

    @property
    def used(self) -> str | None:
        """What the registry has taken, in words; None if it never asked."""
        with self._lock:
            if not self._basic and not self._challenges:
                return None
            credentials = self.credentials
            if credentials.identity_token:
                return "the identity token"
            return f"the user {credentials.username}" if credentials else "an anonymous token"

    def header(self, scope: str) -> str | None:
        """The header for a request with this scope, if the registry has asked for one before.

        :param scope: what the request needs, as ``repository:name:pull,push``; several with spaces between.
        """
        with self._lock:
            if self._basic:
                return self.credentials.basic
            token = self._tokens.get(scope)
            if token is not None and token.until > time.monotonic():
                return token.header
            challenge = self._challenges.get(scope)
            return self._token(challenge, scope) if challenge is not None else None

    def answer(self, www_authenticate: str, scope: str, sent: str | None) -> str | None:
        """The header that answers a 401, or None if what was sent is all there is.

        :param www_authenticate: the header of the answer.
        :param sent: the ``Authorization`` that the registry refused.
        :raises Unauthorized: no credentials, or refused by the token service.
        :raises VerificationFailed: the token service may not be told the credentials.
        """
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(www_authenticate))}
        with self._lock:
            if "bearer" in challenges:
                token = self._tokens.get(scope)
                if token is not None and token.header != sent and token.until > time.monotonic():
                    return token.header  # another thread has fetched it meanwhile
                header = self._token(challenges["bearer"], scope)
                self._challenges[scope] = challenges["bearer"]
                return header
            if "basic" in challenges:
                credentials = self.credentials
                if credentials.identity_token and not credentials.password:
                    raise Unauthorized(
                        f"The registry {self._name} takes a user and a password, and there is only an identity token."
                    )
                if not credentials or sent == credentials.basic:
                    return None
                self._basic = True
                return credentials.basic
        return None

    def _token(self, challenge: Challenge, scope: str) -> str:
        realm = challenge.parameters.get("realm", "")
        service = check_realm(self._registry, realm, self._token_hosts)
        wanted = dict.fromkeys([*scope.split(), *challenge.parameters.get("scope", "").split()])
        values = {"service": challenge.parameters.get("service", ""), "scope": " ".join(wanted)}
        credentials = self.credentials
        if credentials.identity_token:
            values |= {"grant_type": "refresh_token", "refresh_token": credentials.identity_token, "client_id": _CLIENT}
            status, body = self._fetch("POST", realm, values, {})
        else:
            headers = {"Authorization": credentials.basic} if credentials else {}
            status, body = self._fetch("GET", realm, {k: v for k, v in values.items() if v}, headers)
        self._check(status, service)
        header, life = self._read(body, service)
        self._tokens[scope] = _Token(header, time.monotonic() + max(life - _MARGIN, life / 2))
        return header

    def _check(self, status: int, service: Origin) -> None:
        what = f"The token service {service} of {self._name}"
        if status in (400, 401):
            given = "refuses the credentials" if self.credentials else "wants credentials"
            raise Unauthorized(f"{what} {given} (HTTP {status}).", hint=login_hint(self._name, self.credentials))
        if status == 403:
            raise Forbidden(f"{what} does not allow this (HTTP 403).", hint="Ask for access to the repository.")
        if status != 200:
            raise RegistryUnavailable(f"{what} gives no token (HTTP {status}).", hint="Try again later.")

    def _read(self, body: bytes, service: Origin) -> tuple[str, float]:
        try:
            answer: Any = json.loads(body)
            token = answer.get("token") or answer["access_token"]
            life = float(answer.get("expires_in") or _DEFAULT_LIFE)
        except (ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
            token, life = None, 0.0
        # A line break in it would let the service write headers of its own.
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token) or not math.isfinite(life):
            raise RegistryUnavailable(f"The token service {service} of {self._name} gives no usable token.")
        return f"Bearer {token}", life


def login_hint(registry: str, credentials: Credentials) -> str:
    """What to do about a 401."""
    if credentials:
        return "Check user and password, and that a token has not run out."
    return (
        f"Give credentials: in the Airflow connection, by `modelkit login {registry}`, or by `docker login {registry}`."
    )
