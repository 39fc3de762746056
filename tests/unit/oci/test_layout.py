"""The local layout."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from filelock import FileLock

from airflow_provider_kitops.oci import _files
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import (
    ContentVanished,
    DigestMismatch,
    Interrupted,
    InvalidInput,
    InvalidReference,
    LimitExceeded,
    NotFound,
    StorageError,
    VerificationFailed,
)
from airflow_provider_kitops.oci.layout import Layout
from tests.artifacts import CONFIG, LAYER, manifest_bytes, put_artifact, put_index, put_referrer


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", "demo/model")


def files(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.path.rglob("*") if path.is_file() and path.name != ".lock")


def index(layout: Layout) -> list[dict]:
    return json.loads((layout.path / "index.json").read_bytes())["manifests"]


def test_it_is_a_plain_oci_image_layout(layout: Layout) -> None:
    manifest = put_artifact(layout, b"weights", tag="v1")
    layout.tag(manifest, "latest")
    assert json.loads((layout.path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert [(entry["digest"], entry["annotations"]) for entry in index(layout)] == [
        (manifest.digest, {"org.opencontainers.image.ref.name": tag}) for tag in ("v1", "latest")
    ]
    for entry in (manifest, Descriptor.of(LAYER, b"weights")):
        assert (layout.path / "blobs/sha256" / entry.digest[7:]).stat().st_size == entry.size


def test_an_untagged_manifest_is_listed_too(layout: Layout) -> None:
    manifest = put_artifact(layout, b"weights")
    assert [entry["digest"] for entry in index(layout)] == [manifest.digest]
    assert layout.tags() == []
    layout.tag(manifest, "v1")
    layout.untag("v1")
    assert [entry["digest"] for entry in index(layout)] == [manifest.digest]
    assert layout.resolve(manifest.digest) == manifest
    with pytest.raises(NotFound):
        layout.untag("v1")


def test_a_tag_moves_and_what_it_named_stays(layout: Layout) -> None:
    old, new = put_artifact(layout, b"old", tag="latest"), put_artifact(layout, b"new")
    layout.tag(new, "latest")
    assert layout.resolve("latest") == new
    assert layout.exists(old)
    assert layout.manifests() == [old, new] or layout.manifests() == [new, old]


def test_a_repository_that_does_not_exist_is_empty_and_reading_makes_nothing(layout: Layout, tmp_path: Path) -> None:
    assert layout.tags() == []
    assert layout.referrers(Descriptor.of(MANIFEST, b"x")) == []
    for reference in ("v1", Descriptor.of(MANIFEST, b"x").digest):
        with pytest.raises(NotFound, match="no repository demo/model"):
            layout.resolve(reference)
    with pytest.raises(NotFound):
        layout.fetch(Descriptor.of(LAYER, b"x"))
    with pytest.raises(NotFound):
        layout.untag("v1")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tag_names_those_that_exist(layout: Layout) -> None:
    put_artifact(layout, b"x", tag="v1")
    with pytest.raises(NotFound, match=r"no v2 in demo/model.*tags v1"):
        layout.resolve("v2")


@pytest.mark.parametrize(
    "name", ["blobs", "demo/blobs/x", "index.json", "a/oci-layout", "", "../up", "A", "a:tag", "x.example/a"]
)
def test_names_that_cannot_be_a_directory_of_a_layout_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidReference):
        Layout(tmp_path, name)


def test_repositories_may_lie_below_each_other(tmp_path: Path) -> None:
    outer, inner = Layout(tmp_path, "demo"), Layout(tmp_path, "demo/model")
    put_artifact(outer, b"outer", tag="v1")
    put_artifact(inner, b"inner", tag="v1")
    assert outer.resolve("v1") != inner.resolve("v1")


def test_bytes_that_differ_from_their_descriptor_leave_nothing(layout: Layout) -> None:
    put_artifact(layout, b"weights")
    before = files(layout)
    for claimed in (Descriptor.of(LAYER, b"other"), Descriptor(LAYER, Descriptor.of(LAYER, b"bytes").digest, 4)):
        with pytest.raises(DigestMismatch):
            layout.push(claimed, lambda: iter([b"by", b"tes"]))
    with pytest.raises(DigestMismatch):
        layout.push(Descriptor.of(MANIFEST, b"{}"), b"{ }")
    assert files(layout) == before


def test_an_error_of_the_source_leaves_nothing(layout: Layout) -> None:
    def broken():
        yield b"half"
        raise RuntimeError("The other half is missing.")

    put_artifact(layout, b"weights")
    before = files(layout)
    with pytest.raises(RuntimeError, match="other half"):
        layout.push(LAYER, broken)
    assert files(layout) == before


def test_a_damaged_blob_never_reads_to_its_end(layout: Layout) -> None:
    layer = layout.push(LAYER, b"weights")
    path = layout.path / "blobs/sha256" / layer.digest[7:]
    for damaged in (b"weightz", b"weight", b"weights+"):
        path.chmod(0o644)
        path.write_bytes(damaged)
        with layout.fetch(layer) as reader, pytest.raises(DigestMismatch):
            reader.read()


def test_a_truncated_blob_is_written_anew_by_the_next_push(layout: Layout) -> None:
    layer = layout.push(LAYER, b"weights")
    path = layout.path / "blobs/sha256" / layer.digest[7:]
    path.chmod(0o644)
    path.write_bytes(b"wei")
    assert not layout.exists(layer)
    layout.push(layer, b"weights")
    assert read(layout, layer) == b"weights"


def damage(layout: Layout, descriptor: Descriptor) -> None:
    path = layout.path / "blobs/sha256" / descriptor.digest[7:]
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def test_a_damaged_blob_of_the_same_size_is_written_anew_by_the_next_push(layout: Layout) -> None:
    layer = Descriptor.of(LAYER, b"weights")
    for content in (layer, LAYER):
        for source in (b"weights", lambda: iter([b"weights"])):
            layout.push(layer, b"weights")
            damage(layout, layer)
            assert layout.push(content, source) == layer
            assert read(layout, layer) == b"weights"
    large = os.urandom(4 * 1024 * 1024 + 1)
    layer = layout.push(LAYER, large)
    damage(layout, layer)
    layout.push(LAYER, lambda: iter([large]))
    assert read(layout, layer, limit=len(large)) == large


def test_a_damaged_manifest_is_written_anew_by_the_next_push_and_can_be_deleted(layout: Layout) -> None:
    manifest = put_artifact(layout, b"weights", tag="v1")
    data = read(layout, manifest)
    for content in (manifest, MANIFEST):
        damage(layout, manifest)
        assert layout.push(content, data) == manifest
        assert read(layout, manifest) == data
    damage(layout, manifest)
    layout.delete(manifest)
    assert layout.tags() == []


def test_a_copy_writes_damaged_content_anew_and_spreads_none(tmp_path: Path) -> None:
    one, two, three = (Layout(tmp_path, name) for name in ("one", "two", "three"))
    manifest = put_artifact(one, b"weights", tag="v1")
    put_artifact(two, b"weights", tag="v1")
    layer = Descriptor.of(LAYER, b"weights")
    for content in (layer, manifest):
        damage(two, content)
    copy(one, "v1", two, "v1")
    assert read(two, layer) == b"weights"
    read(two, manifest)
    damage(one, layer)
    with pytest.raises(DigestMismatch):
        copy(one, "v1", three, "v1")
    assert not three.exists(layer)


def test_what_is_no_manifest_is_refused(layout: Layout) -> None:
    for data in (b"", b"not json", b"[]", b'{"layers": 3}', b'{"layers": [{"digest": "sha256:zz"}]}'):
        with pytest.raises(InvalidInput):
            layout.push(MANIFEST, data)
    assert not layout.path.exists()


def test_a_manifest_whose_blobs_are_missing_is_not_listed(layout: Layout) -> None:
    missing = Descriptor.of(LAYER, b"never pushed")
    with pytest.raises(NotFound, match=missing.digest):
        layout.push(MANIFEST, manifest_bytes(layout.push(CONFIG, b"{}"), [missing]))
    assert layout.manifests() == []


def test_content_that_another_task_deletes_before_the_manifest_comes_is_a_passing_failure(layout: Layout) -> None:
    other = Layout(layout.path.parents[1], "demo/model")
    shared = put_artifact(other, b"shared", tag="v1")
    config, layer = layout.push(CONFIG, b"{}"), layout.push(Descriptor.of(LAYER, b"shared"), b"shared")
    other.delete(shared)
    with pytest.raises(ContentVanished, match=r"any longer.*try again") as caught:
        layout.push(MANIFEST, manifest_bytes(config, [layer], note="another"))
    assert caught.value.transient
    assert layout.manifests() == []
    put_artifact(layout, b"shared", tag="v1")
    # What this task deletes itself comes back by no retry.
    layout.delete(layer)
    with pytest.raises(NotFound):
        layout.push(MANIFEST, manifest_bytes(config, [layer], note="another"))


def test_delete_frees_what_no_other_manifest_needs(layout: Layout) -> None:
    one = put_artifact(layout, b"shared", b"only one", tag="v1")
    put_artifact(layout, b"shared", b"only two", tag="v2")
    layout.delete(one)
    assert layout.tags() == ["v2"]
    assert not layout.exists(one)
    assert not layout.exists(Descriptor.of(LAYER, b"only one"))
    assert layout.exists(Descriptor.of(LAYER, b"shared"))
    with pytest.raises(NotFound):
        layout.delete(one)


def test_referrers_come_with_type_and_annotations(layout: Layout) -> None:
    model = put_artifact(layout, b"weights", tag="v1")
    note = put_referrer(layout, model, note="first")
    put_referrer(layout, model, "application/vnd.example.other")
    [found] = Layout(layout.path.parents[1], "demo/model").referrers(model, "application/vnd.example.note")
    assert (found, found.artifact_type, dict(found.annotations)) == (
        note,
        "application/vnd.example.note",
        {"note": "first"},
    )
    assert len(layout.referrers(model)) == 2
    layout.delete(note)
    assert len(layout.referrers(model)) == 1


def test_manifests_that_another_tool_listed_only_in_an_index_are_found(layout: Layout) -> None:
    part = put_artifact(layout, b"part")
    put_index(layout, part, tag="all")
    path = layout.path / "index.json"
    value = json.loads(path.read_bytes())
    value["manifests"] = [entry for entry in value["manifests"] if entry["digest"] != part.digest]
    value["annotations"] = {"from": "another tool"}
    path.chmod(0o644)
    path.write_text(json.dumps(value))
    assert layout.resolve(part.digest) == part
    layout.tag(part, "part")
    assert json.loads(path.read_bytes())["annotations"] == {"from": "another tool"}


def test_a_damaged_index_is_reported_and_left_alone(layout: Layout) -> None:
    put_artifact(layout, b"x", tag="v1")
    path = layout.path / "index.json"
    path.chmod(0o644)
    for damage in (
        "",
        "{",
        "[]",
        "{}",
        '{"schemaVersion": 2}',
        '{"schemaVersion": 1, "manifests": []}',
        '{"manifests": []}',
        *(f'{{"schemaVersion": 2, "manifests": {each}}}' for each in ("[1]", '{"a": 1}', "{}", '""', "0", "[null]")),
    ):
        path.write_text(damage)
        with pytest.raises(VerificationFailed, match=r"index\.json.*restore the file"):
            put_artifact(layout, b"y", tag="v2")
        assert path.read_text() == damage
    path.write_text('{"schemaVersion": 2, "manifests": null}')
    assert layout.tags() == []


def test_repositories_of_one_layout_share_blobs_on_disk(tmp_path: Path) -> None:
    one, two = Layout(tmp_path, "one"), Layout(tmp_path, "two")
    put_artifact(one, b"weights" * 1000, tag="v1")
    result = copy(one, "v1", two, "v1")
    layer = Descriptor.of(LAYER, b"weights" * 1000)
    paths = [each.path / "blobs/sha256" / layer.digest[7:] for each in (one, two)]
    assert paths[0].samefile(paths[1])
    assert result.mounted >= layer.size
    one.delete(one.resolve("v1"))
    assert read(two, layer) == b"weights" * 1000


def test_no_permission_is_a_storage_error_that_names_the_path(layout: Layout, monkeypatch) -> None:
    put_artifact(layout, b"x", tag="v1")
    before = files(layout)

    def refuse(path, flags, mode=0o777, **more):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(_files.os, "open", refuse)
    with pytest.raises(StorageError, match=r"Cannot write .*demo/model.*Permission denied.*this permission"):
        layout.push(LAYER, b"new")
    assert files(layout) == before


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(layout: Layout, monkeypatch) -> None:
    put_artifact(layout, b"x", tag="v1")
    before = files(layout)
    monkeypatch.setattr(_files.os, "write", _full_after(2))
    with pytest.raises(StorageError, match=r"No space left on device.*disk is full"):
        layout.push(LAYER, lambda: iter([b"a" * 10] * 5))
    monkeypatch.setattr(_files.os, "write", _full_after(0))
    with pytest.raises(StorageError, match=r"index\.json"):
        layout.untag("v1")
    monkeypatch.undo()
    assert files(layout) == before
    assert layout.tags() == ["v1"]


def _full_after(writes: int):
    real = os.write

    def write(handle: int, data: bytes) -> int:
        nonlocal writes
        if writes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writes -= 1
        return real(handle, data)

    return write


def test_what_a_killed_writer_left_is_swept_and_a_living_writers_file_is_not(layout: Layout) -> None:
    put_artifact(layout, b"x")
    left, fresh = layout.path / ".ingest/left", layout.path / ".ingest/fresh"
    for path in (left, fresh):
        path.write_bytes(b"half")
    with _files.Temporary(layout.path / ".ingest", layout.path) as living:
        living.write(b"half")
        long_ago = time.time() - 3600
        for path in (left, living._path):
            os.utime(path, (long_ago, long_ago))
        Layout(layout.path.parents[1], "demo/model").push(LAYER, b"y")
        assert (left.exists(), fresh.exists(), living._path.exists()) == (False, True, True)


_WRITER = """
import sys
from pathlib import Path
from airflow_provider_kitops.oci.layout import Layout
from tests.artifacts import put_artifact
layout = Layout(Path(sys.argv[1]), "demo/model")
print("ready", flush=True)
for number in range(int(sys.argv[2]), 1_000_000, 10):
    put_artifact(layout, b"%d" % number * 50_000, tag=f"v{number}")
    print(number, flush=True)
"""


def test_writers_killed_at_any_moment_leave_whole_artifacts(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    done = []
    for number in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(chance.uniform(0.02, 0.3))
            writer.send_signal(signal.SIGKILL)
            done += writer.stdout.read().split()
        layout = Layout(tmp_path, "demo/model")
        # All that was reported is there, and all that is listed is whole.
        assert {f"v{each}" for each in done} <= set(layout.tags())
        for manifest in layout.manifests():
            value = json.loads(read(layout, manifest))
            for part in (value["config"], *value["layers"]):
                read(layout, Descriptor.from_json(part), limit=10_000_000)
    assert done
    put_artifact(layout, b"the lock is free", tag="last")


def _put_twenty(root: Path, worker: int) -> None:
    layout = Layout(root, "demo/model")
    for number in range(20):
        put_artifact(layout, b"shared by all", b"%d %d" % (worker, number), tag=f"w{worker}-{number}")


def test_parallel_writers_lose_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(_put_twenty, tmp_path, worker) for worker in range(4)]:
            future.result()
    layout = Layout(tmp_path, "demo/model")
    assert len(layout.tags()) == 80
    assert len({layout.resolve(tag).digest for tag in layout.tags()}) == 80
    assert list((layout.path / ".ingest").iterdir()) == []


def test_a_delete_that_is_killed_leaves_no_manifest_that_lacks_blobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path, "a")
    manifest = put_artifact(layout, b"one", b"two", tag="v1")
    real = Layout._unlink

    def killed_after_one(self: Layout, digest: str) -> None:
        real(self, digest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Layout, "_unlink", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        layout.delete(manifest)
    # Another task may have resolved it before, and tag it now.
    monkeypatch.setattr(Layout, "resolve", lambda self, reference: manifest)
    with pytest.raises(NotFound):
        layout.tag(manifest, "v2")


def test_the_wait_for_the_lock_of_another_process_can_be_ended(layout: Layout) -> None:
    put_artifact(layout, b"layer", tag="v1")
    with FileLock(layout.path / ".lock"):
        threading.Timer(0.3, layout.interrupt).start()
        with pytest.raises(Interrupted):
            Layout.tag(layout, layout.resolve("v1"), "v2")
    layout.resume()
    layout.tag(layout.resolve("v1"), "v2")


def test_what_another_task_has_deleted_before_it_was_tagged_is_worth_another_try(layout: Layout) -> None:
    manifest = put_artifact(layout, b"layer")
    Layout(layout.path.parents[1], "demo/model").delete(manifest)
    with pytest.raises(ContentVanished, match="try again"):
        layout.tag(manifest, "v1")
    with pytest.raises(NotFound):
        Layout(layout.path.parents[1], "demo/model").tag(manifest, "v1")


def test_a_pipe_among_the_temporary_files_keeps_nobody_waiting(layout: Layout) -> None:
    put_artifact(layout, b"layer", tag="v1")
    pipe = layout.path / ".ingest" / ("0" * 32)
    pipe.parent.mkdir(exist_ok=True)
    os.mkfifo(pipe)
    os.utime(pipe, (1, 1))
    put_artifact(Layout(layout.path.parents[1], "demo/model"), b"other", tag="v2")
    assert pipe.exists()


def test_an_index_of_more_than_fits_into_memory_is_refused(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_index(layout, *(put_artifact(layout, bytes([each]) * 10) for each in range(5)), tag="all")
    copy(layout, "all", Layout(tmp_path / "one", "a/b"), "all")
    monkeypatch.setattr("airflow_provider_kitops.oci.copy._MAX_MANIFESTS", 1500)
    with pytest.raises(LimitExceeded, match="more manifests"):
        copy(layout, "all", Layout(tmp_path / "two", "a/b"), "all")


def test_what_is_listed_and_has_lost_its_file_can_be_deleted(layout: Layout) -> None:
    manifest = put_artifact(layout, b"layer", tag="v1")
    (layout.path / "blobs/sha256" / manifest.digest[7:]).unlink()
    layout.delete(manifest)
    assert layout.tags() == []
    assert index(layout) == []
    with pytest.raises(NotFound):
        layout.delete(manifest)
