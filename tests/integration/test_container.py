"""The steps of a workload's pod as they run there: processes of their own, files mounted, a real registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.evidence.attach import find, verify
from airflow_provider_kitops.evidence.signing import load_verifier
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.workload.container import MESSAGE_LIMIT
from airflow_provider_kitops.workload.mounts import job_files
from airflow_provider_kitops.workload.provenance import BUILDER_KUBERNETES, published_metrics
from airflow_provider_kitops.workload.spec import DIRECTORIES, WorkloadSpec
from tests.proxy import RESET, Answer, Fault, Proxy, Request
from tests.registry import PASSWORD, USERNAME, Registry, free_port, run_registry
from tests.unit.evidence.conftest import make_keys

KITFILE = {
    "manifestVersion": "1.0.0",
    "package": {"name": "result"},
    "model": {"name": "m", "path": "{inputs.base}", "parts": [{"name": "adapter", "path": "adapter", "type": "lora"}]},
}

#: A program that knows nothing of this package.
PROGRAM = """
    import json, os, pathlib
    inputs, output = pathlib.Path(os.environ["KITOPS_INPUTS"]), pathlib.Path(os.environ["KITOPS_OUTPUT"])
    config = json.loads((pathlib.Path(os.environ["KITOPS_CONFIG"]) / "config.json").read_text())
    weights = (inputs / "base" / "weights.bin").read_bytes()
    (pathlib.Path(os.environ["KITOPS_CHECKPOINTS"]) / "half").write_text("half")
    (output / "adapter").mkdir()
    (output / "adapter" / "delta.bin").write_bytes(weights[::-1] * config["times"])
    (output / "metrics.json").write_text(json.dumps(config["metrics"]))
"""


class Pod:
    """The volumes of a pod and its containers, one after the other."""

    def __init__(self, root: Path, spec: WorkloadSpec, config: StoreConfig, **more: Any) -> None:
        self.root, self.spec = root / "pod", spec
        for name in ("in", "config", "out", "checkpoints", "state", "job", "secret", "home"):
            (self.root / name).mkdir(parents=True)
        job, secret = job_files(spec, config, **more)
        for name, text in job.items():
            (self.root / "job" / name).write_text(text)
        for name, data in secret.items():
            (self.root / "secret" / name).write_bytes(data)

    def start(self, step: str, *arguments: str, sabotage: str = "") -> subprocess.Popen[str]:
        flags = [f"--{name}={self.root / name}" for name in ("job", "secret", "cache")]
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{sabotage}\nimport runpy\n"
                "runpy.run_module('airflow_provider_kitops.workload.container', run_name='__main__')",
                step,
                f"--root={self.root}",
                f"--termination-log={self.root / step}",
                *flags,
                *arguments,
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(self.root / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, step: str, *arguments: str, code: int = 0, sabotage: str = "") -> list[str]:
        """Run a step to its end and return the lines of its log."""
        process = self.start(step, *arguments, sabotage=sabotage)
        out, err = process.communicate(timeout=200)
        assert (process.returncode, out) == (code, ""), err
        return err.splitlines()

    def work(self) -> None:
        names = {name: str(self.root / directory.strip("/")) for name, directory in DIRECTORIES.items()}
        subprocess.run(
            [sys.executable, *self.spec.command[1:]], env={"PATH": os.environ["PATH"], **names}, check=True, timeout=60
        )

    def message(self, step: str = "publish") -> dict[str, Any]:
        data = (self.root / step).read_bytes()
        assert len(data) <= MESSAGE_LIMIT
        told: dict[str, Any] = json.loads(data)
        return told


@dataclass(frozen=True)
class Place:
    """A registry as the caller knows it, with a base model in it."""

    config: StoreConfig
    base: str

    def spec(self, *, metrics: Any = None, **fields: Any) -> WorkloadSpec:
        return WorkloadSpec.of(
            **{
                "inputs": {"base": self.base},
                "image": f"ghcr.io/demo/train@sha256:{'b' * 64}",
                "command": ["python", "-c", textwrap.dedent(PROGRAM)],
                "config": {"times": 2, "metrics": {"loss": 0.25} if metrics is None else metrics},
                "output": {"reference": "demo/model:challenger", "kitfile": KITFILE},
                **fields,
            }
        )


def prepared(config: StoreConfig, tmp_path: Path, weights: bytes = b"weights") -> Place:
    context = tmp_path / "context"
    context.mkdir()
    (context / "weights.bin").write_bytes(weights)
    (context / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {name: base, path: weights.bin}\n")
    with Store(config) as store:
        made = pack(context, None, store.target("demo/base"), "v1")
    return Place(config, f"demo/base@{made.descriptor.digest}")


@pytest.fixture
def private(private_registry: Registry, tmp_path: Path) -> Place:
    """A namespace of its own in the registry that wants a password."""
    config = StoreConfig(
        registry=private_registry.host,
        namespace=f"t{abs(hash(str(tmp_path)))}",
        username=USERNAME,
        password=PASSWORD,
        plain_http=True,
    )
    return prepared(config, tmp_path)


@pytest.fixture
def away(registry: Registry, tmp_path: Path) -> Iterator[tuple[Proxy, Place]]:
    """A registry behind what can break the way to it."""
    with Proxy(registry.host) as proxy:
        config = StoreConfig(registry=proxy.host, namespace=f"t{abs(hash(str(tmp_path)))}", plain_http=True)
        yield proxy, prepared(config, tmp_path, os.urandom(3_000_000))


def test_fetch_work_publish(private: Place, tmp_path: Path) -> None:
    spec = private.spec()
    pod = Pod(tmp_path, spec, private.config)
    lines = pod.run("fetch")
    full = f"{private.config.registry}/{private.config.namespace}/{private.base}"
    assert lines[0] == f"input base: fetching {full}"
    assert lines[-1].startswith(f"input base: fetched {full}, ")
    assert " bytes in " in lines[-1]
    assert not (pod.root / "fetch").exists()
    pod.work()
    lines = pod.run("publish")
    told = pod.message()
    assert told["metrics"] == {"loss": 0.25}
    assert told["seconds"] > 0
    assert lines[-1].startswith(f"output: published {told['reference']} (challenger), ")
    assert list((pod.root / "checkpoints").iterdir()) == []
    with Store(private.config) as store:
        reference, descriptor = store.resolve("demo/model:challenger")
        assert told["digest"] == descriptor.digest
        assert told["reference"] == f"{reference.registry}/{reference.repository}@{descriptor.digest}"
        target = store.target("demo/model")
        kit = ModelKit.read(target, told["digest"])
        assert kit.kitfile.base_reference == private.base
        (attestation,) = find(target, descriptor, SLSA_PROVENANCE)
        assert attestation.descriptor.digest == told["provenance"]
        predicate = attestation.statement.predicate
        assert predicate["runDetails"]["builder"] == {"id": BUILDER_KUBERNETES}
        named = {each["name"] for each in predicate["buildDefinition"]["resolvedDependencies"]}
        assert named == {"base", "config", "image"}
        assert published_metrics(store, told["reference"]) == {"loss": 0.25}


#: Directories in directories, more than Python recurses.
NEST = """
    os.chdir(os.environ["KITOPS_CHECKPOINTS"])
    for _ in range(3000):
        os.mkdir("nested")
        os.chdir("nested")
"""


def test_checkpoints_nested_at_will_do_not_undo_what_was_published(private: Place, tmp_path: Path) -> None:
    spec = private.spec(command=["python", "-c", textwrap.dedent(PROGRAM + NEST)])
    pod = Pod(tmp_path, spec, private.config)
    pod.run("fetch")
    pod.work()
    pod.run("publish")
    assert pod.message()["digest"]
    assert list((pod.root / "checkpoints").iterdir()) == []


def test_both_steps_may_run_again(private: Place, tmp_path: Path) -> None:
    pod = Pod(tmp_path, private.spec(), private.config)
    pod.run("fetch")
    assert not any("fetching" in line for line in pod.run("fetch"))
    pod.work()
    pod.run("publish")
    first = pod.message()
    pod.run("publish")
    assert pod.message() == first


def test_the_provenance_is_signed_with_the_mounted_key(private: Place, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys", "ed25519")
    pod = Pod(tmp_path, private.spec(), private.config, signing_key=keys.private.read_bytes())
    pod.run("fetch")
    pod.work()
    pod.run("publish")
    with Store(private.config) as store:
        target = store.target("demo/model")
        descriptor = target.resolve(pod.message()["digest"])
        assert len(verify(target, descriptor, load_verifier(keys.public), SLSA_PROVENANCE)) == 1


def test_metrics_too_large_for_the_message_are_in_the_provenance(private: Place, tmp_path: Path) -> None:
    metrics = {f"loss of class {number}": number / 7 for number in range(300)}
    pod = Pod(tmp_path, private.spec(metrics=metrics), private.config)
    pod.run("fetch")
    pod.work()
    pod.run("publish")
    told = pod.message()
    assert told["metrics"] is None
    with Store(private.config) as store:
        assert published_metrics(store, told["reference"], provenance=told["provenance"]) == metrics


def test_inputs_come_through_a_cache_that_pods_share(private: Place, tmp_path: Path) -> None:
    spec = private.spec()
    cache = tmp_path / "cache"
    cache.mkdir()
    pods = [Pod(tmp_path / str(number), spec, private.config) for number in range(3)]
    running = [pod.start("fetch", f"--cache={cache}") for pod in pods]
    for pod, process in zip(pods, running, strict=True):
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        assert (pod.root / "in/base/weights.bin").read_bytes() == b"weights"
        assert f"through {cache}" in err
    assert (cache / private.config.namespace / "demo/base/index.json").is_file()


def failed(pod: Pod, step: str, code: int, *arguments: str) -> dict[str, Any]:
    lines = pod.run(step, *arguments, code=code)
    told = pod.message(step)
    assert lines[-1] == f"error: {told['error']}"
    return told


def test_a_wrong_password_is_exit_code_4_and_is_not_shown(private: Place, tmp_path: Path) -> None:
    pod = Pod(tmp_path, private.spec(), replace(private.config, password="not the password"))
    told = failed(pod, "fetch", 4)
    assert "HTTP 401. Check user and password" in told["error"]
    assert told["transient"] is False
    assert "not the password" not in json.dumps(told)


def test_credentials_that_are_not_mounted_are_looked_for_nowhere(private: Place, tmp_path: Path) -> None:
    pod = Pod(tmp_path, private.spec(), private.config)
    (pod.root / "home" / ".docker").mkdir()
    (pod.root / "secret" / ".dockerconfigjson").rename(pod.root / "home" / ".docker" / "config.json")
    failed(pod, "fetch", 4)


def test_a_missing_input_is_exit_code_3(private: Place, tmp_path: Path) -> None:
    spec = private.spec(inputs={"base": f"demo/base@sha256:{'0' * 64}"})
    told = failed(Pod(tmp_path, spec, private.config), "fetch", 3)
    assert "demo/base" in told["error"]


def test_a_program_that_left_nothing_is_a_failure(private: Place, tmp_path: Path) -> None:
    pod = Pod(tmp_path, private.spec(), private.config)
    pod.run("fetch")
    assert "left nothing in its output directory" in failed(pod, "publish", 1)["error"]


def test_a_tag_that_may_not_move_is_exit_code_5_and_the_checkpoints_stay(private: Place, tmp_path: Path) -> None:
    output = {"reference": "demo/model:v1", "kitfile": KITFILE}
    for number, times in enumerate((1, 2)):
        spec = private.spec(output=output, config={"times": times, "metrics": {}})
        pod = Pod(tmp_path / str(number), spec, private.config)
        pod.run("fetch")
        pod.work()
        if number == 0:
            pod.run("publish")
    told = failed(pod, "publish", 5)
    assert "v1" in told["error"]
    assert told["transient"] is False
    assert (pod.root / "checkpoints" / "half").exists()


def test_a_registry_that_is_away_and_comes_back_costs_no_work(tmp_path: Path) -> None:
    port = free_port()
    storage = tmp_path / "registry"
    storage.mkdir()
    config = StoreConfig(registry=f"127.0.0.1:{port}", plain_http=True)
    with run_registry(storage, port=port):
        place = prepared(config, tmp_path)
        pod = Pod(tmp_path, place.spec(), config)
        pod.run("fetch")
    pod.work()
    process = pod.start("publish", "--patience=60")
    assert process.stderr is not None
    waited = next(line for line in process.stderr if "giving up in" in line)
    assert "Trying again in" in waited
    with run_registry(storage, port=port):
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        with Store(config) as store:
            assert store.resolve("demo/model:challenger")[1].digest == pod.message()["digest"]


def test_a_registry_that_stays_away_is_exit_code_7(tmp_path: Path) -> None:
    config = StoreConfig(registry=f"127.0.0.1:{free_port()}", plain_http=True)
    pod = Pod(tmp_path, Place(config, f"demo/base@sha256:{'0' * 64}").spec(), config)
    assert failed(pod, "fetch", 7, "--patience=2")["transient"] is True


def test_an_input_whose_download_breaks_is_fetched_again(away: tuple[Proxy, Place], tmp_path: Path) -> None:
    proxy, place = away
    pod = Pod(tmp_path, place.spec(), place.config)
    failures = iter(range(9))  # more than the client itself tries again

    def break_it(request: Request) -> Fault | None:
        if request.method == "GET" and "/blobs/" in request.path and next(failures, None) is not None:
            return RESET
        return None

    proxy.rule = break_it
    lines = pod.run("fetch", "--patience=100")
    assert any("giving up in" in line for line in lines)
    pod.work()
    assert (pod.root / "out/adapter/delta.bin").stat().st_size == 6_000_000


@pytest.mark.parametrize("step", ["fetch", "publish"])
def test_sigterm_ends_a_step_at_once_and_leaves_no_upload(
    away: tuple[Proxy, Place], registry: Registry, tmp_path: Path, step: str
) -> None:
    proxy, place = away
    pod = Pod(tmp_path, place.spec(), place.config)
    if step == "publish":
        pod.run("fetch")
        pod.work()
    reached, over = threading.Event(), threading.Event()

    def pause() -> None:
        reached.set()
        over.wait(60)

    def hold(request: Request) -> Fault | None:
        sending = request.method == "PATCH" or "chunked" in request.headers.get("transfer-encoding", "")
        if step == "publish" and "/blobs/uploads/" in request.path and sending:
            return Fault(cut_request=500_000, at_cut=pause)
        return Fault(cut_answer=500_000, at_cut=pause) if step == "fetch" and "/blobs/" in request.path else None

    proxy.rule = hold
    process = pod.start(step)
    assert reached.wait(60)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    # The registry takes bytes again: only then can it be told to drop what it has.
    over.set()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert time.monotonic() - began < 15
    assert pod.message(step) == {"error": "The step was terminated.", "transient": True}
    assert err.splitlines()[-1] == "error: The step was terminated."
    if step == "publish":
        assert proxy.seen("DELETE", "/blobs/uploads/")
        assert proxy.seen("PUT", "/manifests/challenger") == []
    assert registry.uploads(f"{place.config.namespace}/demo/model") == 0


def test_sigterm_ends_a_wait_at_once(tmp_path: Path) -> None:
    config = StoreConfig(registry=f"127.0.0.1:{free_port()}", plain_http=True)
    pod = Pod(tmp_path, Place(config, f"demo/base@sha256:{'0' * 64}").spec(), config)
    process = pod.start("fetch")
    assert process.stderr is not None
    next(line for line in process.stderr if "giving up in" in line)
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=60)
    assert (process.returncode, time.monotonic() - began < 5) == (143, True)


#: Something unexpected whose words hold the password.
LEAK = f"""
from airflow_provider_kitops.workload import runner
from airflow_provider_kitops.workload.container import MESSAGE_LIMIT
def fetch(*arguments, **named):
    raise RuntimeError("the server said: {PASSWORD}")
runner.fetch = fetch
"""


def test_what_nobody_expected_shows_no_secret(private: Place, tmp_path: Path) -> None:
    pod = Pod(tmp_path, private.spec(), private.config)
    lines = pod.run("fetch", code=1, sabotage=LEAK)
    assert pod.message("fetch") == {"error": "RuntimeError: the server said: …", "transient": False}
    assert any(line.startswith("Traceback") for line in lines)
    # The second line of the traceback quotes the source, which is the test's.
    assert not any(PASSWORD in line for line in lines)


#: What the step may import besides the standard library and this package's own requirements: nothing heavy.
PROVE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("airflow", "torch", "transformers", "numpy", "datasets", "kubernetes", "openai"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""


def test_neither_airflow_nor_a_training_library_is_needed(private: Place, tmp_path: Path) -> None:
    pod = Pod(tmp_path, private.spec(), private.config)
    pod.run("fetch", sabotage=PROVE)
    pod.work()
    pod.run("publish", sabotage=PROVE)


def test_a_slow_answer_is_told_about(away: tuple[Proxy, Place], tmp_path: Path) -> None:
    proxy, place = away
    pod = Pod(tmp_path, place.spec(), place.config)
    limited = iter([Fault(answer=Answer(429, {"Retry-After": "1"}))])
    proxy.rule = lambda request: next(limited, None) if "/manifests/" in request.path else None
    lines = pod.run("fetch")
    assert any("Trying again in" in line for line in lines)
