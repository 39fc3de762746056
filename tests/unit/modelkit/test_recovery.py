"""What lies where a killed unpacking would have left it is trusted no further than this user's own doing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.errors import UnsafePath
from airflow_provider_kitops.oci.layout import Layout
from tests.unit.modelkit.conftest import Write, push_kit, tar_of
from tests.unit.modelkit.test_unpack import MODEL

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


@pytest.mark.parametrize("moves", [[["../victim", True]], [["/etc/x", True]], [["", True]], [["a/../../victim", True]]])
@pytest.mark.parametrize("inside", [True, False])
def test_a_journal_that_leads_out_of_the_directory_is_left_alone(
    layout: Layout, write: Write, tmp_path: Path, moves: list[list[object]], inside: bool
) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out, victim = tmp_path / "place" / "out", tmp_path / "place" / "victim"
    out.mkdir(parents=True)
    victim.write_text("precious")
    plant(out / f"{MARK}x" if inside else out.parent / f".out{MARK}x", json.dumps({"moves": moves}))
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
    plant(real, json.dumps({"moves": [["kept", True]]}), mode=0o755 if whose == "open to others" else 0o700)
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
    root = plant(out / f"{MARK}x", json.dumps({"moves": [["w/a", True]]}))
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
