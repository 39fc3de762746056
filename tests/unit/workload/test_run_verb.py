"""``modelkit run``: the specification it takes, the key it signs with, and how it ends when nobody reads on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.cli import main
from airflow_provider_kitops.evidence.attach import verify
from airflow_provider_kitops.evidence.signing import load_verifier
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.unit.evidence.conftest import make_keys

PAGE = Path(__file__).parents[3] / "docs" / "workloads.md"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELKIT_LAYOUT", str(tmp_path / "layout"))
    with Store(StoreConfig(layout=tmp_path / "layout")) as opened:
        yield opened


def write(tmp_path: Path, command: list[str]) -> None:
    kitfile = {"manifestVersion": "1.0.0", "package": {"name": "a"}, "docs": [{"path": "a.txt"}]}
    spec = {"inputs": {}, "command": command, "output": {"reference": "demo/result", "kitfile": kitfile}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))


def run(*flags: str, **more: Any) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "airflow_provider_kitops", "run", "spec.json", "--scratch", "scratch", *flags]
    return subprocess.Popen(line, **more)


def test_the_specification_of_the_documentation_runs(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "weights.bin").write_bytes(b"weights")
    (tmp_path / "base" / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {name: b, path: weights.bin}\n")
    base = pack(tmp_path / "base", None, store.target("demo/base"), "v1")
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "spec.yaml").write_text(example)
    assert main(["run", "spec.yaml", "--scratch", "scratch", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tags"] == ["v1", "latest"]
    made = ModelKit.read(store.target("demo/copied"), "v1").kitfile
    assert made.package is not None
    assert made.package.version == "1.10"
    assert made.package.description == f"A copy of demo/base@{base.descriptor.digest}"


def test_a_specification_may_hold_what_yaml_1_1_would_take_for_a_date(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("spec.yaml").write_text("inputs: {}\nrelease: 2026-99-99\n")
    assert main(["run", "spec.yaml"]) == 2
    assert "is not YAML" not in (said := capsys.readouterr().err)
    assert "release" in said


def test_provenance_is_signed_with_the_key(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = make_keys(tmp_path / "keys", "ed25519")
    write(tmp_path, ["sh", "-c", 'echo a > "$KITOPS_OUTPUT/a.txt"'])
    assert main(["run", "spec.json", "--scratch", "scratch", "--key", str(keys.private), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    _, subject = store.resolve(answer["reference"])
    (found,) = verify(store.target("demo/result"), subject, load_verifier(keys.public), SLSA_PROVENANCE)
    assert found.descriptor.digest == answer["provenance"]


def test_a_key_that_is_not_there_is_usage_before_anything_runs(store: Store, tmp_path: Path) -> None:
    write(tmp_path, ["sh", "-c", f"touch {tmp_path}/ran"])
    assert main(["run", "spec.json", "--scratch", "scratch", "--key", "nowhere.pem"]) == 2
    assert not (tmp_path / "ran").exists()


def test_nobody_who_reads_the_lines_is_a_broken_pipe_and_not_the_log_s_fault(store: Store, tmp_path: Path) -> None:
    write(tmp_path, ["sh", "-c", "while echo line; do :; done"])
    with run(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert [process.stderr.readline() for _ in range(3)] == [b"fetch\n", b"work\n", b"line\n"]
        process.stderr.close()
        assert process.wait(60) == 141


def test_work_whose_answer_nobody_read_is_not_done_again(store: Store, tmp_path: Path) -> None:
    write(tmp_path, ["sh", "-c", f'echo run >> {tmp_path}/runs; echo a > "$KITOPS_OUTPUT/a.txt"'])
    with run(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141
    with run(stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"published demo/result@sha256:")
    assert (tmp_path / "runs").read_text() == "run\n"
    assert [path for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == []
