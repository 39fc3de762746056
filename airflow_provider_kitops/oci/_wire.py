"""The connections of one client: answers have to keep coming, and all of them can be cut from another thread.

The timeouts of sockets count from one byte to the next. A server that sends a byte now and then, or one interim answer
after the other, never exceeds them; here the bytes of a whole answer are counted.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import logging
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_kitops.oci._status import without_queries

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Seconds of waiting over which the speed of an answer is taken, and the bytes a second that it must have then.
WINDOW = 60.0
LEAST_SPEED = 1024
#: Most bytes before the body of an answer: headers, and those of interim answers.
MAX_HEADERS = 1024 * 1024


class _NoSecrets(logging.Filter):
    """Keeps what is secret in signed addresses out of urllib3's logs, and what servers send in place of headers."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(without_queries(arg) if isinstance(arg, str) else arg for arg in record.args)
        return not str(record.msg).startswith("Failed to parse headers")


_no_secrets = _NoSecrets()
_LOGGERS = ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry")


class Wire:
    """All connections that are open, to whatever host.

    The first one makes urllib3's log show addresses without their queries, for all of the process.

    :ivar is_cut: set from ``cut`` until ``mend``; what else waits, as between two tries, may wait for it.
    """

    def __init__(self) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.is_cut = threading.Event()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_no_secrets)

    def adapter(self, connections: int) -> HTTPAdapter:
        """Sends requests over connections of this wire.

        :param connections: kept open for each host.
        """
        return _Adapter(self, connections)

    def pool(self, kind: Any) -> Any:
        """A class of connection pools as ``kind``, one of urllib3's, for connections on this wire."""
        wire = self

        class Connection(kind.ConnectionCls):  # type: ignore[misc]
            response_class = _Answer

            def _new_conn(self) -> socket.socket:
                opened: socket.socket = super()._new_conn()
                # While both sides of TLS shake hands, the connection is in an object that nobody else has.
                self._handle = opened.dup()
                wire.add(self._handle)
                return opened

            def connect(self) -> None:
                try:
                    super().connect()
                    wire.add(self.sock)
                finally:
                    with contextlib.suppress(AttributeError):  # there may have been no connection
                        self._handle.close()

        class Pool(kind):  # type: ignore[misc]
            ConnectionCls = Connection

        return Pool

    def add(self, opened: socket.socket) -> None:
        """Remember a connection until it is closed."""
        with self._lock:
            self._sockets.add(opened)
            is_cut = self.is_cut.is_set()
        if is_cut:
            _shut(opened)

    def cut(self) -> None:
        """End all connections, those too that are being made: whoever waits for one is told that it broke."""
        with self._lock:
            self.is_cut.set()
            found = list(self._sockets)
        for each in found:
            _shut(each)

    def mend(self) -> None:
        """Let connections be made again."""
        self.is_cut.clear()


def _shut(opened: socket.socket) -> None:
    # Past the TLS layer, whose own shutdown would wait for the other side.
    with contextlib.suppress(OSError, TypeError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    def __init__(self, wire: Wire, connections: int) -> None:
        self._pools = {"http": wire.pool(HTTPConnectionPool), "https": wire.pool(HTTPSConnectionPool)}
        super().__init__(pool_connections=8, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*args, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Answer(http.client.HTTPResponse):
    """An answer whose bytes are counted and timed."""

    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp.close()
        self._timed = _Timed(sock.makefile("rb", buffering=0))
        self.fp = io.BufferedReader(self._timed, 64 * 1024)

    def begin(self) -> None:
        self._timed.left = MAX_HEADERS
        super().begin()
        self._timed.left = None


class _Timed(io.RawIOBase):
    """A socket's bytes.

    :ivar left: how many may still come; None = any number.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.left: int | None = None
        self._began = False
        self._waited = 0.0
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        before = time.monotonic()
        count = self._raw.readinto(buffer)
        # Until the first byte the server works, for which the socket's timeout is the measure; and only the time that
        # is spent here counts, not what is done with the bytes.
        if self._began:
            self._waited += time.monotonic() - before
        self._began = True
        self._count += count or 0
        if self._waited >= WINDOW:
            if self._count < WINDOW * LEAST_SPEED:
                raise TimeoutError(errno.ETIMEDOUT, f"it sent less than {LEAST_SPEED} bytes a second")
            self._waited, self._count = 0.0, 0
        if self.left is not None:
            self.left -= count or 0
            if self.left < 0:
                raise OSError(errno.EMSGSIZE, "its headers have no end")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
