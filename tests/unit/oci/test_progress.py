"""What people see of progress."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_kitops.oci import progress
from airflow_provider_kitops.oci.target import Progress, ProgressHook

MIB = 1024 * 1024


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A log, and the lines that progress wrote into it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.clock = Clock()

    @contextmanager
    def lines(self, interval: float = 10.0) -> Iterator[ProgressHook]:
        with progress.lines(logging.getLogger("test"), interval, clock=self.clock) as hook:
            yield hook

    @property
    def said(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def test_a_long_transfer_shows_how_far_it_is_how_fast_and_how_long_it_takes(log: Log) -> None:
    with log.lines() as hook:
        for done in range(61):
            hook(Progress("upload", "sha256:abc", done * 10 * MIB, 600 * MIB))
            log.clock.now += 1
    assert log.said == [
        "upload 16%: 100.0 MiB of 600.0 MiB, 10.0 MiB/s, 50 s left",
        "upload 33%: 200.0 MiB of 600.0 MiB, 10.0 MiB/s, 40 s left",
        "upload 50%: 300.0 MiB of 600.0 MiB, 10.0 MiB/s, 30 s left",
        "upload 66%: 400.0 MiB of 600.0 MiB, 10.0 MiB/s, 20 s left",
        "upload 83%: 500.0 MiB of 600.0 MiB, 10.0 MiB/s, 10 s left",
        "upload sha256:abc (600.0 MiB): done; upload 100%: 600.0 MiB of 600.0 MiB, 10.0 MiB/s",
        "upload done: 600.0 MiB in 1 min 00 s, 10.0 MiB/s",
    ]


def test_layers_side_by_side_are_one_work(log: Log) -> None:
    with log.lines() as hook:
        for name in "abcd":
            hook(Progress("download", name, 0, 100 * MIB))
        for _ in range(10):
            log.clock.now += 1
            for name in "ab":
                hook(Progress("download", name, int(log.clock.now - 1000) * MIB, 100 * MIB))
    assert log.said[0] == "download 4%: 19.0 MiB of 400.0 MiB, 1.9 MiB/s, 3 min 21 s left", "all four count"
    assert len(log.said) == 2


def test_thousands_of_small_layers_are_a_line_now_and_then(log: Log) -> None:
    with log.lines() as hook:
        for number in range(5000):
            hook(Progress("pack", f"file{number}", 0, MIB))
            log.clock.now += 0.01
            hook(Progress("pack", f"file{number}", MIB, MIB))
    assert 5 <= len(log.said) <= 7, log.said
    assert log.said[-1] == "pack done: 4.9 GiB in 50 s, 100.0 MiB/s"


def test_the_rate_is_that_of_the_last_minute(log: Log) -> None:
    with log.lines(interval=199) as hook:
        done = 0
        for second in range(200):
            done += (100 if second < 100 else 1) * MIB
            hook(Progress("upload", "a", done, 100_000 * MIB))
            log.clock.now += 1
    assert "1.0 MiB/s" in log.said[0]


def test_what_is_there_already_makes_nothing_faster(log: Log) -> None:
    with log.lines() as hook:
        for name in ("big", "small", "near"):
            hook(Progress("upload", name, 0, {"big": 1000, "small": 100, "near": 10}[name] * MIB))
        hook(Progress("skip", "big", 1000 * MIB, 1000 * MIB))
        hook(Progress("mount", "near", 10 * MIB, 10 * MIB))
        for done in range(0, 101, 5):
            hook(Progress("upload", "small", done * MIB, 100 * MIB))
            log.clock.now += 1
    assert log.said[0] == "upload 95%: 1.0 GiB of 1.1 GiB, 5.0 MiB/s, 10 s left"
    assert log.said[-1] == "upload done: 100.0 MiB in 20 s, 5.0 MiB/s; 1010.0 MiB there already"


def test_work_of_unknown_size_has_no_end_in_sight(log: Log) -> None:
    with log.lines() as hook:
        for done in range(12):
            hook(Progress("pack", "stream", done * MIB))
            log.clock.now += 1
    assert log.said[0] == "pack 10.0 MiB, 1.0 MiB/s"


def test_an_upload_that_starts_over_goes_back(log: Log) -> None:
    with log.lines() as hook:
        hook(Progress("upload", "a", 50 * MIB, 100 * MIB))
        log.clock.now += 10
        hook(Progress("upload", "a", 0, 100 * MIB))
        log.clock.now += 10
        hook(Progress("upload", "a", 10 * MIB, 100 * MIB))
    assert log.said[:2] == [
        "upload 0%: 0 B of 100.0 MiB, 0 B/s",
        "upload 10%: 10.0 MiB of 100.0 MiB, 512.0 KiB/s, 3 min 00 s left",
    ]


def test_short_work_is_one_line_and_no_work_is_none(log: Log) -> None:
    with log.lines():
        pass
    assert log.said == []
    with log.lines() as hook:
        hook(Progress("upload", "a", 5, 5))
    with log.lines() as hook:
        hook(Progress("skip", "a", 5, 5))
    assert log.said == ["upload done: 5 B in 0 s", "nothing to move: 5 B there already"]


def test_work_that_failed_is_not_called_done(log: Log) -> None:
    with contextlib.suppress(OSError), log.lines() as hook:
        hook(Progress("upload", "a", 5, 10))
        raise OSError
    assert log.said == []


def test_a_bar_counts_all_parts_and_goes_back_when_one_starts_over() -> None:
    stream = io.StringIO()
    with progress.bar(stream) as hook:
        hook(Progress("upload", "a", 500, 1000))
        hook(Progress("upload", "b", 1000, 1000))
        hook(Progress("upload", "a", 0, 1000))
    drawn = stream.getvalue().split("\r")
    assert any("500/0.98k" in each for each in drawn), drawn
    assert any("0.98k/1.95k" in each for each in drawn), drawn
