"""A judge that answers what no judge should: the item is an error, and the run goes on, or ends at once."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.judge._transport import MAX_ANSWER_SIZE
from airflow_provider_kitops.judge.endpoint import CallFailed, ChatClient, Endpoint
from airflow_provider_kitops.judge.journal import open_journal
from airflow_provider_kitops.judge.report import verdicts_from_bytes, verdicts_to_bytes
from airflow_provider_kitops.judge.run import judge
from airflow_provider_kitops.oci.errors import InvalidInput
from tests.fake_judge import FakeJudge, fake_judge
from tests.unit.judge.test_run import PAIRS, config, contest, quality, run


def completion(text: object = "A", **more: object) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        **more,
    }


def alternatives(*names: object, chosen: object = "A") -> dict[str, Any]:
    answer = completion()
    top = [{"token": name, "logprob": -1.0} for name in names]
    answer["choices"][0]["logprobs"] = {"content": [{"token": chosen, "logprob": -0.1, "top_logprobs": top}]}
    return answer


def usage(prompt: object) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": 1}


MALFORMED = {
    "a token that is a number": json.dumps(alternatives("A", 7)),
    "a token that is null": json.dumps(alternatives("A", None)),
    "a chosen token that is null": json.dumps(alternatives("A", chosen=None)),
    "a log-probability beyond all numbers": json.dumps(alternatives("A")).replace("-1.0", "-1" + "0" * 400),
    "infinitely many tokens used": json.dumps(completion(usage=usage(5))).replace(": 5", ": 1e999"),
    "fewer tokens used than none": json.dumps(completion(usage=usage(-(10**9)))),
    "more tokens used than there are": json.dumps(completion(usage=usage(10**400))),
    "no text": json.dumps(completion(7)),
    "nested too deeply": "[" * 100_000,
    "too long": json.dumps(completion("A")) + " " * MAX_ANSWER_SIZE,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_is_an_error_of_its_item_alone(body: str, tmp_path: Path) -> None:
    def fail(number: int, prompt: str) -> tuple[int, bytes, dict[str, str]] | None:
        return (200, body.encode(), {}) if "task 1" in prompt else None

    with fake_judge(FakeJudge(quality, fail=fail)) as server:
        found = run(server, (0, 2), (2, 0), (0, 2), journal=tmp_path / "journal.jsonl")
    assert [verdict.outcome for verdict in found.verdicts] == ["win", "error", "win"]
    assert "cannot be read" in found.verdicts[1].error
    assert found.report.counts.errors == 1
    assert found.report.counts.losses == 0


@pytest.mark.parametrize("answer", [completion("A\ud800"), alternatives("A", "\ud800")], ids=["text", "token"])
def test_half_a_character_is_replaced(answer: dict[str, Any], tmp_path: Path) -> None:
    def fail(number: int, prompt: str) -> tuple[int, bytes, dict[str, str]] | None:
        return (200, json.dumps(answer).encode(), {}) if "task 1" in prompt else None

    with fake_judge(FakeJudge(quality, fail=fail)) as server:
        found = run(server, (0, 2), (2, 0), journal=tmp_path / "journal.jsonl")
    assert found.report.counts.errors == 0
    assert verdicts_from_bytes(verdicts_to_bytes(found.verdicts)) == found.verdicts


def test_half_a_character_in_a_refusal_can_be_written(tmp_path: Path) -> None:
    def fail(number: int, prompt: str) -> tuple[int, bytes, dict[str, str]] | None:
        return (400, json.dumps({"error": {"message": "\ud800"}}).encode(), {}) if "task 1" in prompt else None

    with fake_judge(FakeJudge(quality, fail=fail)) as server:
        found = run(server, (0, 2), (2, 0))
    assert found.verdicts[1].outcome == "error"
    assert verdicts_from_bytes(verdicts_to_bytes(found.verdicts)) == found.verdicts


def test_a_long_answer_is_cut(tmp_path: Path) -> None:
    with fake_judge(FakeJudge(says="A " + "x" * 500_000)) as server:
        client = ChatClient(server.endpoint, "fake", config())
        assert len(client.ask([("user", "Answer A:\n<<<\n1\n>>>\nAnswer B:\n<<<\n2\n>>>")]).text) == 4096
        client.close()


def test_a_journal_with_a_usage_below_zero_is_asked_again(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text(
        '{"key":"a","text":"A","tokens":[],"usage":[-5,1]}\n{"key":"b","text":"A","tokens":[],"usage":[5,1]}\n'
    )
    with open_journal(journal) as kept:
        assert kept.get("a") is None
        assert kept.get("b") is not None


def test_a_redirect_is_not_followed() -> None:
    with fake_judge(FakeJudge(quality)) as other:
        to = f"http://localhost:{other.port}/v1/chat/completions?signature=private"

        def redirect(number: int, prompt: str) -> tuple[int, bytes, dict[str, str]]:
            return 307, b"", {"Location": to}

        with (
            fake_judge(FakeJudge(quality, fail=redirect)) as server,
            pytest.raises(InvalidInput, match=rf"redirects to http://localhost:{other.port} \(HTTP 307\)") as caught,
        ):
            run(server, (0, 2))
        assert other.requests == []
    assert "private" not in str(caught.value)


@contextmanager
def streaming(write: Callable[[Any], None]) -> Iterator[Endpoint]:
    """An endpoint that answers by ``write`` alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with suppress(OSError):
                write(self)

        def log_message(self, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", "fake")
    finally:
        server.shutdown()
        thread.join()


def drip(handler: Any) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.1)


def silence(handler: Any) -> None:
    time.sleep(30)


def pour(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


@pytest.mark.parametrize(("write", "said"), [(drip, "no answer within"), (pour, "longer than")])
def test_an_answer_without_end_is_given_up(write: Callable[[Any], None], said: str) -> None:
    with streaming(write) as endpoint:
        client = ChatClient(endpoint, "fake", config(timeout=1))
        started = time.monotonic()
        with pytest.raises(CallFailed, match=said):
            client.ask([("user", "?")])
        client.close()
    assert time.monotonic() - started < 5


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell lets what it starts in the background ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("write", [drip, silence])
def test_an_interrupt_does_not_wait_for_the_judge(write: Callable[[Any], None]) -> None:
    items, champion, challenger = contest((0, 2))
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    with streaming(write) as endpoint:
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            judge(
                items,
                champion=champion,
                challenger=challenger,
                pairs=PAIRS,
                endpoint=endpoint,
                config=config(timeout=60, retries=4),
            )
        assert time.monotonic() - started < 3
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("judge")]
