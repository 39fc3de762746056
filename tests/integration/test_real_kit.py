"""ModelKits to and from the real ``kit``, over a real registry, byte for byte. Skipped where ``kit`` is not installed.

``KIT`` names the program where it is not on ``PATH``. Written against kit 1.7.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.repository import Repository
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.golden.test_kit import CASES, build
from tests.registry import Registry

KIT = os.environ.get("KIT") or shutil.which("kit")
pytestmark = pytest.mark.skipif(KIT is None, reason="needs kit, on PATH or named by KIT")

#: kit packs a file whose directory is ignored, and then cannot unpack it for want of the directory.
NOT_BY_KIT = "ignore-rules"
PACKABLE = [name for name in CASES if not name.startswith("error-")]


class Kit:
    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str | Path) -> str:
        environment = {**os.environ, "KITOPS_HOME": str(self.home), "HOME": str(self.home)}
        done = subprocess.run(
            [str(KIT), *map(str, arguments), "--progress", "none"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def version(self) -> str:
        return next(line.split()[1] for line in self("version").splitlines() if line.startswith("Version:"))


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path / "kit-home")


def target(registry: Registry, repository: str) -> Repository:
    made = Store(StoreConfig(registry=registry.host, plain_http=True)).target(f"{registry.host}/{repository}")
    assert isinstance(made, Repository)
    return made


def tree(directory: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mode & 0o777, None if path.is_dir() else path.read_bytes())
        for path in directory.rglob("*")
        if path.name != "Kitfile" and not path.is_symlink()
    }


def random_context(root: Path, seed: int) -> Path:
    """Files of all sizes around the block's, with names that need each of the header's forms."""
    chance = random.Random(seed)
    parts = ["a", "B", "ü", "sp ace", "d" * 60, "e" * 99, "x.bin", "z-9", "日本", "q'uote", "tab\tin", "b" * 120]
    context = root / f"random-{seed}"
    for _ in range(chance.randint(1, 25)):
        names = [chance.choice(parts) for _ in range(chance.randint(1, 4))]
        place = context / "model" / Path(*names)
        if any(parent.is_file() for parent in [place, *place.parents]) or place.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(chance.randbytes(chance.choice([0, 1, 511, 512, 513, 100_000])))
        place.chmod(chance.choice([0o644, 0o600, 0o755, 0o444, 0o4755]))
    (context / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel:\n  path: model\n")
    (context / "model").mkdir(exist_ok=True)
    (context / "model/always").write_bytes(b"1")
    return context


@pytest.mark.parametrize("name", [*PACKABLE, *(f"seed-{seed}" for seed in range(10))])
def test_what_kit_packs_is_packed_to_the_same_bytes_and_unpacked(
    name: str, kit: Kit, registry: Registry, tmp_path: Path
) -> None:
    seeded = name.startswith("seed-")
    case = {} if seeded else CASES[name]
    context = random_context(tmp_path, int(name[5:])) if seeded else build(tmp_path, case)
    where = f"{registry.host}/kit/{name}:v1"
    kit("pack", context, "-t", where, *case.get("flags", []))
    kit("push", where, "--plain-http")
    theirs = ModelKit.read(target(registry, f"kit/{name}"), "v1")
    compression = "gzip" if name == "gzip" else "none"
    ours = pack(
        context, None, None, compression=compression, manifest_format="modelkit-v1.7", skip_two_dots=True,
        annotations={"ml.kitops.modelkit.cli-version": kit.version},
    )  # fmt: skip
    assert [layer.diff_id for layer in ours.layers] == [layer.diff_id for layer in theirs.layers]
    if compression == "none":
        assert ours.config == theirs.config
        assert ours.manifest == theirs.manifest
        assert ours.descriptor.digest == theirs.descriptor.digest
    unpack(target(registry, f"kit/{name}"), "v1", tmp_path / "ours", allow_case_collisions=True)
    if name == NOT_BY_KIT:
        assert (tmp_path / "ours/logs/keep.log").exists()
        return
    kit("unpack", where, "--plain-http", "-d", tmp_path / "theirs")
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")


@pytest.mark.parametrize("manifest_format", ["modelkit", "modelkit-v1.7"])
@pytest.mark.parametrize("name", ["every-section", "modes", "non-ascii", "prefix-split", "no-layers", "seed-3"])
def test_kit_reads_what_is_packed_here(
    name: str, manifest_format: str, kit: Kit, registry: Registry, tmp_path: Path
) -> None:
    context = random_context(tmp_path, int(name[5:])) if name.startswith("seed-") else build(tmp_path, CASES[name])
    repository = f"ours/{manifest_format.replace('.', '-')}/{name}"
    where = f"{registry.host}/{repository}:v1"
    made = pack(context, None, target(registry, repository), "v1", manifest_format=manifest_format)  # type: ignore[arg-type]
    kit("unpack", where, "--plain-http", "-d", tmp_path / "theirs")
    unpack(target(registry, repository), "v1", tmp_path / "ours", allow_case_collisions=True)
    assert tree(tmp_path / "theirs") == tree(tmp_path / "ours")
    kit("pull", where, "--plain-http")
    listed = json.loads(kit("list", "--format", "json"))
    assert [entry["digest"] for entry in listed] == [made.descriptor.digest]
    assert "manifestVersion: 1.0.0" in kit("info", where)
