"""Answers kept as they come, so that a run that is killed goes on where it was."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from airflow_provider_kitops.judge.config import JudgeConfig
from airflow_provider_kitops.judge.endpoint import Completion, Endpoint, Message
from airflow_provider_kitops.oci.canonical import canonical, json_digest
from airflow_provider_kitops.oci.errors import Conflict, StorageError

#: Raised when what a line means changes; older lines are then asked for again.
_VERSION = 1


def request_key(endpoint: Endpoint, model: str, config: JudgeConfig, messages: Sequence[Message]) -> str:
    """Names a request by everything that its answer depends on: the judge, the parameters, and the whole prompt,
    which holds the item and both answers."""
    return json_digest(
        [
            _VERSION,
            endpoint.host,
            model,
            endpoint.model_digest,
            [config.logprobs, config.top_logprobs, config.maximum_tokens, config.token_limit_parameter],
            [config.temperature, config.seed],
            [list(message) for message in messages],
        ]
    )


class Journal:
    """Answers by request, in memory and, if there is a file, on disk before anything rests on them."""

    def __init__(self, file: IO[bytes] | None = None, known: dict[str, Completion] | None = None) -> None:
        self._file = file
        self._known = known or {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Completion | None:
        """The answer to that request, if it was asked before."""
        with self._lock:
            return self._known.get(key)

    def put(self, key: str, completion: Completion) -> None:
        """Keep an answer.

        :raises StorageError: the disk refuses.
        """
        line = canonical(
            {
                "key": key,
                "text": completion.text,
                "tokens": completion.tokens,
                "usage": [completion.input_tokens, completion.output_tokens],
            }
        )
        with self._lock:
            self._known[key] = completion
            if self._file is not None:
                try:
                    self._file.write(line + b"\n")
                    self._file.flush()
                    os.fsync(self._file.fileno())
                except OSError as error:
                    raise StorageError(
                        f"Cannot write the judge's journal {self._file.name}: {error.strerror}."
                    ) from error


@contextmanager
def open_journal(path: Path | None) -> Iterator[Journal]:
    """The journal at ``path``, with the answers that it has; without a path, one that forgets.

    :raises Conflict: another run is writing it.
    :raises StorageError: it cannot be read or written.
    """
    if path is None:
        yield Journal()
        return
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock", timeout=5))
            file = stack.enter_context(path.open("a+b"))
            journal = Journal(file, _read(file))
        except Timeout as error:
            raise Conflict(
                f"Another run is writing the judge's journal {path}.",
                hint="Wait for it, or give this run another journal.",
            ) from error
        except OSError as error:
            raise StorageError(f"Cannot use the judge's journal {path}: {error.strerror}.") from error
        yield journal


def _read(file: IO[bytes]) -> dict[str, Completion]:
    """The whole lines; a torn last one, from a run killed while writing, is cut off."""
    file.seek(0)
    known: dict[str, Completion] = {}
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        end += len(line)
        try:
            value = json.loads(line)
            tokens = tuple(tuple((str(name), float(logprob)) for name, logprob in token) for token in value["tokens"])
            counts = [int(count) for count in value["usage"]]
            if min(counts) < 0:
                continue
            known[value["key"]] = Completion(str(value["text"]), tokens, *counts)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            # A line that a crash of the whole machine left unreadable costs one more request, no verdict.
            continue
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    return known
