"""A download into the local layout goes on where the last process left it, and one process at a time does it."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.oci import _files
from airflow_provider_kitops.oci import layout as layouts
from airflow_provider_kitops.oci.content import Readable, Reopened, VerifyingReader, read
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import DigestMismatch, Interrupted, RegistryUnavailable, StorageError
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.target import Reader
from tests.artifacts import LAYER, put_artifact

DATA = os.urandom(3_000_000)
BLOB = Descriptor.of(LAYER, DATA)


class Line:
    """Where the blob comes from: a line that breaks after so many bytes.

    :param begins: the offsets that were asked for.
    """

    name = "far/away"

    def __init__(self, cut: int | None = None, data: bytes = DATA) -> None:
        self.cut = cut
        self.data = data
        self.begins: list[int] = []

    def fetch(self, descriptor: Descriptor) -> Reader:
        return VerifyingReader(self.fetch_from(descriptor, 0), descriptor, self.name)

    def fetch_from(self, descriptor: Descriptor, offset: int) -> Readable:
        self.begins.append(offset)
        return _Cut(self.data, offset, self.cut)


class _Cut(io.BytesIO):
    def __init__(self, data: bytes, offset: int, cut: int | None) -> None:
        super().__init__(data[:cut] if cut is not None else data)
        self.seek(offset)
        self._broken = cut is not None

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if not found and self._broken:
            raise RegistryUnavailable("The line broke.")
        return found


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(layouts, "_WORTH_RESUMING", 1_000_000)
    return Layout(tmp_path / "layout", "demo/model")


def take(layout: Layout, line: Line) -> None:
    layout.push(BLOB, Reopened(line, BLOB))  # type: ignore[arg-type]


def parts(layout: Layout) -> list[Path]:
    return list((layout.path / ".ingest").glob("*.part"))


def test_the_next_try_begins_where_the_last_one_ended(layout: Layout) -> None:
    with pytest.raises(RegistryUnavailable):
        take(layout, Line(cut=2_000_000))
    assert not layout.exists(BLOB)
    line = Line()
    take(Layout(layout.path.parents[1], "demo/model"), line)
    assert line.begins == [2_000_000]
    assert read(layout, BLOB, limit=len(DATA)) == DATA
    assert parts(layout) == []


def test_whoever_is_killed_at_the_end_leaves_what_the_next_can_write_to(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    put_artifact(layout, b"there are files here")
    with monkeypatch.context() as patched:
        patched.setattr(_files.os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            take(layout, Line())
    [part] = parts(layout)
    assert part.stat().st_mode & 0o200
    line = Line()
    take(layout, line)
    assert line.begins == [len(DATA)]
    assert layout._blob(BLOB.digest).stat().st_mode & 0o777 == 0o444


def test_a_full_disk_gets_its_room_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files, "write_all", full)
    with pytest.raises(StorageError, match="full"):
        take(layout, Line())
    assert parts(layout) == []


def test_a_copy_counts_what_was_there_already(layout: Layout, tmp_path: Path) -> None:
    class Far:
        """A layout that is a registry for all that the copy can see."""

        def __getattr__(self, name: str) -> Any:
            return getattr(near, name)

        def fetch_from(self, descriptor: Descriptor, offset: int) -> Readable:
            return Line().fetch_from(descriptor, offset)

    near = Layout(tmp_path / "source", "demo/model")
    manifest = put_artifact(near, DATA, tag="v1")
    with pytest.raises(RegistryUnavailable):
        take(layout, Line(cut=2_000_000))
    result = copy(Far(), "v1", layout, "v1")  # type: ignore[arg-type]
    assert (result.copied, result.skipped) == (manifest.size + len(DATA) - 2_000_000 + len(b'{"layers": 1}'), 2_000_000)


def test_what_was_left_damaged_is_fetched_anew_by_itself(layout: Layout) -> None:
    with pytest.raises(RegistryUnavailable):
        take(layout, Line(cut=2_000_000))
    [part] = parts(layout)
    with part.open("r+b") as file:
        file.write(b"\0" * 4096)  # as a file system may leave it that lost its power
    line = Line()
    take(layout, line)
    assert line.begins == [2_000_000, 0]
    assert read(layout, BLOB, limit=len(DATA)) == DATA


def test_a_remainder_that_is_too_long_counts_for_nothing(layout: Layout) -> None:
    with pytest.raises(RegistryUnavailable):
        take(layout, Line(cut=2_000_000))
    with parts(layout)[0].open("ab") as file:
        file.truncate(5_000_000)
    line = Line()
    take(layout, line)
    assert line.begins == [0]


def test_wrong_bytes_are_an_error_and_leave_nothing_to_go_on_with(layout: Layout) -> None:
    with pytest.raises(DigestMismatch):
        take(layout, Line(data=DATA[:-1] + b"?"))
    assert parts(layout) == []
    with pytest.raises(DigestMismatch):
        take(layout, Line(data=DATA + b"?"))
    take(layout, Line())
    assert read(layout, BLOB, limit=len(DATA)) == DATA


def test_two_at_once_fetch_it_once(layout: Layout) -> None:
    lines = [Line(), Line()]
    threads = [threading.Thread(target=take, args=[layout, line]) for line in lines]
    holder = _files.Partial(layout.path / ".ingest", layout._blob(BLOB.digest), threading.Event())
    with holder:
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert lines[0].begins == lines[1].begins == []
    for thread in threads:
        thread.join(10)
    assert sorted(line.begins for line in lines) == [[], [0]]
    assert read(layout, BLOB, limit=len(DATA)) == DATA


def test_the_wait_for_another_process_can_be_ended(layout: Layout) -> None:
    with _files.Partial(layout.path / ".ingest", layout._blob(BLOB.digest), threading.Event()):
        threading.Timer(0.3, layout.interrupt).start()
        with pytest.raises(Interrupted):
            take(layout, Line())


def test_what_was_broken_off_is_kept_for_a_day(layout: Layout) -> None:
    with pytest.raises(RegistryUnavailable):
        take(layout, Line(cut=2_000_000))
    [part] = parts(layout)
    os.utime(part, (time.time() - 23 * 3600,) * 2)
    _files.sweep(part.parent)
    assert part.exists()
    os.utime(part, (time.time() - 25 * 3600,) * 2)
    _files.sweep(part.parent)
    assert not part.exists()


def test_a_full_disk_is_noticed_before_anything_is_sent(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Layout(tmp_path / "source", "demo/model")
    put_artifact(source, DATA, tag="v1")
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage())
    with pytest.raises(StorageError, match=r"3000.* bytes are to be stored, .* has 1000 left.*too full"):
        copy(source, "v1", layout, "v1")
    assert not (layout.path / "index.json").exists()


class _Usage:
    free = 1000


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_somebody_has_put_in_its_place_is_not_written_to(layout: Layout, tmp_path: Path, kind: str) -> None:
    with pytest.raises(RegistryUnavailable):
        take(layout, Line(cut=2_000_000))
    [part] = parts(layout)
    part.unlink()
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    if kind == "link":
        part.symlink_to(precious)
    elif kind == "hard link":
        part.hardlink_to(precious)
    else:
        os.mkfifo(part)
    line = Line()
    take(layout, line)
    assert line.begins == [0]
    assert precious.read_bytes() == b"precious"
    assert read(layout, BLOB, limit=len(DATA)) == DATA


def test_a_download_that_another_user_has_begun_is_left_alone(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegistryUnavailable):
        take(layout, Line(cut=2_000_000))
    [part] = parts(layout)
    opened = os.open

    def refused(path: Path, flags: int, mode: int = 0o777) -> int:
        if Path(path) == part:  # root may open everything
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, mode)

    monkeypatch.setattr(_files.os, "open", refused)
    line = Line()
    take(layout, line)
    assert line.begins == [0]
    assert part.stat().st_size == 2_000_000


def test_who_waited_in_vain_leaves_no_empty_file(layout: Layout) -> None:
    take(layout, Line())
    with _files.Partial(layout.path / ".ingest", layout._blob(BLOB.digest), threading.Event()):
        pass
    assert parts(layout) == []
