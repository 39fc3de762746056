"""A judge of one's own: a GGUF file served on loopback by llama.cpp, for as long as a context lasts."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from airflow_provider_kitops.judge import pairwise, pointwise
from airflow_provider_kitops.judge.config import JudgeConfig
from airflow_provider_kitops.judge.endpoint import Endpoint
from airflow_provider_kitops.oci.errors import InvalidInput, JudgeUnavailable

logger = logging.getLogger(__name__)

# What a chat template puts around and between two messages.
_TEMPLATE_TOKENS = 64


def context_for(config: JudgeConfig) -> int:
    """Tokens that the longest request takes which ``config`` allows, one token for each character.

    English takes a token for about four characters, Chinese for one. Only scripts and symbols that a tokenizer spells
    byte by byte take more, and only an item that is full of them is too long then.
    """
    prompt = "x" * (config.maximum_prompt_characters + 1)
    answer = "x" * (config.maximum_answer_characters + 1)
    requests = [pairwise.messages(prompt, answer, answer, answer, config)[0]]
    if config.score is not None:
        requests.append(pointwise.messages(prompt, answer, answer, config, config.score))
    characters = max(sum(len(text) for _, text in messages) for messages in requests)
    return characters + _TEMPLATE_TOKENS + config.maximum_tokens


@contextmanager
def serve_gguf(
    path: Path, *, threads: int = 2, context: int = 8192, parallel: int = 1, start_timeout: float = 300
) -> Iterator[Endpoint]:
    """Serve ``path`` as an OpenAI-compatible endpoint.

    llama.cpp runs in a child process: a second server in one process never stops again, and its memory would stay
    with the caller. The child ends with the context, or when the caller dies, however that happens.

    :param path: the model, GGUF.
    :param threads: cores to use.
    :param context: tokens per request, prompt and answer together (``context_for``). A model that was trained on fewer
        gets no more than those, which is logged.
    :param parallel: requests at a time. One is fastest on few cores, since both orders of an item then find their
        common beginning in the cache.
    :param start_timeout: seconds until the model must be loaded.
    :returns: an endpoint on a free loopback port, with a random key so that nobody else on this machine can use it,
        and with the digest of the file.
    :raises InvalidInput: no such file, or not GGUF.
    :raises JudgeUnavailable: xllamacpp is not installed, or llama.cpp cannot load the model.
    """
    digest = _digest(path)
    if find_spec("xllamacpp") is None:
        raise JudgeUnavailable(
            f"Cannot serve {path}: xllamacpp is not installed.",
            hint="Install airflow-provider-kitops[local-judge], or name an endpoint.",
        )
    key = secrets.token_urlsafe(32)
    settings = {
        "path": str(path.resolve()),
        "threads": threads,
        "context": context,
        "parallel": parallel,
        "api_key": key,
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_kitops.judge._serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Ctrl-C belongs to the caller, who still needs the judge while cleaning up.
            start_new_session=True,
        )
        try:
            address, served = _start(process, settings, log, path, start_timeout)
            if served < context:
                logger.warning(
                    "%s reads at most %d tokens, and a request may need %d: items that are too long for it become "
                    "errors. Lower maximum_prompt_characters and maximum_answer_characters to have them cut.",
                    path.name,
                    served,
                    context,
                )
            yield Endpoint(f"{address}/v1", path.stem, key, digest, parallel)
        finally:
            _stop(process)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InvalidInput(f"Cannot serve {path}: it is not a GGUF file.")
            file.seek(0)
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(f"Cannot serve {path}: {error.strerror}.") from error


def _start(
    process: subprocess.Popen[bytes], settings: dict[str, object], log: IO[bytes], path: Path, timeout: float
) -> tuple[str, int]:
    """Address of the server, and the tokens that it gives to a request."""
    assert process.stdin is not None
    assert process.stdout is not None
    # The key goes through the pipe: arguments and environment of a process can be read by others.
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        line = b""
    else:
        timer = threading.Timer(timeout, process.kill)
        timer.daemon = True  # a caller that is told to end does not wait for it
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
    if line:
        answer = json.loads(line)
        return str(answer["address"]), int(answer["context"])
    _stop(process)
    log.seek(0)
    said = log.read()[-500:].decode(errors="replace").strip().splitlines()
    raise JudgeUnavailable(
        f"llama.cpp could not serve {path} within {timeout:g} s (exit code {process.returncode}): "
        f"{said[-1] if said else 'it said nothing'}.",
        hint="Is the file whole, and is there memory for it?",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # What a child that has died did not read is still to be written.
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
