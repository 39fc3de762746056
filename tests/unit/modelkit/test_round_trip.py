"""Whatever tree is packed comes out as the same tree, and packs again to the same digests."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_kitops.modelkit._scan import carriable
from airflow_provider_kitops.modelkit.kitfile import Code, Kitfile, Model, ModelPart
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.errors import UnsafePath
from airflow_provider_kitops.oci.layout import Layout


def usual(name: str) -> bool:
    """Whether packing does not refuse it."""
    try:
        carriable(name)
    except UnsafePath:
        return False
    return True


names = (
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12)
    | st.sampled_from(["a", "b", "é" * 60, "x" * 101, "p" * 120, "Kitfile", ".kitignore", "a.b", " ", "\n", "*"])
).filter(lambda name: name != "." and usual(name) and len(name.encode()) < 256)
files = st.tuples(st.binary(max_size=2000), st.integers(0, 0o777))
trees = st.recursive(
    files, lambda inner: st.tuples(st.dictionaries(names, inner, max_size=4), st.integers(0, 0o77)), max_leaves=10
)
contexts = st.dictionaries(names, trees, min_size=1, max_size=4)

Snapshot = dict[str, tuple[bytes | None, int]]


def build(place: Path, tree: dict[str, object]) -> None:
    for name, (content, mode) in tree.items():  # type: ignore[misc]
        path = place / name
        if isinstance(content, dict):
            path.mkdir()
            build(path, content)
            path.chmod(mode | 0o700)
        else:
            path.write_bytes(content)
            path.chmod(mode | 0o400)


def snapshot(root: Path) -> Snapshot:
    return {
        str(path.relative_to(root)): (path.read_bytes() if path.is_file() else None, path.stat().st_mode & 0o7777)
        for path in root.rglob("*")
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(contexts, st.booleans())
def test_a_tree_comes_out_as_it_went_in(tree: dict[str, object], compressed: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in ("model", "model/part", "code"):
            (root / "context" / name).mkdir(parents=True)
            build(root / "context" / name, tree if name != "model" else {k: v for k, v in tree.items() if k != "part"})
            (root / "context" / name / "file").write_bytes(name.encode()) if "file" not in tree else None
        for path in (root / "context").rglob("*"):
            if path.is_dir() and path.name in ("model", "part", "code"):
                path.chmod(path.stat().st_mode | 0o700)
        kitfile = Kitfile(model=Model(path="model", parts=(ModelPart(path="model/part"),)), code=(Code("code"),))
        layout = Layout(root / "layout", "round/trip")
        packed = pack(root / "context", kitfile, layout, compression="gzip" if compressed else "none")
        unpack(layout, packed.descriptor.digest, root / "out", ["model,code"], allow_case_collisions=True)
        assert snapshot(root / "out") == snapshot(root / "context")
        again = pack(root / "out", kitfile, layout, compression="gzip" if compressed else "none")
        assert again.descriptor == packed.descriptor
