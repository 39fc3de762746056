"""Showing progress to people: a bar on a terminal, lines in a log."""

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

# Seconds between two drawings of the bar.
_REDRAW = 0.1


@contextmanager
def bar(stream: TextIO | None = None) -> Iterator[ProgressHook]:
    """One bar of bytes over all pieces of the work.

    :param stream: where it is drawn; standard error by default.
    """
    lock = threading.Lock()
    seen: dict[tuple[str, str], Progress] = {}
    drawn = 0.0
    with tqdm(file=stream or sys.stderr, unit="B", unit_scale=True, unit_divisor=1024, leave=False) as shown:

        def hook(step: Progress) -> None:
            nonlocal drawn
            with lock:
                seen[step.action, step.name] = step
                shown.total = sum(max(part.total or 0, part.done) for part in seen.values())
                shown.set_description(f"{step.action} {step.name[:30]}", refresh=False)
                # Absolute, not added: work that starts over goes back to its beginning.
                shown.n = sum(part.done for part in seen.values())
                if time.monotonic() - drawn >= _REDRAW:
                    drawn = time.monotonic()
                    shown.refresh()

        yield hook
        shown.refresh()


@contextmanager
def lines(logger: logging.Logger, interval: float = 10.0) -> Iterator[ProgressHook]:
    """A line for each piece of work that is done, and one every ``interval`` seconds for what takes long.

    :param logger: where the lines go, at level INFO.
    :param interval: seconds between two lines.
    """
    lock = threading.Lock()
    last = time.monotonic()

    def hook(step: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        complete = step.total is not None and step.done >= step.total
        with lock:
            if not complete and now - last < interval:
                return
            last = now
        if complete:
            logger.info("%s %s (%s): done", step.action, step.name, size_text(step.done))
        elif step.total:
            percent = 100 * step.done // step.total
            logger.info("%s %s: %d%% of %s", step.action, step.name, percent, size_text(step.total))
        else:
            logger.info("%s %s: %s", step.action, step.name, size_text(step.done))

    yield hook


def size_text(size: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
