"""What programs of pods wait for: a page of each, which is there when its gate is open."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Gates:
    """Any number of gates, by name.

    :param host: an address of this machine that pods reach.
    """

    def __init__(self, host: str) -> None:
        self._open: set[str] = set()
        gates = self._open

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path in gates else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # Many pods knock at once. Who finds the queue full waits for seconds, in which no shell obeys SIGTERM.
            request_queue_size = 128

        self.server = Server((host, 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host!s}:{port}/{name}"

    def open(self, name: str) -> None:
        self._open.add(f"/{name}")
