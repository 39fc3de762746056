from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import WorkloadFailed
from airflow_provider_kitops.workload.metrics import read_metrics


def _link(path: Path) -> None:
    secret = path.parent.parent / "secret.json"
    secret.write_text('{"auths": "password"}')
    path.symlink_to(secret)


def _dangling(path: Path) -> None:
    path.symlink_to("/no/such/file")


@pytest.mark.parametrize("make", [_link, _dangling, os.mkfifo, Path.mkdir])
def test_only_a_file_of_the_output_is_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    output = tmp_path / "out"
    output.mkdir()
    make(output / "metrics.json")
    with pytest.raises(WorkloadFailed, match=r"metrics\.json") as raised:
        read_metrics(output)
    assert "password" not in str(raised.value)


def test_no_file_is_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}


def test_text_that_no_database_takes_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"a\0": ["b\ud800", 1, True, None]}))
    assert read_metrics(tmp_path) == {"a\ufffd": ["b\ufffd", 1, True, None]}
