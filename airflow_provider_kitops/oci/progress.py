"""Showing progress to people: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from tqdm import tqdm

from airflow_provider_kitops.oci.target import Progress, ProgressHook

# Seconds between two drawings of the bar.
_REDRAW = 0.1
# The rate is that of the last so many seconds, looked at this often.
_WINDOW = 60.0
_SAMPLE = 1.0
# Actions that move no bytes.
_UNMOVED = ("skip", "mount")


@contextmanager
def bar(stream: TextIO | None = None) -> Iterator[ProgressHook]:
    """One bar of bytes over all pieces of the work.

    :param stream: where it is drawn; standard error by default.
    """
    lock = threading.Lock()
    seen: dict[str, Progress] = {}
    drawn = 0.0
    with tqdm(file=stream or sys.stderr, unit="B", unit_scale=True, unit_divisor=1024, leave=False) as shown:

        def hook(step: Progress) -> None:
            nonlocal drawn
            with lock:
                seen[step.name] = step
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
def lines(
    logger: logging.Logger, interval: float = 10.0, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[ProgressHook]:
    """Lines about the whole work: one every ``interval`` seconds, and one at its end.

    A piece of the work that took longer than ``interval`` gets a line of its own when it is done; many small ones get
    none. What was begun and then failed gets no last line: the error says what was.

    :param logger: where the lines go, at level INFO.
    :param interval: seconds between two lines.
    :param clock: seconds that pass; for tests.
    """
    work = _Work(logger, interval, clock)
    yield work.hook
    work.end()


class _Work:
    """Adds up pieces of work that go on side by side, and says now and then how far they are.

    :ivar _moved: bytes that really moved, for the rate; what was there already costs no time.
    """

    def __init__(self, logger: logging.Logger, interval: float, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._pieces: dict[str, _Piece] = {}
        self._action = ""
        self._done = self._total = self._moved = self._skipped = 0
        self._unknown = 0
        self._began = self._last = self._latest = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    def hook(self, step: Progress) -> None:
        """Take a step, and log a line if it is time for one."""
        with self._lock:
            now = self._clock()
            if not self._samples:
                self._began = self._last = now
                self._samples.append((now, 0))
            self._latest = now
            piece = self._pieces.setdefault(step.name, _Piece())
            self._count(piece, -1)
            if step.done and piece.began is None:
                piece.began = now
            finished = step.total is not None and step.done >= step.total and not piece.whole
            piece.done, piece.total, piece.moves = step.done, step.total, step.action not in _UNMOVED
            piece.whole = step.total is not None and step.done >= step.total
            self._count(piece, 1)
            if piece.moves or not self._action:
                self._action = step.action
            if now - self._samples[-1][0] >= _SAMPLE:
                self._samples.append((now, self._moved))
                while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW:
                    self._samples.popleft()
            long = finished and piece.began is not None and now - piece.began >= self._interval
            if not long and now - self._last < self._interval:
                return
            self._last = now
            line = f"{step.action} {step.name} ({size_text(step.done)}): done; " if long else ""
            line += f"{self._action} {self._state(now)}"
        self._logger.info("%s", line)

    def end(self) -> None:
        """Log the last line, if there was anything to do."""
        with self._lock:
            if not self._pieces:
                return
            seconds = self._latest - self._began
            parts = []
            if self._moved:
                speed = f", {size_text(self._moved / seconds)}/s" if seconds >= 1 else ""
                parts.append(f"{size_text(self._moved)} in {_time_text(seconds)}{speed}")
            if self._skipped:
                parts.append(f"{size_text(self._skipped)} there already")
            done = f"{self._action} done" if self._moved else "nothing to move"
        self._logger.info("%s", ": ".join((done, "; ".join(parts))) if parts else done)

    def _count(self, piece: _Piece, sign: int) -> None:
        self._done += sign * piece.done
        # Nobody knows how much of what has no size is left.
        self._total += sign * max(piece.total or 0, piece.done)
        self._unknown += sign * (piece.total is None)
        self._moved += sign * (piece.done if piece.moves else 0)
        self._skipped += sign * (0 if piece.moves else piece.done)

    def _state(self, now: float) -> str:
        since, before = self._samples[0]
        rate = max(0.0, (self._moved - before) / (now - since)) if now > since else 0.0
        if self._unknown:
            return f"{size_text(self._done)}, {size_text(rate)}/s"
        left = self._total - self._done
        percent = 100 * self._done // self._total if self._total else 100
        state = f"{percent}%: {size_text(self._done)} of {size_text(self._total)}, {size_text(rate)}/s"
        return f"{state}, {_time_text(left / rate)} left" if left and rate else state


@dataclass
class _Piece:
    done: int = 0
    total: int | None = 0
    moves: bool = True
    whole: bool = False
    began: float | None = None


def _time_text(seconds: float) -> str:
    """Seconds for people: ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size_text(size: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
