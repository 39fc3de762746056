"""What a disk refuses is told in one way, wherever it happens."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.disk import storage_errors, write_file
from airflow_provider_kitops.oci.errors import StorageError


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "permission"), (errno.EMFILE, "ulimit"), (errno.EIO, "")],
)
def test_a_refusal_names_what_was_tried_on_what_and_what_to_do(number: int, advice: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors("write", "/some/file"):
        raise OSError(number, os.strerror(number), "/some/file")
    assert caught.value.message == f"Cannot write /some/file: {os.strerror(number)}."
    assert advice in caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_that_is_none_of_the_disk_passes() -> None:
    with pytest.raises(ValueError, match="x"), storage_errors("write", "/some/file"):
        raise ValueError("x")


def test_a_file_is_written_whole_with_the_permissions_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path: Path, monkeypatch, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path if step == "replace" else os, step, refuse)
    with pytest.raises(StorageError, match=r"Cannot write .*file: No space left"):
        write_file(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_written_is_made_durable_before_and_after_it_has_its_name(tmp_path: Path, monkeypatch) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: steps.append(str(Path(f"/proc/self/fd/{handle}").readlink())) or sync(handle)
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: steps.append("rename") or rename(self, to))
    write_file(tmp_path / "file", b"x")
    assert steps[0].endswith(".new")
    assert steps[1:] == ["rename", str(tmp_path)]
