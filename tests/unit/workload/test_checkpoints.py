from __future__ import annotations

from pathlib import Path

from airflow_provider_kitops.workload.finetune.checkpoints import Checkpoints


def write(directory: Path, step: int) -> None:
    (directory / f"checkpoint-{step}").mkdir()
    (directory / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"state")


def test_only_whole_checkpoints_are_gone_on_from(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "run")
    for step in (5, 10, 15):
        write(checkpoints.directory, step)
    checkpoints.mark(5)
    checkpoints.mark(10)
    again = Checkpoints(tmp_path / "c", "run")
    assert again.last() == str(tmp_path / "c" / "checkpoint-10")
    assert not (tmp_path / "c" / "checkpoint-15").exists()


def test_checkpoints_are_ordered_by_number(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "run")
    for step in (9, 100):
        write(tmp_path, step)
        checkpoints.mark(step)
    assert checkpoints.last() == str(tmp_path / "checkpoint-100")


def test_checkpoints_of_another_run_are_removed(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path / "c", "run")
    write(first.directory, 5)
    first.mark(5)
    assert Checkpoints(tmp_path / "c", "another").last() is None
    assert not (tmp_path / "c" / "checkpoint-5").exists()


def test_nothing_is_left_when_the_run_is_over(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "c", "run").remove()
    assert not (tmp_path / "c").exists()
