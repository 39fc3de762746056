from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput, KitopsError, WorkloadFailed
from airflow_provider_kitops.workload.program import Directories, run_program, write_metrics


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("inputs", "config", "output", "checkpoints"):
        monkeypatch.setenv(f"KITOPS_{name.upper()}", str(tmp_path / name))
    (tmp_path / "inputs").mkdir()
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGTERM, handler)


def ends_with(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def program(directories: Directories, arguments: Sequence[str]) -> None:
        raise error

    code = run_program(program, [])
    return code, capsys.readouterr().err.splitlines()[-1]


def test_success_is_zero(tmp_path: Path) -> None:
    def program(directories: Directories, arguments: Sequence[str]) -> None:
        assert arguments == ["--seed", "1"]
        (directories.output / "result").write_text("whole")
        assert os.environ["HF_HUB_OFFLINE"] == "1"

    assert run_program(program, ["--seed", "1"]) == 0
    assert (tmp_path / "output" / "result").exists()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidInput("No such\ncolumn.", hint="Try text."), 2, "error: No such column. Try text."),
        (KitopsError("Broken."), 1, "error: Broken."),
        (ZeroDivisionError("division"), 1, "error: ZeroDivisionError: division"),
        (FileNotFoundError(2, "No such file", "a.txt"), 1, "error: No such file: a.txt."),
        (MemoryError(), 1, "error: Out of memory. Use a smaller batch_size or max_length."),
        (KeyboardInterrupt(), 130, "error: Interrupted."),
    ],
)
def test_every_failure_ends_with_one_line_and_not_zero(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(error, capsys) == (code, line)


def test_missing_inputs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "inputs").rmdir()
    code, line = ends_with(AssertionError("not reached"), capsys)
    assert code == 2
    assert line.startswith(f"error: There is no inputs directory {tmp_path / 'inputs'}.")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_no_number_is_a_failure_and_is_not_written(tmp_path: Path, value: float) -> None:
    directories = Directories.from_environment()
    with pytest.raises(WorkloadFailed, match=f"no numbers: eval_loss is {value}"):
        write_metrics({"steps": 3, "eval_loss": value, "task": "causal-lm"}, directories)
    assert not (directories.output / "metrics.json").exists()
    write_metrics({"steps": 3, "eval_loss": 0.5}, directories)
    assert (directories.output / "metrics.json").read_text() == '{\n  "steps": 3,\n  "eval_loss": 0.5\n}\n'
