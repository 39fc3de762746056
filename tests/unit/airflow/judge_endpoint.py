"""A judge that prefers answers with the word "right", behind the part of OpenAI's interface that the package uses.

It answers chat completions with one token and its log-probabilities, and no other request. It leaves out everything
else that an endpoint does: models, streaming, limits, token counts that mean something.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sesame-of-the-judge"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests += 1  # type: ignore[attr-defined]
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self._send(401, {"error": {"message": "wrong key", "type": "auth"}})
            return
        asked = body["messages"][-1]["content"]
        first = "right" in asked.split("Answer A:")[1].split("Answer B:")[0]
        second = "right" in asked.split("Answer B:")[1]
        letter = "A" if first or not second else "B"
        other = "B" if letter == "A" else "A"
        odds = -0.7 if first == second else -0.1
        tokens = [{"token": letter, "logprob": odds}, {"token": other, "logprob": -2.4 if odds == -0.1 else -0.7}]
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": letter},
            "logprobs": {"content": [{**tokens[0], "bytes": None, "top_logprobs": tokens}]},
        }
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        self._send(200, {**answer, "choices": [choice], "usage": usage})

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass


@contextmanager
def endpoint() -> Iterator[ThreadingHTTPServer]:
    """Serve on a free loopback port; ``server.requests`` counts what was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.requests = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
