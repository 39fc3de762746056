"""Settings and specifications are read and written so that texts stay texts and numbers numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_kitops.workload._yaml import dump, load, load_specification
from airflow_provider_kitops.workload.generate.config import GenerateConfig
from airflow_provider_kitops.workload.settings import dump_settings, load_settings

VALUES = {
    "texts": ["1e-4", "1.10", "yes", "no", "on", "null", "", "~", "0o17", "017", "1_000", "12:30:45", "2026-01-31"],
    "further": ["=", "<<", "- a", "a: b", "#", "caf\u00e9", "\x7f", "\U0001f600", "a\nb\n", " a ", "x" * 200],
    "numbers": [1, -1, 0, 1e-05, 1e16, 0.1, 1e300, True, False, None],
    "nested": {"017": {"yes": []}, "": {}},
}


def test_what_is_written_is_read_alike_by_either_version_of_yaml() -> None:
    text = dump(VALUES)
    assert load(text) == VALUES
    assert yaml.safe_load(text) == VALUES


def test_settings_are_read_as_a_kitfile_is() -> None:
    assert load("a: 1e-4\nb: [yes, off]\nc: 2026-01-31\nd: !!str 1\ne: 0x10\n1: x\n") == {
        "a": 1e-4,
        "b": ["yes", "off"],
        "c": "2026-01-31",
        "d": "1",
        "e": 16,
        "1": "x",
    }
    assert load("") is None


def test_labels_that_yaml_1_1_takes_for_truth_values_are_labels(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("labels: [yes, no]\nlimit: 3\n")
    config = load_settings(GenerateConfig, [], tmp_path)
    assert list(config.labels or ()) == ["yes", "no"]
    dump_settings(config, tmp_path / "config.yaml")
    assert load_settings(GenerateConfig, [], tmp_path) == config


@pytest.mark.parametrize("text", ["a: [", "a: 1\na: 2\n", "[" * 100_000, b"a: \xff", "a: !!python/none x"])
def test_what_is_no_document_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(text)


def test_a_kitfile_inside_a_specification_keeps_its_texts_as_they_are_written() -> None:
    text = """
    config: {version: 1.10, version_text: "1.10"}
    output:
      reference: demo/model
      kitfile:
        manifestVersion: 1.0.0
        package: {name: 007, version: 1.10, license: null, authors: [on, 1e-4]}
        model: {path: m, version: 2026-01-31, parameters: {rate: 1e-4, text: "1e-4", on: yes, at: 2026-01-31}}
    """
    found: dict[str, Any] = load_specification(text)
    assert found["config"] == {"version": 1.1, "version_text": "1.10"}
    assert found["output"] == {
        "reference": "demo/model",
        "kitfile": {
            "manifestVersion": "1.0.0",
            "package": {"name": "007", "version": "1.10", "license": None, "authors": ["on", "1e-4"]},
            "model": {
                "path": "m",
                "version": "2026-01-31",
                "parameters": {"rate": 1e-4, "text": "1e-4", "on": "yes", "at": "2026-01-31T00:00:00Z"},
            },
        },
    }
