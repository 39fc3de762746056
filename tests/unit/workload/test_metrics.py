from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.oci.errors import WorkloadFailed
from airflow_provider_kitops.workload.metrics import metrics_bytes, parse_metrics, readable, reserved_keys, too_deep


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
        metrics_bytes(output)
    assert "password" not in str(raised.value)


def test_a_link_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").symlink_to("/no/such/file")
    with pytest.raises(WorkloadFailed, match=r"metrics\.json is a link, not a file"):
        metrics_bytes(tmp_path)


def test_no_file_is_no_metrics(tmp_path: Path) -> None:
    assert metrics_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"loss": NaN}', "no JSON"),
        ('{"a": [{"loss": -Infinity}]}', "no JSON"),
        ('{"loss": 1e999}', "no JSON"),
        ('{"a": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested too deeply"),
        ('{"a": "' + "x" * 65_536 + '"}', "larger than 64 KiB"),
        (b'{"a": "\xff"}', "no JSON"),
    ],
)
def test_metrics_that_no_xcom_can_hold_are_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(WorkloadFailed, match=told):
        parse_metrics(text.encode() if isinstance(text, str) else text)


def test_metrics_of_a_usual_size_are_read() -> None:
    metrics = {"loss": 0.25, "labels": ["a"] * 1000}
    assert parse_metrics(json.dumps(metrics).encode()) == metrics


def test_of_a_large_file_no_more_is_read_than_shows_that_it_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(b" " * 1_000_000)
    data = metrics_bytes(tmp_path)
    assert data is not None
    assert len(data) < 100_000
    with pytest.raises(WorkloadFailed, match="larger than 64 KiB"):
        parse_metrics(data)


def test_text_that_no_database_takes_is_replaced() -> None:
    assert parse_metrics(json.dumps({"a\0": ["b\ud800", 1, True, None]}).encode()) == {
        "a\ufffd": ["b\ufffd", 1, True, None]
    }


RESERVED = ["__classname__", "__id__", "__type", "__var", "__version__", "__data__", "__", "____new"]


@pytest.mark.parametrize("key", RESERVED)
def test_no_key_is_one_of_airflows_own(key: str) -> None:
    data = json.dumps({"a": [{"b": {key: 1, "loss": 0.5}}], key: {key: 2}, "_kept": "__text"}).encode()
    name = "_" + key.lstrip("_")
    assert parse_metrics(data) == {"a": [{"b": {name: 1, "loss": 0.5}}], name: {name: 2}, "_kept": "__text"}
    assert reserved_keys(data) == [key]


def test_no_two_keys_become_one() -> None:
    value = {"__a": 1, "_a": 2, "___a": 3, "_a-2": 4, "b\0": 5, "b\x01": 6}
    assert readable(value) == {"_a-3": 1, "_a": 2, "_a-4": 3, "_a-2": 4, "b\ufffd": 5, "b\ufffd-2": 6}
    assert list(readable(value).values()) == [1, 2, 3, 4, 5, 6]


keys = st.text(st.sampled_from("_a2\0\x01"), max_size=6)
values = st.recursive(st.integers(), lambda each: st.lists(each) | st.dictionaries(keys, each), max_leaves=20)


@given(value=st.dictionaries(keys, values))
def test_every_key_stays_and_what_is_readable_stays_as_it_is(value: dict[str, Any]) -> None:
    clean = readable(value)
    assert len(clean) == len(value)
    assert not any(key.startswith("__") or "\0" in key for key in clean)
    assert readable(clean) == clean
    assert reserved_keys(json.dumps(clean).encode()) == []


@pytest.mark.parametrize("levels", [51, 52, 500, 5000])
def test_metrics_nested_deeper_than_fifty_levels_are_refused(levels: int) -> None:
    text = '{"a": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"
    with pytest.raises(WorkloadFailed, match="nested too deeply"):
        parse_metrics(text.encode())


def test_fifty_levels_are_read() -> None:
    text = '{"a": ' + "[" * 49 + "]" * 49 + "}"
    assert parse_metrics(text.encode()) == json.loads(text)
    value: Any = {}
    for _ in range(100_000):
        value = {"a": value}
    assert too_deep(value)
    # Freeing it level by level spares what would recurse.
    while value:
        value = value.pop("a")
