from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.workload.progress import MARKER, WorkloadProgress, parse_progress, report

NUMBERS = st.floats(0, 1e6).map(lambda value: round(value, 4))


@given(
    st.builds(
        WorkloadProgress,
        phase=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40),
        step=st.none() | st.integers(0, 10**9),
        total=st.none() | st.integers(0, 10**9),
        loss=st.none() | NUMBERS,
        tokens_per_second=st.none() | NUMBERS,
        eta=st.none() | NUMBERS,
    )
)
def test_a_line_is_read_as_it_was_written(progress: WorkloadProgress) -> None:
    assert parse_progress(progress.to_line()) == progress
    assert "\n" not in progress.to_line()


@given(st.text())
def test_any_other_line_is_no_progress(line: str) -> None:
    assert parse_progress(line) is None


@pytest.mark.parametrize(
    "line", ["KITOPS-PROGRESS", "KITOPS-PROGRESS {", "KITOPS-PROGRESS []", 'KITOPS-PROGRESS {"phase": 1}', "{}"]
)
def test_a_malformed_line_is_no_progress(line: str) -> None:
    assert parse_progress(line) is None


def test_a_field_of_another_type_is_left_out() -> None:
    assert parse_progress('KITOPS-PROGRESS {"phase": "train", "step": "3", "loss": true}') == WorkloadProgress("train")


def test_a_loss_that_is_no_number_is_left_out() -> None:
    assert WorkloadProgress("train", loss=float("nan")).to_line() == 'KITOPS-PROGRESS {"phase": "train"}'


def test_it_reads_like_a_sentence() -> None:
    progress = WorkloadProgress("train", 12, 60, loss=1.23456, tokens_per_second=319.6, eta=25.2)
    assert str(progress) == "train 12/60, loss 1.2346, 320 tokens/s, 25 s left"


def test_a_report_is_one_line() -> None:
    stream = io.StringIO()
    report(WorkloadProgress("load"), stream)
    assert stream.getvalue() == 'KITOPS-PROGRESS {"phase": "load"}\n'


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ('{"phase": "tr\\u0000ain\\ud800", "step": 1}', WorkloadProgress("train", 1)),
        ('{"phase": "train", "loss": NaN, "eta": Infinity, "step": 1e400}', WorkloadProgress("train")),
        ('{"phase": "train", "step": ' + "9" * 400 + "}", WorkloadProgress("train")),
        ('{"phase": "' + "x" * 1000 + '"}', WorkloadProgress("x" * 40)),
        ("[" * 100_000, None),
    ],
)
def test_what_no_database_takes_is_left_out(fields: str, expected: WorkloadProgress | None) -> None:
    assert parse_progress(f"{MARKER} {fields}") == expected
