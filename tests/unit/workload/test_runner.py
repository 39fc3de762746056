"""What the runner refuses before or after a program runs, without running any."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.runner import work
from airflow_provider_kitops.workload.spec import WorkloadSpec

SPEC = WorkloadSpec.of(inputs={}, command=["true"], output={"reference": "demo/model", "kitfile": {}})


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 1e300])
def test_a_timeout_is_above_zero_and_finite(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(InvalidInput, match="timeout is"):
        work(SPEC, tmp_path, timeout=timeout)
