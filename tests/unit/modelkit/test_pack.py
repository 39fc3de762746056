"""Packing streams each file once, sends what is new, and leaves nothing behind when it fails."""

from __future__ import annotations

import json
import os
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kitops.modelkit._compression import compressed
from airflow_provider_kitops.modelkit.forms import Compression
from airflow_provider_kitops.modelkit.kitfile import Code, Dataset, Docs, Kitfile, McpServer, Model, ModelPart, Prompt
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.parents import parents_of
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import (
    Conflict,
    InvalidInput,
    InvalidKitfile,
    LimitExceeded,
    NotFound,
    StorageError,
    UnsafePath,
)
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.oci.target import Progress, Source, Target
from tests.memory_target import MemoryTarget
from tests.unit.modelkit.conftest import Write

MODEL = Kitfile(model=Model(name="m", path="w"))


def names(layout: Layout, packed: ModelKit, index: int) -> list[str]:
    import io
    import tarfile

    with layout.fetch(packed.layers[index].descriptor) as reader:
        return tarfile.open(fileobj=io.BytesIO(reader.read())).getnames()


def test_a_file_goes_into_the_most_specific_layer(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1", "w/lora/b": "2", "w/lora-card.md": "3", "model_card.md": "4", "w/docs/c": "5"})
    kitfile = Kitfile(
        model=Model(path="w", parts=(ModelPart(path="w/lora"),)), code=(Code("."),), docs=(Docs("./w/docs/"),)
    )
    packed = pack(context, kitfile, layout)
    assert names(layout, packed, 0) == ["w", "w/a", "w/lora-card.md"]
    assert names(layout, packed, 1) == ["w", "w/lora", "w/lora/b"]
    assert names(layout, packed, 2) == ["model_card.md"]
    assert names(layout, packed, 3) == ["w", "w/docs", "w/docs/c"]


def test_the_kitfile_is_found_or_named(layout: Layout, write: Write, tmp_path: Path) -> None:
    context = write({"w/a": "1", "Kitfile": MODEL.to_yaml(), "other.yaml": "package: {name: other}"})
    assert pack(context, None, layout).kitfile == MODEL
    assert pack(context, Path("other.yaml"), layout).kitfile.package.name == "other"
    assert pack(context, context / "other.yaml", layout).kitfile.package.name == "other"
    with pytest.raises(InvalidInput, match=r"nowhere\.yaml does not exist"):
        pack(context, tmp_path / "nowhere.yaml", layout)


def test_base_models_are_found_in_a_store(write: Write, tmp_path: Path) -> None:
    context = write({"w/a": "1", "adapter/b": "2"})
    with Store(StoreConfig(layout=tmp_path / "store")) as store:
        pack(context, MODEL, store.target("team/base"), "latest")
        child = Kitfile(model=Model(path="team/base:latest", parts=(ModelPart(path="adapter"),)))
        packed = pack(context, child, store.target("team/child"), "v1", parents=parents_of(store))
        unpack(store.target("team/child"), packed.descriptor.digest, tmp_path / "out", parents=parents_of(store))
    assert (tmp_path / "out" / "w" / "a").read_text() == "1"
    assert (tmp_path / "out" / "adapter" / "b").read_text() == "2"


def test_prompts_are_code_layers_with_a_subtype(layout: Layout, write: Write) -> None:
    context = write({"p/system.txt": "be kind", "c.py": "pass"})
    packed = pack(context, Kitfile(code=(Code("c.py"),), prompts=(Prompt("sys", "p"),)), layout, "v1")
    manifest = json.loads(packed.manifest)
    assert manifest["layers"][1]["mediaType"] == "application/vnd.kitops.modelkit.code.v1.tar"
    assert manifest["layers"][1]["annotations"] == {
        "ml.kitops.modelkit.layer-subtype": "prompt",
        "org.cncf.model.filepath": "p",
    }
    assert ModelKit.read(layout, "v1").layers == packed.layers


def test_tags_and_annotations_and_the_time_are_those_asked_for(
    layout: Layout, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = write({"w/a": "1"})
    plain = pack(context, MODEL, layout, "v1,latest")
    assert layout.tags() == ["latest", "v1"]
    assert plain.annotations == {}
    noted = pack(context, MODEL, layout, annotations={"b": "2"}, created=datetime(2026, 1, 2, 3, tzinfo=UTC))
    assert json.loads(noted.manifest)["annotations"] == {
        "b": "2",
        "org.opencontainers.image.created": "2026-01-02T03:00:00Z",
    }
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    dated = pack(context, MODEL, layout)
    assert dated.annotations == {"org.opencontainers.image.created": "1970-01-01T00:00:00Z"}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(InvalidInput, match="SOURCE_DATE_EPOCH"):
        pack(context, MODEL, layout)


def test_an_unchanged_layer_is_not_sent_again(write: Write) -> None:
    target = MemoryTarget()
    context = write({"w/a": b"1" * 5000, "code/b": "2"})
    kitfile = Kitfile(model=Model(path="w"), code=(Code("code"),))
    pack(context, kitfile, target, "v1")
    target.sent.clear()
    (context / "code" / "b").write_text("3")
    steps: list[Progress] = []
    pack(context, kitfile, target, "v2", on_progress=steps.append)
    assert [kind for kind in target.sent if "modelkit.model." in kind] == []
    assert len([kind for kind in target.sent if "modelkit.code." in kind]) == 1
    assert [step.name for step in steps if step.action == "skip"] == ["w"]


def test_a_tag_that_must_not_move_stops_before_the_manifest(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1"})
    first = pack(context, MODEL, layout, "v1")
    (context / "w" / "a").write_text("2")
    with pytest.raises(Conflict):
        pack(context, MODEL, layout, "v1")
    assert layout.resolve("v1") == first.descriptor
    assert [found.digest for found in layout.manifests()] == [first.descriptor.digest]
    assert pack(context, MODEL, layout, "latest").descriptor == layout.resolve("latest")


@pytest.mark.parametrize("change", ["grown", "shrunk", "removed", "link"])
def test_a_file_that_changes_while_it_is_packed_is_an_error(change: str, write: Write, tmp_path: Path) -> None:
    context = write({"w/a": b"1" * 100, "w/z": b"2" * 3_000_000})
    (tmp_path / "secret").write_bytes(b"s" * 3_000_000)

    class Changing(MemoryTarget):
        def push(self, content: Descriptor | str, source: Source) -> Descriptor:
            if callable(source):
                chunks = iter(source())
                next(chunks)
                victim = context / "w" / "z"
                if change == "grown":
                    with victim.open("ab") as file:
                        file.write(b"more")
                elif change == "shrunk":
                    os.truncate(victim, 10)
                else:
                    context.joinpath("w/a").unlink()
                    if change == "link":
                        context.joinpath("w/a").symlink_to(tmp_path / "secret")
                    return super().push(content, source)
                for _ in chunks:
                    pass
            return super().push(content, source)

    target = Changing()
    with pytest.raises(StorageError):
        pack(context, MODEL, target, "v1")
    assert target.tags() == []
    assert target.descriptors == {}


def test_all_missing_and_empty_paths_are_named_at_once(layout: Layout, write: Write) -> None:
    context = write({"a": "1"})
    (context / "empty" / "deeper").mkdir(parents=True)
    kitfile = Kitfile(model=Model(name="m", path="nowhere"), code=(Code("a/b"),), docs=(Docs("empty"),))
    with pytest.raises(InvalidInput) as caught:
        pack(context, kitfile, layout, "v1")
    for part in ("nowhere does not exist", "a/b does not exist", "empty is empty"):
        assert part in str(caught.value)
    assert not layout.path.exists()


def test_a_context_that_does_not_exist_or_is_a_file_is_one_clear_error(layout: Layout, write: Write) -> None:
    context = write({"a": "1"})
    for wrong in (context / "nowhere", context / "a"):
        for kitfile in (MODEL, None):
            with pytest.raises(InvalidInput, match="context"):
                pack(wrong, kitfile, layout)


def test_a_layer_is_compressed_once_unless_the_same_content_is_there(
    layout: Layout, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    def counted(chunks: Iterable[bytes], compression: Compression, learn: Callable[[str], None]) -> Iterator[bytes]:
        runs.append(compression)
        return compressed(chunks, compression, learn)

    monkeypatch.setattr("airflow_provider_kitops.modelkit.pack.compressed", counted)
    first = pack(write({"w": "one"}), MODEL, layout, "v1", compression="gzip")
    second = pack(write({"w": "two"}), MODEL, layout, "v2", compression="gzip")
    assert runs == ["gzip", "gzip"]
    assert pack(write({"w": "two"}), MODEL, layout, "v3", compression="gzip").descriptor == second.descriptor
    assert runs == ["gzip"] * 3
    assert first.descriptor != second.descriptor


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named_before_anything_is_sent(write: Write) -> None:
    target = MemoryTarget()
    context = write({"w/a": "1", "w/b": "2"})
    (context / "w" / "b").chmod(0)
    with pytest.raises(StorageError, match=r"w/b.*Permission denied"):
        pack(context, MODEL, target, "v1")
    assert target.sent == []


def test_no_permission_is_named_before_anything_is_sent(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    target = MemoryTarget()
    context = write({"w/a": "1", "w/b": "2"})
    (context / "w/b").chmod(0o600)  # another user's, say
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("w/b") and real(path, mode))
    with pytest.raises(StorageError, match=r"w/b.*Permission denied"):
        pack(context, MODEL, target, "v1")
    assert target.sent == []


@pytest.mark.parametrize("name", ["C:\\x", "\\x", "a\\..\\x"])
def test_a_name_that_leads_elsewhere_on_windows_is_refused_before_it_is_packed(
    name: str, layout: Layout, write: Write
) -> None:
    context = write({name: "1"})
    with pytest.raises(UnsafePath, match="Windows"):
        pack(context, Kitfile(model=Model(path=".")), layout, "v1")
    assert layout.tags() == []


def test_a_full_disk_is_one_clear_error_and_leaves_no_tag(
    layout: Layout, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = write({"w/a": b"1" * 3_000_000})
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 100_000:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        pack(context, MODEL, layout, "v1")
    monkeypatch.undo()
    assert layout.tags() == []
    assert [path for path in layout.path.rglob("*") if path.is_file() and path.stat().st_size > 1000] == []
    assert pack(context, MODEL, layout, "v1").size > 3_000_000


def test_links_and_special_files_are_left_out_with_a_warning(
    layout: Layout, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    context = write({"w/a": "1"})
    (context / "w" / "link").symlink_to("a")
    (context / "w" / "linked").symlink_to(context)
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(context / "w")
        listening.bind("s")
        packed = pack(context, MODEL, layout)
    assert names(layout, packed, 0) == ["w", "w/a"]
    assert "3 symbolic link(s) or special file(s)" in caplog.text


def test_a_layer_of_links_only_is_an_error(layout: Layout, write: Write) -> None:
    context = write({"blobs/a": "1"})
    (context / "w").mkdir()
    (context / "w" / "model.bin").symlink_to("../blobs/a")
    with pytest.raises(InvalidInput, match=r"only symbolic links.*w/model\.bin"):
        pack(context, MODEL, layout)
    (context / "through").symlink_to("blobs")
    with pytest.raises(InvalidInput, match="through is a symbolic link"):
        pack(context, Kitfile(model=Model(path="through/a")), layout)


def test_a_name_that_is_not_utf8_is_refused(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1"})
    (context / "w" / os.fsdecode(b"\xff.bin")).write_text("2")
    with pytest.raises(UnsafePath, match="not UTF-8"):
        pack(context, MODEL, layout)


def test_a_name_too_many_levels_deep_is_refused(layout: Layout, write: Write) -> None:
    context = write({"w/" + "d/" * 127 + "a": "1"})
    with pytest.raises(UnsafePath, match="128 levels deep"):
        pack(context, MODEL, layout)


def test_a_name_with_two_dots_is_refused_with_the_ways_out(layout: Layout, write: Write) -> None:
    with pytest.raises(UnsafePath, match=r"w/b\.\.c holds '\.\.'.*--skip-two-dots, skip_two_dots=True"):
        pack(write({"w/b..c": "1"}), MODEL, layout)


def test_ignored_names_with_two_dots_are_no_error(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1", "w/b..c": "2", ".kitignore": "**/*..*\n"})
    assert names(layout, pack(context, MODEL, layout), 0) == ["w", "w/a"]


def test_a_wholly_ignored_layer_is_kept_empty_with_a_warning(
    layout: Layout, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    context = write({"w/a": "1", ".kitignore": "w\n"})
    assert names(layout, pack(context, MODEL, layout), 0) == []
    assert "ignored" in caplog.text


def test_a_kitfile_that_breaks_a_rule_or_needs_more_than_is_there_is_refused(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1", "s.mcpb": "2"})
    for kitfile in (
        Kitfile(model=Model(path="../w")),
        Kitfile(model=Model(path="w", parameters={"a": object()})),
    ):
        with pytest.raises(InvalidKitfile):
            pack(context, kitfile, layout)


def test_one_path_in_two_sections_is_refused_though_kit_packs_it(layout: Layout, write: Write) -> None:
    context = write({"a": "1", "s.mcpb": "2"})
    for kitfile in (
        Kitfile(code=(Code("a"),), prompts=(Prompt("p", "a"),)),
        Kitfile(prompts=(Prompt("p", "a"), Prompt("q", "a"))),
        Kitfile(mcp_servers=(McpServer("s", "s.mcpb"), McpServer("t", "s.mcpb"))),
        Kitfile(datasets=(Dataset("d", "d", remote_path="a/b:v"),), prompts=(Prompt("p", "d/p.md"),)),
    ):
        with pytest.raises(InvalidKitfile, match=r"same path|lies inside"):
            pack(context, kitfile, layout)


def test_a_file_whose_name_is_a_reference_is_warned_about(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    pack(write({"llama3:8b.gguf": "1"}), Kitfile(model=Model(path="llama3:8b.gguf")), None)
    assert "Rename it" in caplog.text


def test_layers_are_packed_side_by_side_up_to_the_limit(write: Write) -> None:
    context = write({f"d{n}/a": "1" for n in range(4)})
    together = threading.Barrier(2, timeout=10)
    inside: list[int] = []
    most: list[int] = []

    class Slow(MemoryTarget):
        def push(self, content: Descriptor | str, source: Source) -> Descriptor:
            if callable(source):
                inside.append(1)
                most.append(len(inside))
                together.wait()
                inside.pop()
            return super().push(content, source)

    pack(context, Kitfile(code=tuple(Code(f"d{n}") for n in range(4))), Slow(), concurrency=2)
    assert max(most) == 2


def test_the_first_failure_is_what_is_raised(write: Write) -> None:
    context = write({"d0/a": b"0" * 50_000_000, "d1/a": "1"})
    failed = threading.Event()

    class Failing(MemoryTarget):
        def push(self, content: Descriptor | str, source: Source) -> Descriptor:
            if callable(source):
                chunks = iter(source())
                if len(next(chunks)) < 10_000:
                    failed.set()
                    raise StorageError("the second layer failed")
                failed.wait(10)
                while True:
                    threading.Event().wait(0.01)
                    next(chunks)
            return super().push(content, source)

    target = Failing()
    with pytest.raises(StorageError, match="second layer failed"):
        pack(context, Kitfile(code=(Code("d0"), Code("d1"))), target, "v1")
    assert target.sent == []


def test_memory_stays_flat(layout: Layout, write: Write) -> None:
    context = write({"w/a": b""})
    with (context / "w" / "a").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    tracemalloc.start()
    try:
        pack(context, MODEL, layout, "v1")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


def test_an_upload_that_broke_can_read_the_layer_again(write: Write) -> None:
    context = write({"w/a": b"1" * 3_000_000})

    class Breaking(MemoryTarget):
        def push(self, content: Descriptor | str, source: Source) -> Descriptor:
            if callable(source):
                next(iter(source()))
            return super().push(content, source)

    whole = pack(context, MODEL, MemoryTarget())
    assert pack(context, MODEL, Breaking()).descriptor == whole.descriptor
    zipped = pack(context, MODEL, MemoryTarget(), compression="gzip")
    assert pack(context, MODEL, Breaking(), compression="gzip").layers == zipped.layers


def test_files_of_the_base_model_are_not_packed_again(layout: Layout, write: Write) -> None:
    context = write({"w/a": "1", "adapter/b": "2", "README.md": "3"})
    base = Kitfile(model=Model(path="w"), docs=(Docs("README.md"),))
    pack(context, base, layout, "base")
    child = Kitfile(model=Model(path="demo/model:base", parts=(ModelPart(path="adapter"),)), code=(Code("."),))
    packed = pack(context, child, layout, parents=lambda reference: (layout, reference.rpartition(":")[2]))
    assert [layer.path for layer in packed.layers] == ["adapter", "."]
    assert names(layout, packed, 1) == ["README.md"]
    assert packed.kitfile.base_reference == "demo/model:base"


def test_a_base_model_that_does_not_exist_or_goes_in_a_circle_is_an_error(layout: Layout, write: Write) -> None:
    context = write({"a": "1"})

    def resolver(reference: str) -> tuple[Target, str]:
        return layout, reference.rpartition(":")[2]

    def based_on(tag: str) -> Kitfile:
        return Kitfile(model=Model(path=f"demo/model:{tag}", parts=(ModelPart(path="a"),)))

    with pytest.raises(NotFound):
        pack(context, based_on("nowhere"), layout, parents=resolver)
    pack(context, based_on("two"), layout, "one")
    pack(context, based_on("one"), layout, "two")
    with pytest.raises(InvalidInput, match=r"circle: demo/model:one → demo/model:two"):
        pack(context, based_on("one"), layout, parents=resolver)
    for number in range(12):
        pack(context, based_on(f"c{number + 1}"), layout, f"c{number}")
    with pytest.raises(LimitExceeded, match="More than 10"):
        pack(context, based_on("c0"), layout, parents=resolver)


@pytest.fixture(autouse=True)
def _stay_here() -> Iterator[None]:
    here = Path.cwd()
    yield
    os.chdir(here)


def test_a_disk_without_room_is_noticed_before_a_byte_is_packed(
    layout: Layout, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=r"2560 bytes are to be packed.* has 1000 left"):
        pack(write({"w/a": "1"}), MODEL, layout, "v1")
    assert not layout.path.exists()
