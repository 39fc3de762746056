"""What lies where a killed unpacking would have left it is trusted no further than this user's own doing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.modelkit._staging import Stage
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.errors import Conflict, StorageError, UnsafePath
from airflow_provider_kitops.oci.layout import Layout
from tests.memory_target import MemoryTarget
from tests.unit.modelkit.conftest import Write, push_kit, tar_of
from tests.unit.modelkit.test_unpack import MODEL, tree

MARK = ".modelkit-unpack-"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", "demo/model")


def plant(root: Path, journal: str, mode: int = 0o700) -> Path:
    """A stage as a hostile ModelKit, or another user, would leave it: old/0 is to replace what the journal names."""
    for name in ("old", "tree"):
        (root / name).mkdir(parents=True)
    (root / "lock").touch()
    (root / "old" / "0").write_text("attack")
    (root / "journal").write_text(journal)
    root.chmod(mode)
    return root


@pytest.mark.parametrize("name", [f"{MARK}x/journal", f"w/.out{MARK}x/lock", f"w/{MARK}", f"a/b{MARK}c"])
def test_no_modelkit_may_bring_a_stage_of_its_own(layout: Layout, tmp_path: Path, name: str) -> None:
    kit = push_kit(layout, MODEL, [tar_of((name, b"x"))])
    with pytest.raises(UnsafePath, match="only unpacking itself"):
        unpack(layout, kit.digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_packing_stops_at_what_a_killed_unpacking_left(layout: Layout, write: Write) -> None:
    context = write({"w/a": "x", f"w/{MARK}abc/lock": ""})
    with pytest.raises(UnsafePath, match="no ModelKit may carry"):
        pack(context, MODEL, layout, "v1")


@pytest.mark.parametrize("path", ["../victim", "/etc/x", "", "a/../../victim"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_journal_that_leads_out_of_the_directory_is_left_alone(
    layout: Layout, write: Write, tmp_path: Path, path: str, inside: bool
) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out, victim = tmp_path / "place" / "out", tmp_path / "place" / "victim"
    out.mkdir(parents=True)
    victim.write_text("precious")
    plant(out / f"{MARK}x" if inside else out.parent / f".out{MARK}x", json.dumps({"moves": [[path, True, 1, 1]]}))
    unpack(layout, "v1", out)
    assert victim.read_text() == "precious"
    assert (out / "w" / "a").read_text() == "new"


@pytest.mark.parametrize("journal", ["{", "[]", '{"moves": 5}', '{"moves": [[1]]}', '{"moves":' + "[" * 100_000])
def test_a_journal_that_is_none_does_not_stand_in_the_way(
    layout: Layout, write: Write, tmp_path: Path, journal: str
) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out = tmp_path / "out"
    out.mkdir()
    plant(out / f"{MARK}x", journal)
    unpack(layout, "v1", out)
    assert (out / "w" / "a").read_text() == "new"


@pytest.mark.parametrize("whose", ["open to others", "of another user", "a link"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_stage_that_others_could_have_filled_is_not_touched(
    layout: Layout,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    whose: str,
    inside: bool,
) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out = tmp_path / "place" / "out"
    out.mkdir(parents=True)
    (out / "kept").write_text("mine")
    root = out / f"{MARK}x" if inside else out.parent / f".out{MARK}x"
    real = tmp_path / "elsewhere" if whose == "a link" else root
    status = (out / "kept").stat()
    plant(
        real,
        json.dumps({"moves": [["kept", True, status.st_ino, status.st_mtime_ns]]}),
        mode=0o755 if whose == "open to others" else 0o700,
    )
    if whose == "a link":
        root.symlink_to(real)
    if whose == "of another user":
        user = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: user)
    unpack(layout, "v1", out)
    assert (out / "kept").read_text() == "mine"
    assert (root / "old" / "0").read_text() == "attack"
    assert caplog.text.count("left alone (1 in all)") == 1


def test_a_stage_in_a_directory_that_passes_on_its_group_is_cleaned_up(
    layout: Layout, write: Write, tmp_path: Path
) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out = tmp_path / "out"
    out.mkdir()
    root = plant(out / f"{MARK}x", json.dumps({"moves": []}), mode=0o2700)
    unpack(layout, "v1", out)
    assert not root.exists()


def test_what_cannot_be_taken_back_is_kept_and_not_tried_again(
    layout: Layout, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out = tmp_path / "out"
    out.mkdir()
    root = plant(out / f"{MARK}x", json.dumps({"moves": [["w/a", True, 1, 1]]}))
    unpack(layout, "v1", out)
    unpack(layout, "v1", out, overwrite=True)
    assert (out / "w" / "a").read_text() == "new"
    assert (root / "old" / "0").read_text() == "attack"
    assert caplog.text.count("left alone") == 2


def test_a_stage_whose_lock_cannot_be_opened_is_kept(layout: Layout, write: Write, tmp_path: Path) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out = tmp_path / "out"
    out.mkdir()
    root = plant(out / f"{MARK}x", json.dumps({"moves": []}))
    (root / "lock").unlink()
    (root / "lock").symlink_to("nowhere")
    an_hour_ago = time.time() - 3600
    os.utime(root, (an_hour_ago, an_hour_ago))
    unpack(layout, "v1", out)
    assert (root / "old" / "0").read_text() == "attack"


def test_a_process_killed_while_it_cleans_up_leaves_a_stage_that_is_found(
    layout: Layout, write: Write, tmp_path: Path
) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out = tmp_path / "out"
    out.mkdir()
    program = f"""
        import os, shutil, signal
        from pathlib import Path
        from airflow_provider_kitops.modelkit.unpack import unpack
        from airflow_provider_kitops.oci.layout import Layout
        real = os.rmdir
        def rmdir(path, **more):
            real(path, **more)
            os.kill(os.getpid(), signal.SIGKILL)
        os.rmdir = rmdir
        unpack(Layout(Path({str(tmp_path / "layout")!r}), "demo/model"), "v1", Path({str(out)!r}))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, cwd=Path.cwd())
    assert killed.returncode == -signal.SIGKILL
    assert [(root / "lock").exists() for root in out.glob(f"{MARK}*")] == [True]
    unpack(layout, "v1", out, overwrite=True)
    assert not [*out.glob(f"{MARK}*")]


def test_a_stage_that_never_got_its_lock_goes_after_a_minute(layout: Layout, write: Write, tmp_path: Path) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out = tmp_path / "out"
    young, old = out / f"{MARK}young", out / f"{MARK}old"
    for root in (young, old):
        (root / "tree").mkdir(parents=True)
        root.chmod(0o700)
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    unpack(layout, "v1", out)
    assert young.exists()
    assert not old.exists()


class Faults:
    """Lets the disk refuse some of the calls that move or remove a file, counted from 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: Callable[[int], bool]) -> None:
        self.count = 0
        self.refused = refused
        for name in ("rename", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            self.count += 1
            if self.refused(self.count):
                raise OSError(errno.EIO, "Input/output error")
            real(*args, **kwargs)

        return call


@pytest.fixture
def kit(write: Write) -> MemoryTarget:
    target = MemoryTarget()
    pack(write({"w/a": "new", "w/b": "new", "w/c/d": "new"}), MODEL, target, "v1")
    return target


def occupied(out: Path) -> dict[str, bytes | None]:
    (out / "w").mkdir(parents=True)
    (out / "w" / "a").write_text("old")
    (out / "Kitfile").write_text("old")
    return tree(out)


NEW = {
    "Kitfile": MODEL.to_yaml().encode(),
    "w": None,
    "w/a": b"new",
    "w/b": b"new",
    "w/c": None,
    "w/c/d": b"new",
}
# A whole unpacking makes 20 such calls: 8 to 14 put the tree in its place. Taking back makes up to 7 more.
CALLS = range(1, 22)
MOVES = range(8, 15)
TAKING_BACK = 8


def outcome(kit: MemoryTarget, out: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[[int], bool]) -> None:
    """Unpack while the disk refuses, then once more when it works again: all is old, or all is new."""
    before = occupied(out)
    said = ""
    with monkeypatch.context() as patched:
        faults = Faults(patched, refused)
        try:
            unpack(kit, "v1", out, overwrite=True)
        except StorageError as error:
            said = str(error)
        count = faults.count
    with pytest.raises(Conflict):  # it recovers, and then finds files in its way
        unpack(kit, "v1", out)
    after = {name: content for name, content in tree(out).items() if MARK not in name}
    assert after in (before, NEW), f"a mixture after {count} calls: {sorted(after)}; {said}"
    assert said or after == NEW
    # A stage that could not be removed whole has lost its lock, and is removed when it is a minute old.
    assert not [path for path in out.glob(f"{MARK}*/*") if path.name in ("lock", "journal")]


@pytest.mark.parametrize("first", CALLS)
def test_a_disk_that_refuses_any_call_and_all_after_it_leaves_a_tree_that_recovers(
    kit: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    outcome(kit, tmp_path / "out", monkeypatch, lambda count: count >= first)


@pytest.mark.parametrize("first", MOVES)
def test_a_disk_that_refuses_a_move_and_then_any_call_leaves_a_tree_that_recovers(
    kit: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    for second in range(first, first + TAKING_BACK):
        outcome(kit, tmp_path / str(second) / "out", monkeypatch, lambda count, two=(first, second): count in two)


def test_what_cannot_be_taken_back_is_named_with_both_causes_and_put_back_by_the_next(
    kit: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    before = occupied(out)
    real = os.rename

    def rename(source: Any, target: Any, **more: Any) -> None:
        if more and str(target).endswith("/old/1"):
            raise OSError(errno.ENOSPC, "No space left on device")
        if more and str(source).endswith("/old/0"):
            raise OSError(errno.EIO, "Input/output error")
        real(source, target, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", rename)
        with pytest.raises(StorageError, match=r"No space left on device; then .*Input/output error") as caught:
            unpack(kit, "v1", out, overwrite=True)
        [root] = out.glob(f"{MARK}*")
        assert str(root / "old") in str(caught.value)
        assert (root / "old" / "0").read_text() == "old"
        # While the disk still refuses, nothing is unpacked over the mixture, and nothing is given up.
        with pytest.raises(StorageError, match=r"ended half-way.*Input/output error"):
            unpack(kit, "v1", out, overwrite=True)
        assert (root / "journal").exists()
    with pytest.raises(Conflict):
        unpack(kit, "v1", out)
    assert tree(out) == before
    unpack(kit, "v1", out, overwrite=True)
    assert tree(out) == NEW


def test_what_was_unpacked_since_a_kill_is_not_taken_back(kit: MemoryTarget, tmp_path: Path) -> None:
    """A is killed half-way; B, which had begun before, ends well; C finds what A left."""
    out = tmp_path / "out"
    before = occupied(out)
    begun = Stage(out, overwrite=True, ignore_existing=False)
    with begun:
        with begun.add_file("w/b", 0o644, (0, 0)) as descriptor:
            assert descriptor is not None
            os.write(descriptor, b"B")
        killed = os.fork()
        if not killed:
            real = os.rename

            def rename(source: Any, target: Any, **more: Any) -> None:
                real(source, target, **more)
                if source == "Kitfile" or str(target) == "b":
                    os.kill(os.getpid(), signal.SIGKILL)

            os.rename = rename  # type: ignore[assignment]
            unpack(kit, "v1", out, overwrite=True)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(killed, 0)[1]) == signal.SIGKILL
        begun.commit()
    with pytest.raises(Conflict):
        unpack(kit, "v1", out)
    assert tree(out) == {**before, "w/b": b"B"}


def test_a_file_that_somebody_put_in_place_of_a_moved_one_stays(kit: MemoryTarget, tmp_path: Path) -> None:
    out = tmp_path / "out"
    occupied(out)
    killed = os.fork()
    if not killed:
        real = os.unlink

        def unlink(path: Any, **more: Any) -> None:
            if str(path).endswith("journal"):
                os.kill(os.getpid(), signal.SIGKILL)
            real(path, **more)

        os.unlink = unlink  # type: ignore[assignment]
        unpack(kit, "v1", out, overwrite=True)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(killed, 0)[1]) == signal.SIGKILL
    (out / "w" / "a").unlink()
    (out / "w" / "a").write_text("mine")
    with pytest.raises(Conflict):
        unpack(kit, "v1", out)
    assert (out / "w" / "a").read_text() == "mine"
    assert (out / "Kitfile").read_text() == "old"


def test_of_two_that_unpack_at_once_into_one_directory_one_finds_the_other_in_its_way(
    write: Write, tmp_path: Path
) -> None:
    targets = []
    for name in ("one", "two"):
        target = MemoryTarget()
        pack(write({f"w/{number}": name for number in range(200)}), MODEL, target, "v1")
        targets.append(target)
    for turn in range(5):
        out = tmp_path / str(turn)
        out.mkdir()
        with ThreadPoolExecutor(2) as pool:
            ended = [pool.submit(unpack, target, "v1", out) for target in targets]
        failures = [future.exception() for future in ended]
        assert [type(failure) for failure in failures if failure] == [Conflict]
        assert len({path.read_text() for path in (out / "w").iterdir()}) == 1


def test_what_a_killed_process_left_beside_a_new_directory_goes(kit: MemoryTarget, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    killed = os.fork()
    if killed == 0:
        with Stage(out, overwrite=False, ignore_existing=False) as stage:
            (stage.tree / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".out")] != []
    with Stage(out, overwrite=False, ignore_existing=False) as living:  # is at work, and stays
        unpack(kit, "v1", out)
        assert {path.name for path in out.parent.iterdir()} == {living.root.name, "out"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_stage_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("airflow_provider_kitops.modelkit._staging.fcntl.flock", refused)
    with pytest.raises(StorageError), Stage(tmp_path / "out", overwrite=False, ignore_existing=False):
        pass
    assert list(tmp_path.iterdir()) == []
