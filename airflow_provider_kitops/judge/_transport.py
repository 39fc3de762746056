"""The HTTP client below the judge's: answers of a bounded size and time, no redirects, and a way to stop at once."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import openai

#: Most bytes of one answer: a letter and its alternatives are a few kilobytes.
MAX_ANSWER_SIZE = 1024 * 1024

# The library that this version of openai is built on; they have been several, with the same interface.
_client = next(base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
_http: Any = importlib.import_module(_client.__module__.partition(".")[0])


class UnusableAnswer(ValueError):
    """An answer that is not read to its end, or not at all; the next would be no better."""

    @classmethod
    def is_behind(cls, error: BaseException) -> bool:
        """Whether ``error`` is one, or was raised because of one: versions of openai differ in that."""
        return isinstance(error, cls) or isinstance(error.__cause__, cls)


class Transport:
    """Makes the client, and can end what it is doing.

    :param timeout: seconds for one answer, from its first byte to its last; also to connect and between two bytes.
    :param trust_env: whether the environment may name a proxy.
    """

    def __init__(self, *, timeout: float, trust_env: bool) -> None:
        self._timeout = timeout
        self._opened: WeakSet[Any] = WeakSet()
        self.client = openai.DefaultHttpxClient(
            trust_env=trust_env,
            timeout=timeout,
            # Whoever is redirected to would get the whole prompt.
            follow_redirects=False,
            # What is compressed has no size that is known before.
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [self._watch], "response": [self._limit]},
        )

    def interrupt(self) -> None:
        """Break all connections: whoever waits for an answer gets an error now."""
        for stream in list(self._opened):
            connection = stream.get_extra_info("socket")
            # Closing a socket does not wake a thread that waits for its bytes; this does.
            with suppress(OSError, AttributeError):
                connection.shutdown(socket.SHUT_RDWR)
        self.client.close()

    def _watch(self, request: Any) -> None:
        request.extensions["trace"] = self._trace

    def _trace(self, event: str, details: Mapping[str, Any]) -> None:
        stream = details.get("return_value")
        if event.endswith(".complete") and hasattr(stream, "get_extra_info"):
            self._opened.add(stream)

    def _limit(self, response: Any) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise UnusableAnswer(f"it is compressed ({encoding[:20]!r}), which was not asked for")
        response.stream = _Limited(response.stream, time.monotonic() + self._timeout)


class _Limited(_http.SyncByteStream):  # type: ignore[misc]
    """The body of an answer, as far as it is read."""

    def __init__(self, stream: Any, until: float) -> None:
        self._stream = stream
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_SIZE:
                raise UnusableAnswer(f"it is longer than {MAX_ANSWER_SIZE} bytes")
            if time.monotonic() > self._until:
                raise _http.ReadTimeout("The answer does not end.")
            yield chunk

    def close(self) -> None:
        self._stream.close()
