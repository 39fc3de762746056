"""HTTP to one registry: one session, its TLS and proxy settings, authentication, redirects, and errors.

Everything that is sent to a registry passes ``RegistryClient.send``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests
import urllib3

from airflow_provider_kitops import __version__
from airflow_provider_kitops.oci._connection import connection_error
from airflow_provider_kitops.oci._origin import Origin, redirect_target
from airflow_provider_kitops.oci._retry import Retry, RetryPolicy
from airflow_provider_kitops.oci._status import error_of, one_line
from airflow_provider_kitops.oci._wire import Wire
from airflow_provider_kitops.oci.auth import Authenticator, login_hint
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.errors import (
    Interrupted,
    InvalidInput,
    KitopsError,
    LimitExceeded,
    RegistryUnavailable,
    VerificationFailed,
)

logger = logging.getLogger(__name__)

# Code and agent are what the specification wants; what else stands in the header is not for people.
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')
_MOST_WARNINGS = 100
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
#: Seconds without progress until a connection counts as broken: to connect, to read.
TIMEOUT = (20.0, 90.0)
#: Most bytes of an answer that is read into memory and is no manifest: lists of tags, tokens.
MAX_ANSWER_SIZE = 16 * 1024 * 1024


@dataclass(frozen=True)
class HttpSettings:
    """How to reach a registry.

    :param plain_http: http instead of https.
    :param ca_bundle: certificates that are trusted instead of the usual ones.
    :param client_cert: certificate that we show, with its key if that is not in ``client_key``.
    :param client_key: key of the certificate.
    :param proxy: address of a proxy; by default what the environment says.
    :param connections: kept open for the next request.
    :param token_hosts: token services outside the registry's domain that may be told the credentials.
    :param retry: how often and how soon what failed is tried again.
    """

    plain_http: bool = False
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    # A proxy is often named with its password.
    proxy: str = field(default="", repr=False)
    connections: int = 10
    token_hosts: tuple[str, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class RegistryClient:
    """Sends requests to one registry. May be used from several threads.

    :param registry: ``host[:port]``.
    :param settings: how to reach it.
    :param credentials: called once, when the registry first asks who we are.
    :raises InvalidInput: a file of the settings does not exist.
    """

    def __init__(
        self,
        registry: str,
        settings: HttpSettings | None = None,
        credentials: Callable[[], Credentials] = Credentials,
    ) -> None:
        self.registry = registry
        self.settings = settings or HttpSettings()
        #: The most bytes of a blob that go up in one request; 0 = all of them, until that is refused.
        self.upload_chunk = 0
        self._wire = Wire()
        self.retry = Retry(self.settings.retry, self._wire.is_cut)
        scheme = "http" if self.settings.plain_http else "https"
        # The hub's name is not the name of its server.
        self.base = f"{scheme}://{'registry-1.docker.io' if registry == 'docker.io' else registry}"
        self.origin = Origin.of(self.base)
        self._warnings: set[str] = set()
        self._session = self._make_session(self._wire)
        # What tidies up after an interrupt goes its own way, which nobody cuts.
        self._tidying = self._make_session(Wire())
        self.auth = Authenticator(self.origin, registry, credentials, self._fetch_token, self.settings.token_hosts)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()
        self._tidying.close()

    def interrupt(self) -> None:
        """End everything under way in other threads, at once; ``Interrupted`` is raised there, until ``resume``."""
        self._wire.cut()

    def resume(self) -> None:
        """Be of use again."""
        self._wire.mend()

    def check(self) -> None:
        """Raise ``Interrupted`` if the client has been interrupted."""
        if self._wire.is_cut.is_set():
            raise Interrupted(f"The work at {self.registry} was interrupted.")

    def broken(self, error: BaseException, doing: str) -> KitopsError:
        """The error for a connection that could not be made, or broke."""
        if self._wire.is_cut.is_set():
            return Interrupted(f"Could not {doing}: it was interrupted.")
        return connection_error(error, doing, self.settings.plain_http)

    def send(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        scope: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        accept: tuple[int, ...] = (200,),
        timeout: tuple[float, float] = TIMEOUT,
        after_interrupt: bool = False,
    ) -> requests.Response:
        """Send one request, authenticated, and return the answer with its body unread. Tries once.

        :param path: below the registry, or an absolute address at its origin.
        :param doing: what is being done and to what, for messages: "Could not ...".
        :param scope: what the request needs, as a token's scope.
        :param body: a stream is sent once: when it was refused for lack of credentials, the caller has to begin anew.
        :param accept: statuses that the caller wants to see; a redirect is followed unless it is one of them.
        :param after_interrupt: also when the client has been interrupted: for tidying up.
        :raises KitopsError: of the kind that the status or the failed connection calls for.
        """
        session = self._tidying if after_interrupt else self._session
        if not after_interrupt:
            self.check()
        url = path if "://" in path else self.base + path
        known = self.auth.header(scope)
        response = self._once(session, method, url, headers, params, body, known, accept, timeout, doing)
        if response.status_code == 401:
            try:
                answer = self.auth.answer(response.headers.get("WWW-Authenticate", ""), scope, known)
            except KitopsError:
                response.close()
                raise
            if answer is not None and answer != known:
                if body is not None and not isinstance(body, bytes):
                    response.close()
                    raise _begin_anew(doing)
                response.close()
                response = self._once(session, method, url, headers, params, body, answer, accept, timeout, doing)
        self._pass_on_warnings(response)
        if response.status_code in accept:
            return response
        error = error_of(response, f"{doing} at {self.registry}", self.auth.secrets())
        if response.status_code == 401:
            error.hint = login_hint(self.registry, self.auth.credentials)
        raise error

    def _pass_on_warnings(self, response: requests.Response) -> None:
        """Log what the registry wants to be known (distribution specification 1.1, "Warnings"), each text once."""
        for text in _WARNING.findall(response.headers.get("Warning", "")[:4096]):
            said = one_line(text.replace('\\"', '"'), self.auth.secrets())
            if said not in self._warnings and len(self._warnings) < _MOST_WARNINGS:
                self._warnings.add(said)
                logger.warning("The registry %s warns: %s", self.registry, said)

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """As ``send``, tried again after transient failures. For requests that may be repeated."""
        return self.retry.call(lambda: self.send(method, path, **more))

    def read(
        self, method: str, path: str, *, limit: int = MAX_ANSWER_SIZE, **more: Any
    ) -> tuple[requests.Response, bytes]:
        """As ``request``, with the whole body: (answer, bytes).

        :param limit: the most bytes that are read.
        :raises LimitExceeded: the body is longer.
        """
        return self.retry.call(lambda: self.read_once(method, path, limit=limit, **more))

    def read_once(
        self, method: str, path: str, *, limit: int = MAX_ANSWER_SIZE, **more: Any
    ) -> tuple[requests.Response, bytes]:
        """As ``read``, tried once."""
        with self.send(method, path, **more) as response:
            return response, self._body(response, limit, str(more["doing"]))

    def _once(
        self,
        session: requests.Session,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        params: Mapping[str, str] | None,
        body: bytes | Iterable[bytes] | None,
        authorization: str | None,
        accept: tuple[int, ...],
        timeout: tuple[float, float],
        doing: str,
    ) -> requests.Response:
        for _ in range(_MOST_REDIRECTS + 1):
            at_home = Origin.of(url) == self.origin
            sent = dict(headers or {})
            # Elsewhere nobody gets to see who we are.
            if authorization and at_home:
                sent["Authorization"] = authorization
            response = self._exchange(session, method, url, sent, params, body, at_home, timeout, doing)
            if (
                response.status_code not in _REDIRECTS
                or response.status_code in accept
                or method not in ("GET", "HEAD")
                or "Location" not in response.headers
            ):
                return response
            response.close()
            url, params = redirect_target(response.url or url, response.headers["Location"]), None
        raise KitopsError(f"Could not {doing} at {self.registry}: it redirects in circles.")

    def _exchange(
        self,
        session: requests.Session,
        method: str,
        url: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        body: bytes | Iterable[bytes] | None,
        at_home: bool,
        timeout: tuple[float, float],
        doing: str,
    ) -> requests.Response:
        settings = self.settings
        try:
            return session.request(
                method,
                url,
                headers=headers,
                params=params,
                data=body,
                stream=True,
                allow_redirects=False,
                timeout=timeout,
                # Given with every request: the environment would win over the session's own.
                verify=str(settings.ca_bundle) if settings.ca_bundle else True,
                cert=self._certificate() if at_home else None,
                proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else None,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self.broken(error, f"{doing} at {self.registry}") from None
        except ValueError as error:
            # Some addresses that no parser of ours refuses, the HTTP library cannot send to.
            raise VerificationFailed(f"Could not {doing}: {self.registry} names a malformed address.") from error

    def _certificate(self) -> str | tuple[str, str] | None:
        settings = self.settings
        if settings.client_cert is None:
            return None
        if settings.client_key is None:
            return str(settings.client_cert)
        return str(settings.client_cert), str(settings.client_key)

    def _fetch_token(
        self, method: str, url: str, values: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        doing = "fetch a token"

        def work() -> tuple[int, bytes]:
            in_url, in_body = (values, None) if method == "GET" else (None, _form(values))
            sent = dict(headers)
            if in_body is not None:
                sent["Content-Type"] = "application/x-www-form-urlencoded"
            at_home = Origin.of(url) == self.origin
            with self._exchange(self._session, method, url, sent, in_url, in_body, at_home, TIMEOUT, doing) as response:
                if response.status_code == 429 or response.status_code >= 500:
                    raise error_of(response, f"{doing} for {self.registry}", self.auth.secrets())
                return response.status_code, self._body(response, MAX_ANSWER_SIZE, doing)

        return self.retry.call(work)

    def _body(self, response: requests.Response, limit: int, doing: str) -> bytes:
        """The body of an answer.

        :raises LimitExceeded: it is longer than ``limit`` bytes.
        :raises RegistryUnavailable: the connection broke.
        """
        too_long = LimitExceeded(f"Could not {doing}: the answer is longer than {limit} bytes.")
        announced = announced_length(response)
        if announced is not None and announced > limit:
            raise too_long
        data = bytearray()
        try:
            while chunk := response.raw.read(min(limit + 1 - len(data), 1 << 20), decode_content=True):
                data += chunk
                if len(data) > limit:
                    raise too_long
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self.broken(error, doing) from None
        return bytes(data)

    def _make_session(self, wire: Wire) -> requests.Session:
        settings = self.settings
        for path in (settings.ca_bundle, settings.client_cert, settings.client_key):
            if path is not None and not path.exists():
                raise InvalidInput(f"There is no file {path}, which is to be used for TLS with {self.registry}.")
        if settings.client_key is not None and settings.client_cert is None:
            raise InvalidInput(f"A client key without a client certificate was given for {self.registry}.")
        session = requests.Session()
        session.headers["User-Agent"] = f"airflow-provider-kitops/{__version__}"
        # A proxy that compresses would change lengths and ranges; everything here is compressed already or small.
        session.headers["Accept-Encoding"] = "identity"
        # Without it requests would take credentials from ~/.netrc.
        session.auth = _no_auth
        # Redirects are followed here; requests would still read where each leads, and stumble over malformed addresses.
        session.get_redirect_target = _no_redirect  # type: ignore[method-assign, assignment]
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            session.mount(scheme, wire.adapter(max(settings.connections, 4)))
        return session


def announced_length(response: requests.Response) -> int | None:
    """The ``Content-Length`` of an answer; None if it has none, or one that is no sensible number."""
    value = response.headers.get("Content-Length", "")
    return int(value) if re.fullmatch("[0-9]{1,18}", value) else None


def _begin_anew(doing: str) -> RegistryUnavailable:
    return RegistryUnavailable(f"Could not {doing}: the credentials ran out on the way.", hint="Try again.")


def _form(values: Mapping[str, str]) -> bytes:
    return urlencode({name: value for name, value in values.items() if value}).encode()


def _no_redirect(response: requests.Response) -> None:
    return None


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
