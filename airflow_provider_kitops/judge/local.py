"""A judge of one's own: a GGUF file served in this process, on loopback, by llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_kitops.judge.endpoint import Endpoint


@contextmanager
def serve_gguf(path: Path, *, threads: int = 2, context: int = 2048, parallel: int = 1) -> Iterator[Endpoint]:
    """Serve ``path`` as an OpenAI-compatible endpoint as long as the context lasts.

    :param path: the model, GGUF.
    :param threads: cores to use.
    :param context: tokens per request, prompt and answer together.
    :param parallel: requests at a time.
    :returns: an endpoint on a free loopback port with a key of its own and the digest of the file.
    :raises InvalidInput: no such file, or not GGUF.
    :raises JudgeUnavailable: xllamacpp is not installed, or llama.cpp cannot load the model.
    """
    yield Endpoint("http://127.0.0.1/v1")
    raise NotImplementedError
