"""A judge over real sockets that speaks the part of OpenAI's chat completions interface which judging uses.

It "prefers" answers by a quality that the test gives to texts, plus a liking for the first place. It leaves out what
a real endpoint does: tokens (an answer is one token), streaming, usage that means anything (words are counted), TLS,
and any understanding of the prompt beyond the sections between the marks.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow_provider_kitops.judge.endpoint import Endpoint

KEY = "sk-fake-0123456789"

_SECTION = re.compile(r"^(Answer A|Answer B|Answer):\n<<<\n(.*?)\n>>>$", re.DOTALL | re.MULTILINE)


@dataclass
class FakeJudge:
    """What the judge is like, and what it was asked.

    :param quality: how good a text is, in log-odds.
    :param first_bias: added to the log-odds of the answer shown first.
    :param logprobs: whether log-probabilities are given; ``"refuse"`` answers 400 to those who ask for them.
    :param says: overrides the text of every answer (junk).
    :param delay: seconds before each answer.
    :param fail: (status, body, headers) for a request, or None; asked with the request's number and prompt.
    """

    quality: Callable[[str], float] = lambda text: 0.0
    first_bias: float = 0.0
    logprobs: bool | str = True
    says: str | None = None
    delay: float = 0.0
    fail: Callable[[int, str], tuple[int, bytes, dict[str, str]] | None] = lambda number, prompt: None
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    port: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.port}/v1", "fake", KEY)

    def enter(self, request: dict[str, Any], headers: dict[str, str]) -> int:
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return len(self.requests)

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1

    def completion(self, request: dict[str, Any]) -> dict[str, Any]:
        prompt = request["messages"][-1]["content"]
        answers = dict(_SECTION.findall(prompt))
        if "Answer A" in answers:
            odds = self.quality(answers["Answer A"]) - self.quality(answers["Answer B"]) + self.first_bias
            chances = {"A": _logistic(odds), "B": _logistic(-odds)}
        else:
            good = _logistic(self.quality(answers["Answer"]))
            chances = {"1": 1 - good, "5": good, "2": 1e-9, "3": 1e-9, "4": 1e-9}
        text = max(chances, key=lambda name: chances[name]) if self.says is None else self.says
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": text},
        }
        if self.logprobs is True and self.says is None and request.get("logprobs"):
            top = [{"token": name, "logprob": math.log(max(chance, 1e-9))} for name, chance in chances.items()]
            top.sort(key=lambda entry: -entry["logprob"])
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        words = len(prompt.split())
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1},
        }


@contextmanager
def fake_judge(judge: FakeJudge) -> Iterator[FakeJudge]:
    """Let ``judge`` answer on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = judge.enter(request, dict(self.headers))
            try:
                time.sleep(judge.delay)
                status, body, headers = self._answer(number, request)
            finally:
                judge.leave()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _answer(self, number: int, request: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                # Some endpoints repeat the key that they refuse.
                return 401, _error(f"Incorrect key {self.headers.get('Authorization')}"), {}
            failed = judge.fail(number, request["messages"][-1]["content"])
            if failed is not None:
                return failed
            if judge.logprobs == "refuse" and request.get("logprobs"):
                return 400, _error("logprobs are not supported by this model"), {}
            return 200, json.dumps(judge.completion(request)).encode(), {}

        def log_message(self, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    judge.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def failure(status: int, message: str = "failed", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """An error as OpenAI words it."""
    return status, _error(message), {name.replace("_", "-"): value for name, value in headers.items()}


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))
