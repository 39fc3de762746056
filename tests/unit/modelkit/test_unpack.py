"""Unpacking shows nothing that is not verified, never leaves its directory, and is whole or not at all."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.modelkit import _staging, _untar
from airflow_provider_kitops.modelkit.kitfile import Code, Dataset, Docs, Kitfile, Model, ModelPart, Package
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import Limits, unpack
from airflow_provider_kitops.oci.descriptor import digest_of
from airflow_provider_kitops.oci.errors import (
    Conflict,
    DigestMismatch,
    InvalidInput,
    KitopsError,
    LimitExceeded,
    NotFound,
    StorageError,
    UnsafePath,
    VerificationFailed,
)
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.target import Target
from tests.memory_target import MemoryTarget
from tests.unit.modelkit.conftest import Write, push_kit, tar_of

MODEL = Kitfile(package=Package(name="demo"), model=Model(name="m", path="w"))


def tree(root: Path) -> dict[str, bytes | None]:
    """Files with their content, directories with ``None``, links with where they lead."""
    found: dict[str, bytes | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = (
            str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
    return found


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "place" / "out"


def test_layers_and_kitfile_appear_with_their_modes(layout: Layout, write: Write, out: Path) -> None:
    context = write({"w/run.sh": "x", "w/sub/b": "y"})
    (context / "w" / "run.sh").chmod(0o4755)
    (context / "w" / "sub").chmod(0o500)
    pack(context, MODEL, layout, "v1")
    read = unpack(layout, "v1", out)
    assert read.kitfile == MODEL
    assert tree(out) == {
        "Kitfile": MODEL.to_yaml().encode(),
        "w": None,
        "w/run.sh": b"x",
        "w/sub": None,
        "w/sub/b": b"y",
    }
    assert (out / "w" / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (out / "w" / "sub").stat().st_mode & 0o7777 == 0o700
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "evil",
    [
        [("../up", b"x")],
        [("/abs", b"x")],
        [("a/../../up", b"x")],
        [("a/..", b"x")],
        [member("l", tarfile.SYMTYPE, linkname="/etc"), ("l/passwd", b"x")],
        [member("l", tarfile.LNKTYPE, linkname="/etc/passwd")],
        [member("d", tarfile.CHRTYPE)],
        [member("d", tarfile.BLKTYPE)],
        [member("d", tarfile.FIFOTYPE)],
        [("w/" + "x" * 5000, b"x")],
        [("x" * 10_000, b"x")],
        [(".", b"x")],
        [("C:\\Windows\\x", b"x")],
        [("c:/x", b"x")],
        [("\\\\server\\share", b"x")],
        [("a\\..\\..\\x", b"x")],
        [("w/\udcff", b"x")],
    ],
    ids=lambda evil: str(getattr(evil[0], "type", evil[0]))[:30],
)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_layer_that_would_leave_the_directory_is_refused(
    evil: list[Any], compression: str, layout: Layout, out: Path
) -> None:
    blob = tar_of(("good", b"1"), *evil)
    stored = gzip.compress(blob) if compression == "gzip" else blob
    kit = push_kit(layout, MODEL, [stored], compression=compression, diff_ids=[digest_of(blob)])
    with pytest.raises(UnsafePath):
        unpack(layout, kit.digest, out)
    assert not out.parent.exists()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"not a tar at all" * 100,
        tar_of(("a", b"x" * 5000))[:3000],
        tar_of(("a", b"1"), ("a", b"2")),
        tar_of(("a", b"1"), ("a/b", b"2")),
        tar_of(("a/b", b"1"), ("a", b"2")),
    ],
    ids=["empty", "noise", "cut", "twice", "file-then-directory", "directory-then-file"],
)
def test_a_layer_that_is_no_sound_tar_is_refused(damaged: bytes, layout: Layout, out: Path) -> None:
    kit = push_kit(layout, MODEL, [damaged])
    with pytest.raises(VerificationFailed):
        unpack(layout, kit.digest, out)
    assert not out.parent.exists()


def test_bytes_that_are_not_those_of_the_digest_never_appear(write: Write, out: Path) -> None:
    target = MemoryTarget()
    packed = pack(write({"w/a": "secure"}), MODEL, target, "v1")
    layer = packed.layers[0].descriptor
    target.replace(layer.digest, target.content[layer.digest].replace(b"secure", b"hacked"))
    with pytest.raises(DigestMismatch):
        unpack(target, "v1", out)
    assert not out.parent.exists()


@pytest.mark.parametrize("what", ["diff", "cut", "noise"])
def test_a_compressed_layer_must_unpack_to_its_diff_id(what: str, layout: Layout, out: Path) -> None:
    blob = tar_of(("w/a", b"1" * 100_000))
    stored = gzip.compress(blob)
    diff_id = digest_of(b"other" if what == "diff" else blob)
    stored = {"diff": stored, "cut": stored[:-9], "noise": b"\x1f\x8b" + b"?" * 100}[what]
    kit = push_kit(layout, MODEL, [stored], compression="gzip", diff_ids=[diff_id])
    with pytest.raises(VerificationFailed):
        unpack(layout, kit.digest, out)
    assert not out.parent.exists()


def test_gzip_in_several_members_is_read(layout: Layout, out: Path) -> None:
    blob = tar_of(("w/a", os.urandom(3_000_000)))
    stored = b"".join(gzip.compress(blob[at : at + 700_000]) for at in range(0, len(blob), 700_000))
    kit = push_kit(layout, MODEL, [stored], compression="gzip", diff_ids=[digest_of(blob)])
    unpack(layout, kit.digest, out)
    assert digest_of(tar_of(("w/a", (out / "w" / "a").read_bytes()))) == digest_of(blob)


def test_config_and_manifest_must_agree(layout: Layout, out: Path) -> None:
    blob = tar_of(("w/a", b"1"))
    kit = push_kit(layout, MODEL, [blob], diff_ids=[digest_of(b"other")])
    with pytest.raises(VerificationFailed, match="diffId differs"):
        unpack(layout, kit.digest, out)


def test_limits_hold(layout: Layout, write: Write, out: Path) -> None:
    pack(write({"w/a": b"0" * 10_000_000, "w/b": "1"}), MODEL, layout, "v1", compression="gzip")
    with pytest.raises(LimitExceeded, match="5000000 bytes"):
        unpack(layout, "v1", out, limits=Limits(bytes=5_000_000))
    with pytest.raises(LimitExceeded, match="2 files"):
        unpack(layout, "v1", out, limits=Limits(files=2))
    assert not out.parent.exists()
    unpack(layout, "v1", out, limits=Limits(files=3, bytes=11_000_000))


def test_an_extended_header_may_not_fill_the_memory(layout: Layout, out: Path) -> None:
    kit = push_kit(layout, MODEL, [tar_of(member("a", pax_headers={"comment": "x" * 1_000_000}))])
    with pytest.raises(LimitExceeded, match="extended header"):
        unpack(layout, kit.digest, out)


def extended(*records: tuple[str, str]) -> bytes:
    """An extended header of its own, as it stands before an entry."""
    info = member("a", pax_headers=dict(records))
    return info.tobuf(tarfile.PAX_FORMAT)[:-512]


def test_many_extended_headers_before_one_file_may_not_fill_the_memory(layout: Layout, out: Path) -> None:
    headers = b"".join(extended((f"key{number}", "x" * 1000)) for number in range(100))
    kit = push_kit(layout, MODEL, [headers + tar_of(("a", b"1"))])
    with pytest.raises(LimitExceeded, match="extended headers of"):
        unpack(layout, kit.digest, out)
    assert not out.parent.exists()
    few = extended(("comment", "x" * 40_000))
    kit = push_kit(layout, MODEL, [few + tar_of(("a", b"1"))[:1024] + few + tar_of(("b", b"2"))])
    unpack(layout, kit.digest, out)
    assert (out / "b").read_bytes() == b"2"


def test_extended_headers_keep_only_what_is_used() -> None:
    assert _untar._records(b"11 key0=ab\n10 path=x\n", "test") == {"path": b"x"}


def test_directories_that_only_names_imply_count(layout: Layout, out: Path) -> None:
    kit = push_kit(layout, MODEL, [tar_of(*[(f"{number}/a/b", b"1") for number in range(10)])])
    with pytest.raises(LimitExceeded, match="more than 29 files"):
        unpack(layout, kit.digest, out, limits=Limits(files=29))
    kit = push_kit(layout, MODEL, [tar_of(member("a/b/c", tarfile.DIRTYPE), ("a/b/c/d", b"1"))])
    with pytest.raises(LimitExceeded, match="more than 3 files"):
        unpack(layout, kit.digest, out, limits=Limits(files=3))
    assert not out.parent.exists()
    unpack(layout, kit.digest, out, limits=Limits(files=4))


def test_a_name_too_many_levels_deep_is_refused(layout: Layout, out: Path) -> None:
    kit = push_kit(layout, MODEL, [tar_of(("d/" * 128 + "a", b"1"))])
    with pytest.raises(LimitExceeded, match="129 levels deep"):
        unpack(layout, kit.digest, out)
    assert not out.parent.exists()
    kit = push_kit(layout, MODEL, [tar_of(("d/" * 127 + "a", b"1"))])
    unpack(layout, kit.digest, out)


@pytest.mark.parametrize("character", ["x", "\U0001f40d"])
def test_long_names_may_not_fill_the_memory(layout: Layout, out: Path, character: str) -> None:
    """A few bytes of an archive can say a name of 4 KiB, and each level of it is a directory with a name of its own."""
    below = "/".join([character * (200 // len(character.encode()))] * 19)
    kit = push_kit(layout, MODEL, [tar_of(*[(f"{number}/{below}", b"1") for number in range(40)])])
    with pytest.raises(LimitExceeded, match="names of the files in the ModelKit need more than 1000000 bytes"):
        unpack(layout, kit.digest, out, limits=Limits(names=1_000_000))
    assert not out.parent.exists()
    unpack(layout, kit.digest, out)


def test_a_name_that_a_modelkit_and_its_base_share_counts_once(layout: Layout, out: Path) -> None:
    layout.tag(push_kit(layout, MODEL, [tar_of(("w/" + "a" * 200, b"base"))]), "base")
    based = Kitfile(model=Model(path="demo/model:base", parts=(ModelPart(path="w/a"),)))
    child = push_kit(layout, based, [tar_of(("w/" + "a" * 200, b"child"))])
    unpack(layout, child.digest, out, parents=resolver(layout), overwrite=True, limits=Limits(names=500))


def test_existing_files_stop_it_or_are_replaced_or_kept(layout: Layout, write: Write, out: Path) -> None:
    pack(write({"w/a": "new", "w/b": "new"}), MODEL, layout, "v1")
    (out / "w").mkdir(parents=True)
    (out / "w" / "b").write_text("old")
    (out / "own").write_text("mine")
    before = tree(out)
    with pytest.raises(Conflict, match=r"w/b already exists"):
        unpack(layout, "v1", out)
    assert tree(out) == before
    unpack(layout, "v1", out, ignore_existing=True)
    assert tree(out) == before | {"w/a": b"new", "Kitfile": MODEL.to_yaml().encode()}
    unpack(layout, "v1", out, overwrite=True)
    assert tree(out)["w/b"] == b"new"
    assert tree(out)["own"] == b"mine"
    with pytest.raises(InvalidInput, match="not both"):
        unpack(layout, "v1", out, overwrite=True, ignore_existing=True)


def test_an_existing_kitfile_must_be_the_same(layout: Layout, write: Write, out: Path) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    out.mkdir(parents=True)
    (out / "Kitfile").write_bytes(MODEL.to_yaml().encode())
    unpack(layout, "v1", out)
    (out / "Kitfile").write_text("manifestVersion: 1.0.0\n")
    with pytest.raises(Conflict, match="Kitfile already exists"):
        unpack(layout, "v1", out, ignore_existing=True)
    unpack(layout, "v1", out, overwrite=True)
    assert (out / "Kitfile").read_bytes() == MODEL.to_yaml().encode()


def test_links_that_are_there_already_are_not_followed(layout: Layout, write: Write, out: Path, tmp_path: Path) -> None:
    pack(write({"w/sub/a": "new"}), MODEL, layout, "v1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for make in (lambda: (out / "w").symlink_to(elsewhere), lambda: _linked(out / "w", elsewhere)):
        out.mkdir(parents=True)
        make()
        for mode in ({}, {"overwrite": True}, {"ignore_existing": True}):
            with pytest.raises(UnsafePath, match="symbolic link"):
                unpack(layout, "v1", out, **mode)
        assert list(elsewhere.iterdir()) == []
        _clear(out)
    (out / "w" / "sub").mkdir(parents=True)
    (out / "w" / "sub" / "a").symlink_to(elsewhere / "leaf")
    with pytest.raises(Conflict):
        unpack(layout, "v1", out, overwrite=True)
    assert list(elsewhere.iterdir()) == []


def _linked(place: Path, elsewhere: Path) -> None:
    place.mkdir()
    (place / "sub").symlink_to(elsewhere)


def _clear(directory: Path) -> None:
    subprocess.run(["rm", "-rf", directory], check=True)


def test_a_directory_in_place_of_a_file_and_the_reverse_are_conflicts(layout: Layout, write: Write, out: Path) -> None:
    pack(write({"w/a": "new"}), MODEL, layout, "v1")
    (out / "w" / "a").mkdir(parents=True)
    with pytest.raises(Conflict, match="not a regular file"):
        unpack(layout, "v1", out, overwrite=True)
    _clear(out)
    out.mkdir(parents=True)
    (out / "w").write_text("file")
    with pytest.raises(Conflict, match="not a directory"):
        unpack(layout, "v1", out, overwrite=True)
    with pytest.raises(Conflict, match="not a directory"):
        unpack(layout, "v1", out / "w")


@pytest.mark.parametrize(
    ("filters", "files"),
    [
        ([], {"Kitfile", "w/a", "lora/b", "src/c", "data/d", "README.md"}),
        (["kitfile"], {"Kitfile"}),
        (["model"], {"w/a", "lora/b"}),
        (["model:m"], {"w/a"}),
        (["model:adapter"], {"lora/b"}),
        (["model:lora"], {"lora/b"}),
        (["datasets:train", "docs"], {"data/d", "README.md"}),
        (["docs:README.md"], set()),
        (["docs:./README.md"], {"README.md"}),
        (["code,docs"], {"src/c", "README.md"}),
        (["code:src"], {"src/c"}),
    ],
)
def test_filters_choose_as_kit_does(
    filters: list[str], files: set[str], layout: Layout, write: Write, out: Path
) -> None:
    context = write({"w/a": "1", "lora/b": "2", "src/c": "3", "data/d": "4", "README.md": "5"})
    kitfile = Kitfile(
        model=Model(name="m", path="w", parts=(ModelPart(name="adapter", path="lora"),)),
        code=(Code("src"),),
        datasets=(Dataset(name="train", path="data"),),
        docs=(Docs("./README.md"),),
    )
    pack(context, kitfile, layout, "v1")
    unpack(layout, "v1", out, filters)
    assert {name for name, content in tree(out).items() if content is not None} == files


def test_a_filter_that_nothing_passes_is_warned_about(
    layout: Layout, write: Write, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pack(write({"w/a": "1"}), MODEL, layout, "v1")
    unpack(layout, "v1", out, ["datasets"])
    assert "passes the filters datasets. It has model m" in caplog.text


@pytest.mark.parametrize("wrong", ["model:tokeniser", "model:m,typo", "code,docs:m", "datasets:d"])
def test_a_name_that_nothing_has_is_an_error_that_lists_what_there_is(
    wrong: str, layout: Layout, write: Write, out: Path
) -> None:
    context = write({"w": "1", "config.json": "{}"})
    kitfile = Kitfile(model=Model(name="m", path="w", parts=(ModelPart(path="config.json"),)))
    pack(context, kitfile, layout, "v1")
    with pytest.raises(NotFound, match=r"name or path '.*'\. It has model m, model config\.json\.$"):
        unpack(layout, "v1", out, [wrong])
    assert not out.exists()


@pytest.mark.parametrize("wrong", ["", "models", "model:a:b", "model,", "dataset"])
def test_a_malformed_filter_is_an_error(wrong: str, layout: Layout, write: Write, out: Path) -> None:
    pack(write({"w/a": "1"}), MODEL, layout, "v1")
    with pytest.raises(InvalidInput, match="filter"):
        unpack(layout, "v1", out, [wrong])
    assert not out.exists()


def _fail_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the disk refuse the move into place number ``count``."""
    real = os.rename
    calls = []

    def rename(*args: Any, **kwargs: Any) -> None:
        if kwargs.get("dst_dir_fd") is not None:
            calls.append(1)
            if len(calls) == count:
                raise OSError(28, "No space left on device")
        real(*args, **kwargs)

    monkeypatch.setattr(_staging.os, "rename", rename)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_failure_while_moving_into_place_puts_everything_back(
    count: int, layout: Layout, write: Write, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(write({"w/a": "new", "w/b": "new", "w/c/d": "new"}), MODEL, layout, "v1")
    (out / "w").mkdir(parents=True)
    (out / "w" / "a").write_text("old")
    (out / "Kitfile").write_text("old")
    before = tree(out)
    _fail_at(monkeypatch, count)
    with pytest.raises(StorageError, match="No space left"):
        unpack(layout, "v1", out, overwrite=True)
    assert tree(out) == before
    monkeypatch.undo()
    unpack(layout, "v1", out, overwrite=True)
    assert tree(out)["w/a"] == b"new"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_killed_while_moving_into_place_is_cleaned_up_after(
    count: int, moment: str, layout: Layout, write: Write, out: Path, tmp_path: Path
) -> None:
    pack(write({"w/a": "new", "w/b": "new", "w/c/d": "new"}), MODEL, layout, "v1")
    (out / "w").mkdir(parents=True)
    (out / "w" / "a").write_text("old")
    before = tree(out)
    program = f"""
        import os, signal
        from pathlib import Path
        from airflow_provider_kitops.modelkit.unpack import unpack
        from airflow_provider_kitops.oci.layout import Layout
        real, calls = os.rename, []
        def rename(*args, **kwargs):
            calls.append(1)
            if len(calls) == {count} and {moment!r} == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            real(*args, **kwargs)
            if len(calls) == {count}:
                os.kill(os.getpid(), signal.SIGKILL)
        # Path.rename calls it too; only moves into and out of the place are meant.
        os.rename = lambda *a, **k: rename(*a, **k) if k else real(*a)
        unpack(Layout(Path({str(layout.path.parent.parent)!r}), "demo/model"), "v1", Path({str(out)!r}), overwrite=True)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, cwd=Path.cwd())
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(Conflict):
        unpack(layout, "v1", out)
    assert tree(out) == before
    unpack(layout, "v1", out, overwrite=True)
    assert tree(out) == {
        "Kitfile": MODEL.to_yaml().encode(),
        "w": None,
        "w/a": b"new",
        "w/b": b"new",
        "w/c": None,
        "w/c/d": b"new",
    }


def test_a_full_disk_while_writing_leaves_nothing(
    layout: Layout, write: Write, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(write({"w/a": b"1" * 2_000_000}), MODEL, layout, "v1")

    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match=r"w/a.*No space left.*disk is full"):
        unpack(layout, "v1", out)
    assert not out.parent.exists()


@pytest.mark.parametrize("refusing", ["lseek", "ftruncate"])
def test_a_hole_beyond_what_the_file_system_takes_leaves_nothing(
    refusing: str, layout: Layout, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 3 * 1024 * 1024
    holes = {"GNU.sparse.size": str(size), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,0"}
    kit = push_kit(layout, MODEL, [tar_of(member("w/a", pax_headers=holes))])

    def refuse(*_: object) -> int:
        raise OSError(errno.EFBIG, "File too large")

    with monkeypatch.context() as patched:
        patched.setattr(os, refusing, refuse)
        with pytest.raises(StorageError, match=r"w/a: File too large"):
            unpack(layout, kit.digest, out)
    assert not out.parent.exists()
    unpack(layout, kit.digest, out)
    assert (out / "w/a").stat().st_size == size


def test_a_disk_too_small_is_noticed_before_the_download(
    layout: Layout, write: Write, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(write({"w/a": "1"}), MODEL, layout, "v1")
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="has 10 left"):
        unpack(layout, "v1", out)
    assert not out.parent.exists()


def resolver(layout: Layout) -> Any:
    def resolve(reference: str) -> tuple[Target, str]:
        return layout, reference.rpartition(":")[2]

    return resolve


def test_the_base_model_is_unpacked_first_and_only_its_model(layout: Layout, write: Write, out: Path) -> None:
    context = write({"w/a": "1", "tok/t": "2", "README.md": "3", "adapter/b": "4"})
    grand = Kitfile(model=Model(name="g", path="w"), docs=(Docs("README.md"),))
    middle = Kitfile(model=Model(name="m", path="demo/model:grand", parts=(ModelPart("tok", "tok"),)))
    child = Kitfile(model=Model(name="c", path="demo/model:middle", parts=(ModelPart("lora", "adapter"),)))
    for tag, kitfile in (("grand", grand), ("middle", middle), ("child", child)):
        pack(context, kitfile, layout, tag, parents=resolver(layout))
    unpack(layout, "child", out, parents=resolver(layout))
    assert {name for name, content in tree(out).items() if content is not None} == {
        "Kitfile",
        "w/a",
        "tok/t",
        "adapter/b",
    }
    assert (out / "Kitfile").read_bytes() == child.to_yaml().encode()
    for filters, files in ((["model:lora"], {"adapter/b"}), (["model:tok,g"], {"tok/t", "w/a"}), (["docs"], set())):
        _clear(out)
        unpack(layout, "child", out, filters, parents=resolver(layout))
        assert {name for name, content in tree(out).items() if content is not None} == files
    _clear(out)
    unpack(layout, "child", out)
    assert {name for name, content in tree(out).items() if content is not None} == {"Kitfile", "adapter/b"}


def test_a_file_that_child_and_base_share_is_decided_by_the_mode(layout: Layout, write: Write, out: Path) -> None:
    push_base = push_kit(layout, MODEL, [tar_of(("w/a", b"base"))])
    layout.tag(push_base, "base")
    child = push_kit(
        layout,
        Kitfile(model=Model(path="demo/model:base", parts=(ModelPart(path="w/a"),))),
        [tar_of(("w/a", b"child"))],
    )
    with pytest.raises(Conflict, match=r"w/a is in the ModelKit and in the one"):
        unpack(layout, child.digest, out, parents=resolver(layout))
    unpack(layout, child.digest, out, parents=resolver(layout), overwrite=True)
    assert (out / "w" / "a").read_bytes() == b"child"
    _clear(out)
    unpack(layout, child.digest, out, parents=resolver(layout), ignore_existing=True)
    assert (out / "w" / "a").read_bytes() == b"base"


def test_base_models_in_a_circle_or_without_end_are_refused(layout: Layout, write: Write, out: Path) -> None:
    context = write({"a": "1"})

    def based_on(tag: str) -> Kitfile:
        return Kitfile(model=Model(path=f"demo/model:{tag}", parts=(ModelPart(path="a"),)))

    pack(context, based_on("latest"), layout, "latest")
    with pytest.raises(InvalidInput, match="circle"):
        unpack(layout, "latest", out, parents=resolver(layout))
    for number in range(12):
        pack(context, based_on(f"c{number + 1}"), layout, f"c{number}")
    with pytest.raises(LimitExceeded, match="More than 10"):
        unpack(layout, "c0", out, parents=resolver(layout))
    with pytest.raises(NotFound):
        unpack(layout, "c11", out, parents=resolver(layout))
    assert not out.exists()


def test_a_compression_that_nobody_knows_is_named(layout: Layout, out: Path) -> None:
    kit = push_kit(layout, MODEL, [b"brotli"], compression="br")
    with pytest.raises(InvalidInput, match=r"tar\+br"):
        unpack(layout, kit.digest, out)


def test_names_in_old_layers_are_relative_to_the_parent_of_their_path(layout: Layout, out: Path) -> None:
    """Kit before 0.5 wrote neither digests into the config nor whole paths into the layers."""
    from airflow_provider_kitops.modelkit.manifest import CONFIG_TYPE, manifest_bytes

    kitfile = Kitfile(model=Model(path="models/w"))
    layer = layout.push("application/vnd.kitops.modelkit.model.v1.tar", tar_of(("w/a", b"1")))
    config = layout.push(CONFIG_TYPE, kitfile.to_config_json())
    kit = layout.push("application/vnd.oci.image.manifest.v1+json", manifest_bytes(config, [layer], {}))
    unpack(layout, kit.digest, out, ["model"])
    assert tree(out) == {"models": None, "models/w": None, "models/w/a": b"1"}


def test_what_is_not_there_or_no_modelkit_is_said(layout: Layout, out: Path) -> None:
    with pytest.raises(NotFound):
        unpack(layout, "v9", out)
    config = layout.push("application/vnd.oci.image.config.v1+json", b"{}")
    from airflow_provider_kitops.modelkit.manifest import manifest_bytes

    image = layout.push("application/vnd.oci.image.manifest.v1+json", manifest_bytes(config, [], {}))
    with pytest.raises(InvalidInput, match="not a ModelKit"):
        unpack(layout, image.digest, out)
    assert issubclass(InvalidInput, KitopsError)
    assert not out.parent.exists()
