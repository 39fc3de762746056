"""An HTTP server on the loopback interface that answers what a test tells it to.

It is no registry: it keeps nothing and checks nothing. It is for what a real registry cannot be made to do: lose
connections, point elsewhere, ask to wait, hand out tokens.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """A request as it came in; ``path`` without the query."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What to answer.

    :param cut: end the connection after so many bytes of the body, whatever Content-Length said.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class FakeServer:
    """The running server.

    :param requests: all that came in.
    :param answer: how it answers; tests set it.
    """

    host: str
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda request: Answer(404)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def seen(self, method: str = "", path: str = "") -> list[Request]:
        """The requests of a method, with ``path`` somewhere in theirs."""
        return [each for each in self.requests if method in ("", each.method) and path in each.path]


@contextlib.contextmanager
def fake_server(host: str = "127.0.0.1") -> Iterator[FakeServer]:
    """Run a server until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.title(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, parse_qs(parts.query), headers, self._body())
            server.requests.append(request)
            answer = server.answer(request)
            self.send_response(answer.status)
            if not {"Content-Length", "Transfer-Encoding"} & set(answer.headers):
                self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client may hang up on what it does not want to read
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: answer.cut])
            if answer.cut is not None:
                self.wfile.flush()
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer((host, 0), Handler)
    http.daemon_threads = True
    server = FakeServer(f"{host}:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
