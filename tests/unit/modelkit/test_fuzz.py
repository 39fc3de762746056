"""The fuzz targets, on what fuzzing found once and on a few random bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.run import CASES, TARGETS, run

FOUND = sorted(path for path in CASES.glob("*/*") if path.is_file())


@pytest.mark.parametrize("case", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_an_answer_or_a_clear_error(case: Path) -> None:
    run(case.parent.name, case.read_bytes())


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=2000) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_answer_or_a_clear_error(target: str, data: bytes) -> None:
    run(target, data)
