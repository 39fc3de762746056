"""Headers have the bytes that Go's archive/tar writes; digests here were made with Go."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit import _tar
from airflow_provider_kitops.modelkit.ignore import IgnoreRules
from airflow_provider_kitops.modelkit.kitfile import Kitfile, Model
from airflow_provider_kitops.modelkit.layers import plan_layers


@pytest.mark.parametrize(
    ("base", "file", "text", "digest"),
    [
        ("model/a.bin", "model/a.bin", "hello\n", "c18180c60de331ce5cf6e3bd75b69d9f8f63fe171557cc83b1105a448d8deb46"),
        ("test4/one.txt", "test4/one.txt", "x", "45ef923a98bff43285546ae61a69686c620361a35d7e920cc31ac535cfd10a5e"),
        ("mödel", "mödel/ü.bin", "u", "abad3065d5dc79d5131c0f2e82ea87c790f494ca360478e44e1063b0cbd21fbf"),
        (
            "d" * 60,
            f"{'d' * 60}/{'e' * 60}/f.txt",
            "L",
            "2ff567337670a755101ee08a2d7a6d1d90a7b6c10bfe090c83df34490268ff97",
        ),
    ],
)
def test_streams_have_the_digests_of_go(base: str, file: str, text: str, digest: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in path.parents:
        if tmp_path in parent.parents:
            parent.chmod(0o755)
    path.write_text(text)
    path.chmod(0o644)
    (plan,) = plan_layers(tmp_path, Kitfile(model=Model(path=base)), IgnoreRules([]))
    data = b"".join(plan.chunks())
    assert hashlib.sha256(data).hexdigest() == digest
    assert len(data) == plan.size


@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11, 8**11 + 1, 10**15])
@pytest.mark.parametrize(
    "name", ["a", "d/" * 49 + "ab", "d/" * 60 + "file", "x" * 101, "é" * 60, f"{'p' * 155}/{'n' * 100}"]
)
def test_other_readers_find_the_same_name_and_size(name: str, size: int) -> None:
    block = _tar.header(name, 0o640, size, directory=False)
    assert len(block) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(block + bytes(1024))) as archive:
        info = archive.next()
    assert info is not None
    assert (info.name, info.size, info.mode, info.uid, info.gid, info.mtime) == (name, size, 0o640, 1000, 0, 0)
    extended = len(block) > 512
    splittable = len(name) <= 100 or (name.isascii() and "/" in name)
    assert extended == (size >= 8**11 or not name.isascii() or not splittable)
