"""A proxy before a real server: what a test tells it to do to a request or an answer it does, all else passes as it is.

``Proxy`` understands HTTP/1.1 as far as the registry client speaks it: one request after the other on a connection,
bodies with a length or in chunks (whose borders it draws anew). No pipelining, no interim answers, no upgrades. To a
client that names it as its forward proxy it is one too, for plain HTTP, and asks for no password.

``Relay`` understands nothing and moves bytes; it is for TLS.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

_PIECE = 64 * 1024
#: For ``Fault.cut_answer``: before anything of the answer.
WHOLE = -1


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    :param number: counts from 1, over all connections.
    :param path: without the query.
    :param headers: names in lower case.
    :param target: path and query as they were written.
    """

    number: int
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    target: str

    @property
    def length(self) -> int:
        """Announced bytes of the body."""
        return int(self.headers.get("content-length", 0))


@dataclass(frozen=True)
class Answer:
    """An answer of the proxy's own."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Fault:
    """What is done to one request or its answer.

    :param answer: is sent when the request's body has come to its end; the server sees nothing of it.
    :param before: called before the request is passed on.
    :param cut_request: after so many bytes of the request's body the connections are broken; with 0 the server sees
        nothing of it.
    :param cut_answer: after so many bytes of the answer's body; ``WHOLE`` = the server has acted, and nobody is told.
    :param at_cut: called at that place, instead of breaking the connections.
    :param reset: break the client's connection as a crash does (RST), not as an orderly end (FIN).
    :param headers: set in the answer.
    :param change: what becomes of a piece of the answer's body, from the place of its first byte and the piece.
    :param drip: seconds between two bytes of the answer's body.
    """

    answer: Answer | None = None
    before: Callable[[], object] | None = None
    cut_request: int | None = None
    cut_answer: int | None = None
    at_cut: Callable[[], object] | None = None
    reset: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[int, bytes], bytes] | None = None
    drip: float = 0.0


NOTHING = Fault()
RESET = Fault(cut_request=0)
LOST = Fault(cut_answer=WHOLE)


class _Broken(Exception):
    """The connections are to be broken now."""


class _Server:
    """Listens, and serves each connection in a thread of its own."""

    def __init__(self, upstream: str, address: str = "127.0.0.1") -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server((address, 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.host = f"{address}:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone would not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._guarded, args=[client], daemon=True).start()

    def _guarded(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        try:
            with contextlib.suppress(OSError, _Broken):
                self._serve(client)
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._upstream, timeout=60)

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError


class Proxy(_Server):
    """Passes requests to one server, and does what ``rule`` says.

    :param upstream: ``host:port`` of the server.
    :param address: where it listens, on a free port.
    :ivar rule: what is done to a request; tests set it.
    :ivar requests: all that came in.
    """

    def __init__(self, upstream: str, address: str = "127.0.0.1") -> None:
        super().__init__(upstream, address)
        self.requests: list[Request] = []
        self.rule: Callable[[Request], Fault | None] = lambda request: None

    def seen(self, method: str = "", part: str = "") -> list[Request]:
        """The requests of a method, with ``part`` somewhere in their path."""
        return [each for each in self.requests if method in ("", each.method) and part in each.path]

    def _serve(self, client: socket.socket) -> None:
        reset = True
        with contextlib.ExitStack() as stack:
            try:
                incoming = stack.enter_context(client.makefile("rb", _PIECE))
                upstream: socket.socket | None = None
                while head := _head(incoming):
                    method, target, _ = head[0].split(" ", 2)
                    request = self._note(method, target, head)
                    fault = self.rule(request) or NOTHING
                    reset = fault.reset
                    if fault.answer is not None:
                        for _ in _body(incoming, request.headers):
                            pass
                        _send_answer(client, fault.answer, method)
                        continue
                    if fault.before is not None:
                        fault.before()
                        upstream = None  # the server may be another one now
                    if upstream is None:
                        upstream = stack.enter_context(self._connect())
                        outgoing = stack.enter_context(upstream.makefile("rb", _PIECE))
                    _pass_request(upstream, incoming, request, head, fault)
                    if not _pass_answer(client, outgoing, method, fault):
                        reset = False
                        return
            except (_Broken, OSError):
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise

    def _note(self, method: str, target: str, head: list[str]) -> Request:
        parts = urlsplit(target)
        if parts.netloc:  # as a forward proxy is asked
            target = target.partition(parts.netloc)[2]
        with self._lock:
            request = Request(len(self.requests) + 1, method, parts.path, parse_qs(parts.query), _headers(head), target)
            self.requests.append(request)
        return request


def _head(stream: BufferedReader) -> list[str]:
    """The first line and the headers of a message; empty at the end of the connection."""
    lines = []
    while line := stream.readline():
        text = line.decode("latin-1").rstrip("\r\n")
        if not text:
            return lines
        lines.append(text)
    return []


def _headers(head: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in head[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _body(stream: BufferedReader, headers: Mapping[str, str], *, to_end: bool = False) -> Iterator[bytes]:
    """The pieces of a body.

    :param to_end: what has neither a length nor chunks goes to the end of the connection.
    """
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := _chunk_size(stream):
            yield from _exactly(stream, size)
            stream.readline()
        while stream.readline().strip():
            pass
    elif "content-length" in headers:
        yield from _exactly(stream, int(headers["content-length"]))
    elif to_end:
        while piece := stream.read1(_PIECE):
            yield piece


def _chunk_size(stream: BufferedReader) -> int:
    line = stream.readline()
    if not line:
        raise _Broken
    return int(line.split(b";")[0], 16)


def _exactly(stream: BufferedReader, size: int) -> Iterator[bytes]:
    while size:
        piece = stream.read1(min(size, _PIECE))
        if not piece:
            raise _Broken
        size -= len(piece)
        yield piece


def _pass_request(
    upstream: socket.socket, incoming: BufferedReader, request: Request, head: list[str], fault: Fault
) -> None:
    chunked = "transfer-encoding" in request.headers
    parts = _cut(_body(incoming, request.headers), fault.cut_request, fault.at_cut)
    if fault.cut_request == 0 and fault.at_cut is None:
        raise _Broken
    first = f"{request.method} {request.target} HTTP/1.1"
    upstream.sendall("\r\n".join([first, *head[1:], "", ""]).encode("latin-1"))
    try:
        for piece in parts:
            upstream.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            upstream.sendall(b"0\r\n\r\n")
    except ConnectionError:
        pass  # the server does not want the rest; it may have said why


def _pass_answer(client: socket.socket, outgoing: BufferedReader, method: str, fault: Fault) -> bool:
    """Whether the connection can be used again."""
    head = _head(outgoing)
    if not head or (fault.cut_answer == WHOLE and fault.at_cut is None):
        raise _Broken
    status = int(head[0].split(" ")[1])
    headers = _headers(head)
    changed = {name.lower(): name for name in fault.headers}
    kept = [line for line in head if line.partition(":")[0].lower() not in changed]
    kept += [f"{name}: {value}" for name, value in fault.headers.items()]
    client.sendall("\r\n".join([*kept, "", ""]).encode("latin-1"))
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    at_end = not chunked and "content-length" not in headers
    if method == "HEAD" or status in (204, 304) or status < 200:
        return True
    place = 0
    for piece in _cut(_body(outgoing, headers, to_end=True), fault.cut_answer, fault.at_cut):
        sent = fault.change(place, piece) if fault.change else piece
        place += len(piece)
        if fault.drip:
            for byte in sent:
                client.sendall(bytes([byte]))
                time.sleep(fault.drip)
        else:
            client.sendall(b"%x\r\n%s\r\n" % (len(sent), sent) if chunked else sent)
    if chunked:
        client.sendall(b"0\r\n\r\n")
    return not at_end and "content-length" not in changed


def _cut(pieces: Iterator[bytes], at: int | None, then: Callable[[], object] | None) -> Iterator[bytes]:
    """The pieces up to the byte ``at``; there the connection is broken, or ``then`` called and the rest follows."""
    place = 0
    for piece in pieces:
        if at is not None and place + len(piece) > at >= place:
            if at > place:
                yield piece[: at - place]
            if then is None:
                raise _Broken
            then()
            yield piece[at - place :]
        else:
            yield piece
        place += len(piece)


def _send_answer(client: socket.socket, answer: Answer, method: str) -> None:
    head = [f"HTTP/1.1 {answer.status} Answer", *(f"{name}: {value}" for name, value in answer.headers.items())]
    if "Content-Length" not in answer.headers:
        head.append(f"Content-Length: {len(answer.body)}")
    body = b"" if method == "HEAD" else answer.body
    client.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body)


class Relay(_Server):
    """Moves bytes between its clients and one server.

    :ivar cut_down: after so many bytes from the server, over all connections, the one in use is broken; once.
    :ivar cut_up: after so many bytes from the client.
    :ivar flip_down: the byte at this place, counted in the same way, arrives with another value; once.
    """

    def __init__(self, upstream: str, address: str = "127.0.0.1") -> None:
        super().__init__(upstream, address)
        self.cut_down: int | None = None
        self.cut_up: int | None = None
        self.flip_down: int | None = None
        self.up = self.down = 0
        self.broken = 0

    def _serve(self, client: socket.socket) -> None:
        with self._connect() as upstream:
            back = threading.Thread(target=self._pump, args=[upstream, client, False], daemon=True)
            back.start()
            self._pump(client, upstream, True)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                piece, broken = self._counted(piece, up)
                sink.sendall(piece)
                if broken:
                    break
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _counted(self, piece: bytes, up: bool) -> tuple[bytes, bool]:
        with self._lock:
            before = self.up if up else self.down
            if up:
                self.up += len(piece)
            else:
                self.down += len(piece)
            cut = self.cut_up if up else self.cut_down
            if not up and self.flip_down is not None and before <= self.flip_down < before + len(piece):
                place, self.flip_down = self.flip_down - before, None
                piece = piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]
                self.broken += 1
            if cut is not None and before + len(piece) > cut:
                self.cut_up, self.cut_down = (None, self.cut_down) if up else (self.cut_up, None)
                self.broken += 1
                return piece[: max(0, cut - before)], True
            return piece, False
