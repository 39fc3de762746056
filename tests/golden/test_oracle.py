"""Random trees give the layers that Go's own tar writer gives. Skipped where Go is not installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_kitops.modelkit._scan import carriable
from airflow_provider_kitops.modelkit.kitfile import Code, Kitfile
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.errors import UnsafePath

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0\\"), min_size=1, max_size=20) | st.sampled_from(
    ["a", "a.txt", "B", "é" * 60, "x" * 101, "p" * 155, "n" * 100, "PaxHeaders.0", " ", "\n", "*", "日本", "z-9"]
)


def usual(name: str) -> bool:
    """Whether it is neither refused when packing nor too long for the file system."""
    try:
        carriable(name)
    except UnsafePath:
        return False
    return name != "." and len(name.encode()) < 256


paths = st.lists(names.filter(usual), max_size=5).map("/".join).filter(lambda path: 0 < len(path.encode()) < 3000)
trees = st.dictionaries(paths, st.tuples(st.binary(max_size=1500), st.integers(0o400, 0o7777)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("needs Go")
    directory = tmp_path_factory.mktemp("oracle")
    program = directory / "oracle"
    source = Path(__file__).parent / "oracle/main.go"
    subprocess.run(["go", "build", "-o", program, source], cwd=directory, check=True, timeout=300)
    return program


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees, st.booleans())
@example({"p" * 155 + "/" + "n" * 100: (b"", 0o644), "d/" * 60 + "file": (b"1", 0o600)}, False)
@example({".modelkit-unpack": (b"1", 0o644)}, False)
@example({"é" * 60 + "/" + "e" * 99: (b"12", 0o4755), "a/b": (b"", 0o644), "a.txt": (b"", 0o644)}, True)
def test_layers_are_those_of_go(oracle: Path, tree: dict[str, tuple[bytes, int]], nested: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary)
        base = context / "some/where" if nested else context
        for path, (content, mode) in tree.items():
            place = base / path
            if place.is_dir() or any(parent.is_file() for parent in place.parents):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(mode | 0o400)
        if nested:
            (context / "some/other").write_text("in no layer")
        root = "some/where" if nested else "."
        for name in ("Kitfile", "kitfile", ".kitfile", ".kitignore"):
            if (context / name).exists():
                return
        (layer,) = pack(context, Kitfile(code=(Code(path=root),)), None).layers
        said = subprocess.run([oracle, context, root], check=True, capture_output=True, text=True).stdout.split()
        assert [layer.descriptor.digest, str(layer.descriptor.size)] == said
