"""Where the judge answers: any endpoint that speaks the OpenAI chat completions interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_kitops.oci.errors import InvalidInput


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint.

    :param base_url: up to and including ``/v1``.
    :param model: the name by which it knows the judge; empty takes the one of the judge's configuration.
    :param api_key: sent as bearer token; empty for endpoints that want none.
    :param model_digest: of the judge's weights, where they are known (a local file).
    :raises InvalidInput: no http(s) URL, or one that holds credentials.
    """

    base_url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    model_digest: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput("The judge's endpoint must be an http or https URL such as http://127.0.0.1:8080/v1.")
        if parts.username or parts.password:
            raise InvalidInput(
                f"The URL of the judge's endpoint at {parts.hostname} holds credentials.",
                hint="Give the key as api_key.",
            )

    @property
    def host(self) -> str:
        """Who answers, for reports: host and port, the port left out on loopback where it means nothing."""
        parts = urlsplit(self.base_url)
        host = parts.hostname or ""
        return host if self.is_loopback or not parts.port else f"{host}:{parts.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")
