"""Progress for people: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from airflow_provider_kitops.oci.target import Progress, ProgressHook

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def bar(stream: TextIO = sys.stderr) -> Iterator[ProgressHook]:
    """Draw one bar for all blobs together; nothing is drawn where ``stream`` is no terminal."""
    lock = threading.Lock()
    totals: dict[str, int] = {}
    done: dict[str, int] = {}
    with tqdm(
        unit="B", unit_scale=True, unit_divisor=1024, file=stream, disable=not stream.isatty(), leave=False
    ) as bars:

        def hook(progress: Progress) -> None:
            with lock:
                totals[progress.name] = progress.total or progress.done
                step = progress.done - done.get(progress.name, 0)
                done[progress.name] = progress.done
                bars.total = sum(totals.values())
                bars.set_description(f"{progress.action} {progress.name[-32:]}", refresh=False)
                # A repeated attempt starts over: the bar goes back with it.
                bars.update(step)

        yield hook


@contextmanager
def lines(logger: logging.Logger) -> Iterator[ProgressHook]:
    """Log how far each piece is every ten seconds, with rate and time left, and once when it is done."""
    lock = threading.Lock()
    begun: dict[str, float] = {}
    last: dict[str, float] = {}

    def hook(progress: Progress) -> None:
        now = time.monotonic()
        with lock:
            start = begun.setdefault(progress.name, now)
            finished = progress.total is not None and progress.done >= progress.total
            if not finished and now - last.setdefault(progress.name, start) < _SECONDS_BETWEEN_LINES:
                return
            last[progress.name] = now
        if progress.action in ("skip", "mount"):
            logger.info("%s: there already (%s)", progress.name, _size(progress.done))
            return
        rate = progress.done / max(now - start, 0.001)
        text = f"{progress.action} {progress.name}: {_size(progress.done)}"
        if progress.total:
            text += f" of {_size(progress.total)}"
        if now - start >= 1:
            text += f", {_size(rate)}/s"
            if progress.total and not finished:
                text += f", {(progress.total - progress.done) / max(rate, 1):.0f} s left"
        logger.info("%s", text)

    yield hook


def _size(count: float) -> str:
    return str(tqdm.format_sizeof(count, "B", 1024))
