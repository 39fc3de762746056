"""Which endpoint a connection names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_kitops.hooks.llm import EndpointSettings, endpoint_settings
from airflow_provider_kitops.oci.errors import InvalidInput


def connection(conn_type: str, extra: Any = None, **fields: Any) -> Connection:
    return Connection(conn_id="llm", conn_type=conn_type, extra=json.dumps(extra) if extra else None, **fields)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            connection("pydanticai", {"model": "openai:gpt-5"}, password="k"),
            EndpointSettings("https://api.openai.com/v1", "k", "gpt-5"),
        ),
        (
            connection("pydanticai", {"model": "ollama:llama3:8b"}, host="http://ollama:11434/v1/"),
            EndpointSettings("http://ollama:11434/v1", "", "llama3:8b"),
        ),
        (
            connection("pydanticai", {"model": "llama3:8b"}, host="http://h/v1"),
            EndpointSettings("http://h/v1", "", "llama3:8b"),
        ),
        (connection("openai", password="k"), EndpointSettings("https://api.openai.com/v1", "k", "")),
        (
            connection("openai", {"openai_client_kwargs": {"base_url": "https://h/v1", "api_key": "k"}}),
            EndpointSettings("https://h/v1", "k", ""),
        ),
        (
            connection("http", {"model": "m"}, host="https://h:8443/v1", password="k"),
            EndpointSettings("https://h:8443/v1", "k", "m"),
        ),
        (connection("http", host="h", port=8000, schema="https"), EndpointSettings("https://h:8000")),
        # What is left of the URI http://:k@127.0.0.1:8000/v1.
        (
            connection("http", host="127.0.0.1", port=8000, schema="v1", password="k"),
            EndpointSettings("http://127.0.0.1:8000/v1", "k"),
        ),
        (connection("generic", host="http://h/v1"), EndpointSettings("http://h/v1")),
        # A key does not cross a network unencrypted because nobody wrote a scheme.
        (
            connection("openai", host="api.openai.com/v1", password="k"),
            EndpointSettings("https://api.openai.com/v1", "k"),
        ),
        (connection("pydanticai", host="llm.example.com", port=8443), EndpointSettings("https://llm.example.com:8443")),
        (connection("generic", host="10.0.0.7/v1", password="k"), EndpointSettings("https://10.0.0.7/v1", "k")),
        (connection("generic", host="localhost.example.com"), EndpointSettings("https://localhost.example.com")),
        (connection("pydanticai", host="127.0.0.1:11434/v1"), EndpointSettings("http://127.0.0.1:11434/v1")),
        (connection("openai", host="localhost:8000/v1"), EndpointSettings("http://localhost:8000/v1")),
        (connection("generic", host="[::1]:8000/v1"), EndpointSettings("http://[::1]:8000/v1")),
        (connection("generic", host="llm", schema="http", port=8000), EndpointSettings("http://llm:8000")),
        (connection("https", host="h/v1", password="k"), EndpointSettings("https://h/v1", "k")),
    ],
    ids=lambda value: value.base_url if isinstance(value, EndpointSettings) else value.conn_type,
)
def test_an_endpoint_is_read_from_each_type(given: Connection, expected: EndpointSettings) -> None:
    assert endpoint_settings(given) == expected


def test_the_argument_wins_over_the_connection() -> None:
    assert endpoint_settings(connection("openai", {"model": "a"}), "b").model == "b"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (connection("pydanticai", {"model": "anthropic:claude"}, host="https://h"), "does not speak OpenAI's protocol"),
        (connection("pydanticai", {"model": "ollama:m"}), "names no base URL"),
        (connection("http"), "names no base URL"),
        (connection("postgres", host="h"), "has type 'postgres'"),
        (connection("http", host="ftp://h"), "no plain http"),
        (connection("generic", host="[::1"), "no plain http"),
        (connection("http", host="https://[::1"), "no plain http"),
        (connection("http", host="https://u:hunter2@h/v1"), "no plain http"),
    ],
)
def test_what_is_no_endpoint_is_told(given: Connection, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        endpoint_settings(given)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        (connection("http", host="llm.internal", schema="v1", password="hunter2"), True),
        (connection("generic", host="http://llm.internal/v1", password="hunter2"), True),
        (connection("generic", host="http://llm.internal/v1"), False),
        (connection("generic", host="http://127.0.0.1:8000/v1", password="hunter2"), False),
        (connection("openai", host="llm.internal", password="hunter2"), False),
    ],
)
def test_a_key_that_is_sent_unencrypted_on_purpose_is_told(
    given: Connection, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint_settings(given)
    assert ("unencrypted" in caplog.text) == warned
    assert "hunter2" not in caplog.text


def test_the_key_is_not_shown() -> None:
    assert "hunter2" not in repr(EndpointSettings("https://h", "hunter2"))
