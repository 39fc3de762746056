"""ModelKits unpacked for the judge; judging as a whole is tested with the operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.judge.endpoint import Endpoint
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.oci.target import Progress
from airflow_provider_kitops.promotion import judging


def packed(store: Store, root: Path, name: str, path: str) -> None:
    context = root / name
    context.mkdir()
    if "/" not in path:  # else it is a reference
        (context / path).write_bytes(b"GGUF")
    (context / "notes.md").write_text(name)
    (context / "Kitfile").write_text(
        f"manifestVersion: 1.0.0\nmodel: {{name: judge, path: {path}}}\ndocs: [{{path: notes.md}}]\n"
    )
    pack(context, None, store.target(f"demo/{name}"), "v1")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were served."""
    paths: list[Path] = []

    @contextmanager
    def serve(path: Path, *, threads: int) -> Iterator[Endpoint]:
        paths.append(path)
        yield Endpoint("http://127.0.0.1:1/v1")

    monkeypatch.setattr(judging, "serve_gguf", serve)
    return paths


def test_unpacking_uses_the_stores_concurrency_and_tells_how_far_it_is(
    tmp_path: Path, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout", concurrency=3))
    packed(store, tmp_path, "judge", "judge.gguf")
    used: list[int] = []
    real = judging.unpack

    def unpack(*arguments: Any, **named: Any) -> Any:
        used.append(named["concurrency"])
        return real(*arguments, **named)

    monkeypatch.setattr(judging, "unpack", unpack)
    told: list[Progress] = []
    with judging.local_judge(store, "demo/judge:v1", tmp_path / "scratch", 1, told.append):
        assert [path.read_bytes() for path in served] == [b"GGUF"]
    assert used == [3]
    assert any(step.total is not None and step.done >= step.total for step in told)


def test_a_judge_that_is_based_on_another_modelkit_is_found_there(tmp_path: Path, served: list[Path]) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout"))
    packed(store, tmp_path, "judge", "judge.gguf")
    packed(store, tmp_path, "derived", "demo/judge:v1")
    with judging.local_judge(store, "demo/derived:v1", tmp_path / "scratch", 1):
        assert [path.name for path in served] == ["judge.gguf"]
