"""What the runner refuses before or after a program runs, and what of the environment it gets."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput, StorageError, WorkloadFailed
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.workload.runner import check, run_local, work
from airflow_provider_kitops.workload.spec import WorkloadSpec

SPEC = WorkloadSpec.of(inputs={}, command=["true"], output={"reference": "demo/model", "kitfile": {}})


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 1e300])
def test_a_timeout_is_above_zero_and_finite(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(InvalidInput, match="timeout is"):
        work(SPEC, tmp_path, timeout=timeout)


def test_a_program_gets_no_secrets_of_airflow_or_of_this_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_back = {
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW_CONN_KITOPS_DEFAULT",
        "MODELKIT_KEY_PASSWORD",
        "KITOPS_TOKEN",
        "JUDGE_API_KEY",
    }
    for name in (*kept_back, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "inherited")
    program = "import json, os; json.dump(dict(os.environ), open(os.environ['KITOPS_OUTPUT'] + '/env.json', 'w'))"
    spec = WorkloadSpec.of(
        inputs={},
        command=["python", "-c", program],
        output={"reference": "demo/model", "kitfile": {}},
        env={"MODELKIT_LAYOUT": "/asked/for"},
    )
    work(spec, tmp_path)
    found = json.loads((tmp_path / "out" / "env.json").read_text())
    assert not kept_back & set(found)
    assert (found["CUDA_VISIBLE_DEVICES"], found["MODELKIT_LAYOUT"]) == ("inherited", "/asked/for")


@pytest.mark.parametrize(("line", "told"), [("it broke", "it broke."), ("It broke.", "It broke."), ("Why?", "Why?")])
def test_what_a_program_said_last_is_a_sentence_before_the_next_one(tmp_path: Path, line: str, told: str) -> None:
    spec = WorkloadSpec.of(
        inputs={},
        command=["python", "-c", f"raise SystemExit({line!r})"],
        output={"reference": "demo/model", "kitfile": {}},
    )
    with pytest.raises(WorkloadFailed) as caught:
        work(spec, tmp_path)
    assert f"Its last line: {told} Its whole output is in " in str(caught.value)


def test_what_the_caller_s_own_hook_raises_is_not_blamed_on_the_log(tmp_path: Path) -> None:
    def show(line: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        work(SPEC.model_copy(update={"command": ("echo", "hello")}), tmp_path, on_line=show)


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state" / "log.txt").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"Cannot write .*log\.txt: Is a directory"):
        work(SPEC, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk_under_the_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "log.txt").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"Cannot write .*log\.txt: No space left"):
        work(SPEC.model_copy(update={"command": ("echo", "hello")}), tmp_path)


def test_a_command_that_no_system_takes_is_said_to_be_too_large(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"command": ("echo", "x" * 16 * 1024 * 1024)})
    with pytest.raises(InvalidInput, match=r"^Cannot start echo x+…: command and environment are larger") as caught:
        work(spec, tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_a_kitfile_that_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="a Kitfile must be made of plain JSON values"):
        WorkloadSpec.of(inputs={}, command=["true"], output={"reference": "demo/model", "kitfile": {"a": value}})


@pytest.mark.parametrize(
    "kitfile", [{}, {"package": {"name": "model"}, "docs": []}, {"model": {"name": "m", "path": "demo/base:v1"}}]
)
def test_a_kitfile_that_names_nothing_of_the_output_is_refused_before_the_work(
    tmp_path: Path, kitfile: dict[str, object]
) -> None:
    spec = WorkloadSpec.of(
        inputs={},
        command=["true"],
        output={"reference": "demo/model", "kitfile": {"manifestVersion": "1.0.0"} | kitfile},
    )
    with Store(StoreConfig(layout=tmp_path)) as store, pytest.raises(InvalidInput, match="names nothing that the prog"):
        check(spec, store)


def test_files_that_the_kitfile_does_not_name_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = """
import os, pathlib
out = pathlib.Path(os.environ['KITOPS_OUTPUT'])
for name in ('model/adapter/weights.bin', 'model/notes.txt', 'model/run/1.log', 'report.txt', 'trace.tmp', 'link/a'):
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(name)
(out / '.kitignore').write_text('*.tmp')
(out / 'metrics.json').write_text('{}')
"""
    kitfile = {"manifestVersion": "1.0.0", "model": {"path": "./model/adapter/"}, "docs": [{"path": "report.txt"}]}
    spec = WorkloadSpec.of(
        inputs={}, command=["python", "-c", program], output={"reference": "demo/model:v1", "kitfile": kitfile}
    )
    with Store(StoreConfig(layout=tmp_path / "layout")) as store:
        run_local(spec, store, tmp_path / "scratch")
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.endswith("so these are not published: 'link', 'model/notes.txt', 'model/run'.")
