"""A real judge: a GGUF served by llama.cpp on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_kitops.judge import pairwise
from airflow_provider_kitops.judge.config import JudgeConfig, ScoreConfig
from airflow_provider_kitops.judge.endpoint import ChatClient, Endpoint
from airflow_provider_kitops.judge.items import Contestant, Item, LabelledPair
from airflow_provider_kitops.judge.local import context_for, serve_gguf
from airflow_provider_kitops.judge.run import judge
from airflow_provider_kitops.oci.errors import InvalidInput, JudgeUnavailable

VARIABLE = "KITOPS_TEST_JUDGE_GGUF"
needs_model = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} does not name a GGUF file")

LABELS = [
    "sci.space",
    "rec.autos",
    "comp.graphics",
    "rec.sport.hockey",
    "sci.med",
    "talk.politics.guns",
    "misc.forsale",
    "sci.crypt",
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serve_gguf(Path(os.environ[VARIABLE]), threads=1) as served:
        yield served


def status(endpoint: Endpoint, path: str, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(endpoint.base_url + path, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@needs_model
def test_only_who_has_the_key_can_use_the_judge(endpoint: Endpoint) -> None:
    assert status(endpoint, "/models", endpoint.api_key) == 200
    assert status(endpoint, "/chat/completions", "another") == 401
    assert status(endpoint, "/chat/completions") == 401
    assert endpoint.api_key not in repr(endpoint)


@needs_model
def test_a_real_judge_qualifies_on_references_and_sees_which_answers_are_right(endpoint: Endpoint) -> None:
    pairs = [
        LabelledPair(f"{right} {wrong}", "Which newsgroup?", right, wrong, right)
        for number, right in enumerate(LABELS)
        for wrong in (LABELS[number - 1], LABELS[number - 3])
    ]
    items = [Item(label, "Which newsgroup?", label) for label in LABELS]
    wrong = {label: LABELS[(number + 2) % len(LABELS)] for number, label in enumerate(LABELS)}
    found = judge(
        items,
        champion=Contestant("sha256:" + "0" * 64, wrong),
        challenger=Contestant("sha256:" + "1" * 64, {label: label for label in LABELS}),
        pairs=pairs,
        endpoint=endpoint,
        config=JudgeConfig.parse({"show_prompt": False, "qualification": {"minimum_pairs": 16}}),
    )
    assert found.report.qualification.qualified
    assert found.report.counts.wins >= 7
    assert found.report.judge.model_digest == endpoint.model_digest
    assert all(order.log_probabilities for verdict in found.verdicts for order in verdict.orders)


@needs_model
def test_two_judges_run_side_by_side_and_stop(endpoint: Endpoint) -> None:
    started = time.monotonic()
    with serve_gguf(Path(os.environ[VARIABLE]), threads=1, context=512) as other:
        assert other.base_url != endpoint.base_url
        assert status(other, "/models", other.api_key) == 200
        assert status(other, "/models", endpoint.api_key) in (200, 401)
    assert time.monotonic() - started < 120
    with pytest.raises(urllib.error.URLError):
        status(other, "/models", other.api_key)
    assert status(endpoint, "/models", endpoint.api_key) == 200


@needs_model
def test_the_server_dies_with_a_caller_that_is_killed() -> None:
    program = textwrap.dedent(
        f"""
        import os, time
        from pathlib import Path
        from airflow_provider_kitops.judge.local import serve_gguf
        with serve_gguf(Path(os.environ[{VARIABLE!r}]), threads=1, context=512) as served:
            print(served.base_url, flush=True)
            time.sleep(600)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    served = Endpoint(process.stdout.readline().strip())
    assert status(served, "/models") in (200, 401)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            status(served, "/models")
        except OSError:
            # Refused, or reset while it was dying.
            return
        time.sleep(0.1)
    pytest.fail("The server outlived its caller.")


def texts(size: int) -> str:
    """English of so many characters."""
    return " ".join(f"Sentence {number} says what was discussed." for number in range(size // 30))[:size]


@needs_model
def test_texts_as_long_as_the_limits_allow_fit_the_context() -> None:
    config = JudgeConfig(maximum_prompt_characters=3000, maximum_answer_characters=3000, timeout=300)
    long = texts(4000)
    messages, cut = pairwise.messages(long, long, f"right {long}", f"wrong {long}", config)
    assert cut
    with (
        serve_gguf(Path(os.environ[VARIABLE]), threads=2, context=context_for(config)) as served,
        closing(ChatClient(served, served.model, config)) as client,
    ):
        completion = client.ask(messages)
    assert completion.input_tokens > 2048


@needs_model
def test_a_model_that_reads_less_than_the_limits_allow_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with serve_gguf(Path(os.environ[VARIABLE]), threads=1, context=33_000):
        assert "a request may need 33000" in caplog.text


def test_a_context_has_room_for_all_that_a_request_shows() -> None:
    assert context_for(JudgeConfig()) > 4 * 4000
    small = JudgeConfig(maximum_prompt_characters=100, maximum_answer_characters=100)
    assert 400 < context_for(small) < 2048
    assert context_for(small.model_copy(update={"show_prompt": False})) < context_for(small)
    rubric = ScoreConfig(rubric="x" * 5000)
    assert context_for(small.model_copy(update={"score": rubric})) > 5000


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nothing\.gguf"), serve_gguf(tmp_path / "nothing.gguf"):
        pass
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    with pytest.raises(InvalidInput, match="not a GGUF"), serve_gguf(text):
        pass


def test_a_file_that_llama_cannot_load_is_said_to_be_so(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(JudgeUnavailable, match=r"torn\.gguf"), serve_gguf(torn):
        pass
