"""What a person reads while the demo runs, and at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.__main__ import _table, main
from demo.local_airflow import _tell


def line(**fields: object) -> str:
    return json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": "info", **fields}) + "\n"


OURS = "airflow.task.operators.airflow_provider_kitops.operators.judge.LLMJudgeOperator"


@pytest.mark.parametrize(
    ("logged", "told"),
    [
        (line(event="[DAG TEST] starting task_id=judge map_index=-1", logger="airflow.sdk"), "» judge"),
        (line(event="verdicts: 3 of 80", logger=OURS), "    verdicts: 3 of 80"),
        (line(event="Pushing xcom", logger="task"), ""),
        (
            line(event="Task failed", level="error", logger="task", exception=[{"exc_value": "No such tag."}]),
            "    Task failed: No such tag.",
        ),
        ("not JSON at all\n", ""),
        ("[1]\n", ""),
    ],
)
def test_only_what_says_something_is_told(logged: str, told: str) -> None:
    assert _tell(logged) == told


def test_the_table_has_a_line_for_every_run() -> None:
    run = {
        "challenger": "sha256:" + "a" * 64,
        "outcome": "promote",
        "items": 80,
        "mean": 0.25,
        "lower": 0.06,
        "upper": 0.42,
        "champion": "sha256:" + "b" * 64,
    }
    lines = _table([run, {**run, "outcome": "reject", "mean": -0.5}]).splitlines()
    assert len(lines) == 4
    assert lines[2].split() == ["1", "a" * 12, "promote", "80", "+0.25", "+0.06", "to", "+0.42", "b" * 12]
    assert "-0.50" in lines[3]


def test_an_unusable_option_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--home", str(tmp_path / "home"), "--base", str(tmp_path / "missing")]) == 1
    assert "There is no model folder or file" in capsys.readouterr().err
    assert not (tmp_path / "home" / "layout").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "There is no dataset"), ("text,class\na,b\n", "no column 'label'")],
    ids=["file", "column"],
)
def test_an_unusable_dataset_is_told_before_anything_is_downloaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    def download(*arguments: object) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr("demo.assets.provide", download)
    file = tmp_path / "own.csv"
    if text:
        file.write_text(text)
    assert main(["run", "--home", str(tmp_path / "home"), "--dataset", str(file)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "home" / "models").exists()


def test_a_missing_command_is_called_what_help_calls_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    error = capsys.readouterr().err
    assert "usage: python -m demo [-h] COMMAND ..." in error
    assert "the following arguments are required: COMMAND" in error
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    assert "COMMAND" in told
    assert "``" not in told


def test_two_demos_do_not_share_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        assert main(["run", "--home", str(tmp_path)]) == 1
    assert "Another demo is running" in capsys.readouterr().err


def test_a_directory_with_files_of_somebody_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine.txt").write_text("mine")
    assert main(["run", "--home", str(tmp_path)]) == 1
    assert "holds files that are not the demo's" in capsys.readouterr().err
    assert (tmp_path / "logs" / "mine.txt").read_text() == "mine"
