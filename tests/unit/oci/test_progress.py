"""What people see of progress."""

from __future__ import annotations

import io
import logging

from airflow_provider_kitops.oci import progress
from airflow_provider_kitops.oci.target import Progress


def test_a_log_gets_a_line_for_what_is_done_and_few_for_what_is_not(caplog) -> None:
    caplog.set_level(logging.INFO)
    with progress.lines(logging.getLogger("test"), interval=3600) as hook:
        for done in range(0, 2048, 64):
            hook(Progress("upload", "sha256:abc", done, 2048))
        hook(Progress("upload", "sha256:abc", 2048, 2048))
    assert [record.getMessage() for record in caplog.records] == ["upload sha256:abc (2.0 KiB): done"]


def test_a_log_gets_lines_at_intervals(caplog) -> None:
    caplog.set_level(logging.INFO)
    with progress.lines(logging.getLogger("test"), interval=0) as hook:
        hook(Progress("download", "weights", 512, 2048))
        hook(Progress("pack", "data.csv", 10))
    assert [record.getMessage() for record in caplog.records] == [
        "download weights: 25% of 2.0 KiB",
        "pack data.csv: 10 B",
    ]


def test_a_bar_counts_all_parts_and_goes_back_when_one_starts_over() -> None:
    stream = io.StringIO()
    with progress.bar(stream) as hook:
        hook(Progress("upload", "a", 500, 1000))
        hook(Progress("upload", "b", 1000, 1000))
        hook(Progress("upload", "a", 0, 1000))
    drawn = stream.getvalue().split("\r")
    assert any("500/0.98k" in each for each in drawn), drawn
    assert any("0.98k/1.95k" in each for each in drawn), drawn
