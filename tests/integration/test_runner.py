"""Workloads on this machine, with real processes: what they make, how they fail, and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.evidence.attach import find, verify
from airflow_provider_kitops.evidence.signing import load_signer, load_verifier
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.parents import parents_of
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.canonical import json_digest
from airflow_provider_kitops.oci.errors import (
    Conflict,
    InvalidInput,
    InvalidKitfile,
    InvalidReference,
    NotFound,
    RegistryUnavailable,
    VerificationFailed,
    WorkloadFailed,
)
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.workload.provenance import published_metrics
from airflow_provider_kitops.workload.runner import WorkloadResult, run_local
from airflow_provider_kitops.workload.spec import WorkloadSpec
from tests.unit.evidence.conftest import make_keys

KITFILE = {
    "manifestVersion": "1.0.0",
    "package": {"name": "result"},
    "model": {"name": "m", "path": "{inputs.base}", "parts": [{"name": "adapter", "path": "adapter", "type": "lora"}]},
    "docs": [{"path": "metrics.json"}],
}

#: A program that knows nothing of this package: it reads files, tells how far it is, and writes files.
PROGRAM = """
    import json, os, pathlib, time
    inputs, output = pathlib.Path(os.environ["KITOPS_INPUTS"]), pathlib.Path(os.environ["KITOPS_OUTPUT"])
    config = json.loads((pathlib.Path(os.environ["KITOPS_CONFIG"]) / "config.json").read_text())
    weights = (inputs / "base" / "weights.bin").read_bytes()
    print('KITOPS-PROGRESS {"phase": "train", "step": 1, "total": 1}', flush=True)
    (output / "adapter").mkdir()
    (output / "adapter" / "delta.bin").write_bytes(weights[::-1] * config["times"])
    (output / "metrics.json").write_text(json.dumps({"size": len(weights)}))
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(StoreConfig(layout=tmp_path / "layout")) as opened:
        yield opened


@pytest.fixture
def base(store: Store, tmp_path: Path) -> str:
    context = tmp_path / "base"
    context.mkdir()
    (context / "weights.bin").write_bytes(b"weights")
    (context / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {name: base, path: weights.bin}\n")
    made = pack(context, None, store.target("demo/base"), "v1")
    return f"demo/base@{made.descriptor.digest}"


def spec(base: str, program: str = PROGRAM, **fields: Any) -> WorkloadSpec:
    return WorkloadSpec.of(
        **{
            "inputs": {"base": base},
            "command": ["python", "-c", textwrap.dedent(program)],
            "config": {"times": 2},
            "output": {"reference": "demo/model:challenger", "kitfile": KITFILE},
            **fields,
        }
    )


def test_what_a_program_writes_becomes_a_modelkit(store: Store, base: str, tmp_path: Path) -> None:
    lines: list[str] = []
    steps: list[str] = []
    result = run_local(spec(base), store, tmp_path / "scratch", on_line=lines.append, on_step=steps.append)
    assert steps == ["fetch", "work", "publish"]
    assert lines == ['KITOPS-PROGRESS {"phase": "train", "step": 1, "total": 1}']
    assert result.metrics == {"size": 7}
    assert result.tags == ("challenger",)
    assert store.target("demo/model").resolve("challenger").digest == result.descriptor.digest
    assert result.reference == f"demo/model@{result.descriptor.digest}"
    assert result.size == ModelKit.read(store.target("demo/model"), result.descriptor.digest).size


def test_the_result_unpacks_with_the_base_that_it_names(store: Store, base: str, tmp_path: Path) -> None:
    result = run_local(spec(base), store, tmp_path / "scratch")
    kit = unpack(store.target("demo/model"), "challenger", tmp_path / "all", parents=parents_of(store))
    assert kit.kitfile.base_reference == base
    assert kit.descriptor == result.descriptor
    assert (tmp_path / "all" / "weights.bin").read_bytes() == b"weights"
    assert (tmp_path / "all" / "adapter" / "delta.bin").read_bytes() == b"sthgiew" * 2


def test_the_same_work_makes_the_same_digest(store: Store, base: str, tmp_path: Path) -> None:
    one = run_local(spec(base), store, tmp_path / "one")
    two = run_local(spec(base), store, tmp_path / "two")
    assert one.descriptor == two.descriptor


def test_scratch_is_removed_when_the_work_is_published(store: Store, base: str, tmp_path: Path) -> None:
    run_local(spec(base), store, tmp_path / "scratch")
    assert [path for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == []


def test_work_is_not_done_again_until_the_caller_has_read_the_result(store: Store, base: str, tmp_path: Path) -> None:
    lines: list[str] = []
    read: list[str] = []

    def fail(result: WorkloadResult) -> None:
        raise RegistryUnavailable("away just now")

    with pytest.raises(RegistryUnavailable):
        run_local(spec(base), store, tmp_path / "scratch", on_line=lines.append, on_published=fail)
    result = run_local(
        spec(base),
        store,
        tmp_path / "scratch",
        on_line=lines.append,
        on_published=lambda result: read.append(result.reference),
    )
    assert len(lines) == 1
    assert read == [result.reference]
    assert len(find(store.target("demo/model"), result.descriptor, SLSA_PROVENANCE)) == 1
    assert [path for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == []


def test_a_removal_that_was_killed_leaves_nothing_to_go_on_from(
    store: Store, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    lines: list[str] = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        run_local(
            spec(base),
            store,
            tmp_path / "scratch",
            on_published=lambda _: patch.setattr("os.unlink", killed),
        )
    run_local(spec(base), store, tmp_path / "scratch", on_line=lines.append)
    assert len(lines) == 1
    assert [path for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == []


def test_provenance_is_signed_with_the_key_that_is_given(store: Store, base: str, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys", "ed25519")
    result = run_local(spec(base), store, tmp_path / "scratch", signer=load_signer(keys.private))
    target = store.target("demo/model")
    (attestation,) = verify(target, result.descriptor, load_verifier(keys.public), SLSA_PROVENANCE)
    assert attestation.descriptor.digest == result.provenance


def test_provenance_holds_the_whole_specification(store: Store, base: str, tmp_path: Path) -> None:
    work = spec(
        base,
        env={"OMP_NUM_THREADS": "2"},
        resources={"memory": "3Gi"},
        output={"reference": "demo/model", "kitfile": KITFILE, "tags": ["v1"]},
    )
    result = run_local(work, store, tmp_path / "scratch")
    (attestation,) = find(store.target("demo/model"), result.descriptor, SLSA_PROVENANCE)
    definition = attestation.statement.predicate["buildDefinition"]
    told = definition["externalParameters"]["specification"]
    assert WorkloadSpec.of(**told) == work
    assert json_digest(told) == definition["internalParameters"]["specification"] == work.digest


def test_texts_of_the_kitfile_stay_texts(store: Store, base: str, tmp_path: Path) -> None:
    parameters = {"learning_rate": "1e-4", "legacy": "yes", "epochs": 3, "decay": 1e-05}
    kitfile = {
        **KITFILE,
        "package": {"name": "result", "version": "1.10", "description": "\x7f caf\u00e9 \U0001f600"},
        "model": {"name": "m", "path": "adapter", "parameters": parameters},
    }
    result = run_local(spec(base, output={"reference": "demo/model", "kitfile": kitfile}), store, tmp_path / "scratch")
    made = ModelKit.read(store.target("demo/model"), result.descriptor.digest).kitfile
    assert made.package is not None
    assert made.model is not None
    assert (made.package.version, made.package.description) == ("1.10", "\x7f caf\u00e9 \U0001f600")
    assert made.model.parameters == parameters


def test_provenance_names_every_input_and_the_settings(store: Store, base: str, tmp_path: Path) -> None:
    work = spec(base)
    result = run_local(work, store, tmp_path / "scratch")
    target = store.target("demo/model")
    (attestation,) = find(target, result.descriptor, SLSA_PROVENANCE)
    assert attestation.descriptor.digest == result.provenance
    definition = attestation.statement.predicate["buildDefinition"]
    digests = {each["name"]: each["digest"]["sha256"] for each in definition["resolvedDependencies"]}
    assert digests == {
        "base": base.rpartition("sha256:")[2],
        "config": work.config_digest.removeprefix("sha256:"),
    }
    assert definition["externalParameters"]["config"] == {"times": 2}
    assert attestation.statement.predicate["runDetails"]["metadata"]["finishedOn"].endswith("Z")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "print('fine so far'); raise SystemExit('error: no column label')",
            "exit code 1. Its last line: error: no col",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL, most likely for want of"),
        ("pass", "left nothing in its output"),
        ("import os; open(os.environ['KITOPS_OUTPUT'] + '/metrics.json', 'w').write('[1]')", "holds a list"),
        ("import os; open(os.environ['KITOPS_OUTPUT'] + '/metrics.json', 'w').write('{')", "metrics.json is no JSON"),
    ],
)
def test_a_program_that_fails_leaves_no_modelkit(
    store: Store, base: str, tmp_path: Path, program: str, message: str
) -> None:
    with pytest.raises(WorkloadFailed, match=message):
        run_local(spec(base, program), store, tmp_path / "scratch")
    assert store.target("demo/model").tags() == []


def test_a_program_that_does_not_exist_is_named(store: Store, base: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadFailed, match="Cannot start 'no-such-program': No such file"):
        run_local(spec(base, command=["no-such-program"]), store, tmp_path / "scratch")


def test_an_input_that_does_not_exist_is_not_found(store: Store, base: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        run_local(spec(f"demo/base@sha256:{'0' * 64}"), store, tmp_path / "scratch")


def test_what_publishing_would_refuse_is_refused_before_the_work(store: Store, base: str, tmp_path: Path) -> None:
    lines: list[str] = []
    for kitfile, error in (
        ({"manifestVersion": "1.0.0", "modle": {}}, InvalidKitfile),
        ({"a": "{inputs.x}"}, InvalidInput),
    ):
        work = spec(base, "print('worked')", output={"reference": "demo/model", "kitfile": kitfile})
        with pytest.raises(error):
            run_local(work, store, tmp_path / "scratch", on_line=lines.append)
    with pytest.raises(InvalidReference, match=r"ghcr\.io"):
        run_local(
            spec(base, "print('worked')", output={"reference": "ghcr.io/demo/model", "kitfile": KITFILE}),
            store,
            tmp_path / "scratch",
            on_line=lines.append,
        )
    assert lines == []


def test_a_program_that_takes_too_long_is_ended_with_its_children(store: Store, base: str, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = f"""
        import pathlib, subprocess, time
        child = subprocess.Popen(["sleep", "100"])
        pathlib.Path({str(note)!r}).write_text(str(child.pid))
        child.wait()
    """
    with pytest.raises(WorkloadFailed, match="ran past its limit of 3 seconds"):
        run_local(spec(base, program), store, tmp_path / "scratch", timeout=3)
    assert ends(int(note.read_text()))


def test_what_the_caller_raises_ends_the_program(store: Store, base: str, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        os.environ["RUNNING"] = line
        raise KeyboardInterrupt

    program = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    with pytest.raises(KeyboardInterrupt):
        run_local(spec(base, program), store, tmp_path / "scratch", on_line=stop)
    assert ends(int(os.environ.pop("RUNNING")))


def test_the_same_work_does_not_run_twice_at_once(
    store: Store, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_kitops.workload.runner._LOCK_WAIT", 0.1)

    def again(line: str) -> None:
        with pytest.raises(Conflict, match="is running in"):
            run_local(spec(base), store, tmp_path / "scratch")

    run_local(spec(base), store, tmp_path / "scratch", on_line=again)


#: Goes on where it was: the first try writes a checkpoint and waits to be killed, the second one finds it.
RESUMING = """
    import json, os, pathlib, time
    directory = {name: pathlib.Path(os.environ["KITOPS_" + name.upper()]) for name in ("output", "checkpoints")}
    checkpoint = directory["checkpoints"] / "half"
    (directory["output"] / "litter-of-try").write_text("x")
    if not checkpoint.exists():
        checkpoint.write_text("half of the work")
        pathlib.Path(os.environ["NOTE"]).write_text(str(os.getpid()))
        time.sleep(100)
    (directory["output"] / "litter-of-try").unlink()
    (directory["output"] / "adapter").mkdir()
    (directory["output"] / "adapter" / "delta.bin").write_text(checkpoint.read_text())
    (directory["output"] / "metrics.json").write_text("{}")
"""


def test_a_killed_runner_takes_its_program_along_and_the_next_run_goes_on(
    store: Store, base: str, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    work = spec(base, RESUMING, env={"NOTE": str(note)})
    arguments = [work.model_dump_json(), str(tmp_path / "layout"), str(tmp_path / "scratch")]
    script = """
        import sys
        from pathlib import Path
        from airflow_provider_kitops.oci.store import Store, StoreConfig
        from airflow_provider_kitops.workload.runner import run_local
        from airflow_provider_kitops.workload.spec import WorkloadSpec
        work, layout, scratch = sys.argv[1:]
        with Store(StoreConfig(layout=Path(layout))) as store:
            run_local(WorkloadSpec.model_validate_json(work), store, Path(scratch))
    """
    runner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), *arguments])
    try:
        deadline = time.monotonic() + 60
        while not (note.exists() and note.read_text()):
            assert time.monotonic() < deadline
            assert runner.poll() is None
            time.sleep(0.05)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert ends(int(note.read_text()))
    result = run_local(work, store, tmp_path / "scratch")
    unpack(store.target("demo/model"), result.descriptor.digest, tmp_path / "out")
    assert (tmp_path / "out" / "adapter" / "delta.bin").read_text() == "half of the work"
    assert not (tmp_path / "out" / "litter-of-try").exists()


def test_work_that_was_done_before_publishing_failed_is_not_done_again(store: Store, base: str, tmp_path: Path) -> None:
    target = store.target("demo/model")
    work = spec(base, output={"reference": "demo/model:v1", "kitfile": KITFILE})
    other = run_local(spec(base, config={"times": 3}), store, tmp_path / "scratch")
    target.tag(other.descriptor, "v1")
    lines: list[str] = []
    with pytest.raises(Conflict, match="v1"):
        run_local(work, store, tmp_path / "scratch", on_line=lines.append)
    target.untag("v1")
    result = run_local(work, store, tmp_path / "scratch", on_line=lines.append)
    assert len(lines) == 1
    assert target.resolve("v1") == result.descriptor


def ends(pid: int, seconds: float = 5) -> bool:
    """Whether the process is gone, or a corpse that nobody has collected, within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_the_metrics_can_be_read_from_the_provenance(store: Store, base: str, tmp_path: Path) -> None:
    result = run_local(spec(base), store, tmp_path / "scratch")
    assert published_metrics(store, result.reference) == {"size": 7}
    assert published_metrics(store, "demo/model:challenger", provenance=result.provenance) == {"size": 7}
    with pytest.raises(NotFound, match="No provenance of a workload"):
        published_metrics(store, base)
    again = run_local(spec(base, config={"times": 3}), store, tmp_path / "scratch")
    with pytest.raises(VerificationFailed, match="is not the provenance of"):
        published_metrics(store, again.reference, provenance=result.provenance)
