"""Which OpenAI-compatible endpoint an Airflow connection names."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_kitops.oci.errors import InvalidInput

if TYPE_CHECKING:
    from airflow.sdk import Connection

logger = logging.getLogger(__name__)

_OPENAI = "https://api.openai.com/v1"

# Prefixes of common-ai's model names whose endpoints speak OpenAI's protocol. A name may hold a colon of its own
# ("llama3:8b"), so only these are taken for a prefix.
_COMPATIBLE = {
    *("openai", "openai-chat", "openai-responses", "azure", "deepseek", "fireworks", "github", "groq", "litellm"),
    *("mistral", "moonshotai", "nebius", "ollama", "openrouter", "together", "vercel", "xai"),
}
_INCOMPATIBLE = {"anthropic", "bedrock", "cohere", "google", "google-gla", "google-vertex", "gateway", "huggingface"}


@dataclass(frozen=True)
class EndpointSettings:
    """Where an LLM is reached.

    :param base_url: up to and including the ``/v1`` that most servers have.
    :param api_key: empty where the server wants none.
    :param model: the model's name, or empty if the connection names none.
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    model: str = ""


def endpoint_settings(connection: Connection, model: str | None = None) -> EndpointSettings:
    """
    Read a connection of type ``pydanticai`` (common-ai), ``openai``, ``http`` or ``generic``.

    Host is the base URL and password the key. The model is ``model``, else ``model`` in extra.

    Where the host has no scheme, ``http`` or ``https`` as schema or as the connection's type says it; else a host on
    loopback is reached by http, and any other by https: a key must not cross a network unencrypted by oversight.

    :raises InvalidInput: the connection's type has no OpenAI-compatible endpoint, or it names none.
    """
    extra: dict[str, Any] = connection.extra_dejson
    kind = connection.conn_type or "generic"
    name = model or extra.get("model") or ""
    where = f"Connection {connection.conn_id!r}"
    if kind == "openai":
        client = extra.get("openai_client_kwargs") or {}
        key = connection.password or client.get("api_key", "")
        return EndpointSettings(_url(connection, client.get("base_url") or _OPENAI), key, name)
    if kind == "pydanticai":
        platform, colon, rest = name.partition(":")
        if colon and platform in _INCOMPATIBLE:
            raise InvalidInput(
                f"{where} names {platform}, which does not speak OpenAI's protocol.",
                hint="A judge needs an OpenAI-compatible endpoint; put a gateway such as LiteLLM in front of it.",
            )
        if colon and platform in _COMPATIBLE:
            name = rest
        default = _OPENAI if not colon or platform.startswith("openai") else ""
        return EndpointSettings(_url(connection, default), connection.password or "", name)
    if kind in ("http", "https", "generic"):
        return EndpointSettings(_url(connection, ""), connection.password or "", name)
    raise InvalidInput(
        f"{where} has type {kind!r}; a judge's endpoint is a connection of type pydanticai, openai, http or generic."
    )


def _url(connection: Connection, default: str) -> str:
    host = (connection.host or "").rstrip("/")
    if not host:
        if not default:
            raise InvalidInput(f"Connection {connection.conn_id!r} names no base URL.", hint="Put it into Host.")
        return default
    if "://" not in host:
        # Written as a URI, http://127.0.0.1:8000/v1 arrives in pieces: its path is called schema.
        schema = connection.schema or ""
        told = next((said for said in (schema, connection.conn_type) if said in ("http", "https")), None)
        scheme = told or ("http" if _is_loopback(host) else "https")
        path = "" if schema in ("", "http", "https") else f"/{schema}"
        host, slash, rest = host.partition("/")
        host = f"{scheme}://{host}" + (f":{connection.port}" if connection.port else "") + slash + rest + path
    parts = _split(host)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise InvalidInput(
            f"The host of connection {connection.conn_id!r} is no plain http(s) base URL.",
            hint="Write it like https://llm.example.com/v1, with the key as the password.",
        )
    if connection.password and parts.scheme == "http" and not _is_loopback(parts.netloc):
        logger.warning("Connection %r sends its key to %s unencrypted.", connection.conn_id, parts.hostname)
    return host


def _is_loopback(host: str) -> bool:
    parts = _split(f"//{host}")
    name = parts.hostname if parts else None
    if name is None or name == "localhost":
        return name is not None
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:  # half a bracket, for example
        return None
