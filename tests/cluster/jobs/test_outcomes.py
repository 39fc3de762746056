"""How Jobs end, and what the task says then: each of these is left alone once it runs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_kitops.evidence.attach import find
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE
from airflow_provider_kitops.oci.descriptor import MANIFEST
from tests.cluster.jobs.world import Run, World
from tests.registry import PASSWORD, USERNAME

_TEXT = "what the program reads\n"
_READ = "cat /in/text/text.txt > /out/result.txt"
_TRACEBACK = """cat >&2 <<END
Traceback (most recent call last):
  File "train.py", line 12, in <module>
ValueError: the label column is missing
END
exit 3"""
_GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def text(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An input, by digest."""
    directory = tmp_path_factory.mktemp("text")
    (directory / "text.txt").write_text(_TEXT)
    kitfile = {"manifestVersion": "1.0.0", "datasets": [{"name": "text", "path": "text.txt"}]}
    return world.push(directory, "inputs/text:v1", kitfile)


@pytest.fixture(scope="module")
def runs(world: World, text: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All of them at once, so that they wait together."""
    world.cluster.set_gpus(0)
    missing = text.partition("@")[0] + "@sha256:" + "0" * 64
    script, start = world.script, world.start
    directory = tmp_path_factory.mktemp("other")
    (directory / "result.txt").write_text("something else")
    world.push(directory, "made/taken:v1", {"manifestVersion": "1.0.0", "docs": [{"path": "result.txt"}]})

    def lost() -> str:
        """An input of which a layer is gone."""
        name = world.push(directory, "inputs/lost:v1", {"manifestVersion": "1.0.0", "docs": [{"path": "result.txt"}]})
        repository, _, digest = name.removeprefix(f"{world.cluster.registry}/").partition("@")
        url = f"http://{world.cluster.registry}/v2/{repository}"
        (layer,) = requests.get(f"{url}/manifests/{digest}", headers={"Accept": MANIFEST}, timeout=30).json()["layers"]
        requests.delete(f"{url}/blobs/{layer['digest']}", timeout=30).raise_for_status()
        return name

    cases: dict[str, Callable[[], Run]] = {
        "published": lambda: start("once", **script(_READ, inputs={"text": text}, destination="made/text:latest")),
        "on the worker": lambda: start(
            "on_the_worker", **script(_READ, inputs={"text": text}, destination="made/here:latest")
        ),
        "private": lambda: start(
            "once",
            **script(
                "echo 1 > /out/result.txt; env; cat /kitops/secret/* /proc/1/environ /proc/*/environ 2>&1; exit 0",
                destination="made/private:latest",
                kitops_conn_id="private",
                job={"steps_image": world.steps},
            ),
        ),
        "exit 3": lambda: start("twice", **script(_TRACEBACK)),
        "exit 9": lambda: start("twice", **script("exit 9", job={"retry_exit_codes": [9]})),
        "memory": lambda: start(
            "twice", **script("x=x; while true; do x=$x$x; done", job={"memory": "24Mi", "shared_memory": "1Mi"})
        ),
        "gpu memory": lambda: start(
            "twice", **script("echo 'torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB' >&2; exit 1")
        ),
        "no command": lambda: start("twice", command=["/no/such/program"]),
        "bad image": lambda: start(
            "once",
            image=world.image.partition("@")[0] + "@sha256:" + "1" * 64,
            job={"image_pull_timeout": 15},
        ),
        "unschedulable": lambda: start("once", **script("true", job={"gpu": 1000, "startup_timeout": 10})),
        "no pod": lambda: start("once", **script("true", job={"service_account": "nobody", "startup_timeout": 10})),
        "deadline": lambda: start("once", **script("sleep 600", job={"deadline": 8, "grace_period": 1})),
        "execution timeout": lambda: start("timed", **script("sleep 600", job={"grace_period": 1})),
        "no output": lambda: start("once", **script("true")),
        "stranger": lambda: start(
            "once", **script("true", kitops_conn_id="stranger", job={"steps_image": world.steps})
        ),
        "missing input": lambda: start("once", **script("true", inputs={"text": missing})),
        "lost layer": lambda: start("once", **script("true", inputs={"lost": lost()})),
        "tag taken": lambda: start("once", **script("echo mine > /out/result.txt", destination="made/taken:v1")),
        "kept": lambda: start("once", **script("exit 3", job={"on_finish": "keep"}, kitops_conn_id="kitops_default")),
        "misspelt": lambda: start("once", **script("true", job={"pod_override": {"hostNetwrok": True}})),
        "large metrics": lambda: start(
            "once",
            **script(
                'echo 1 > /out/result.txt; i=0; (echo "{"; while test $i -lt 900; do echo "\\"m$i\\": $i,"; '
                'i=$((i+1)); done; echo "\\"last\\": 1}") > /out/metrics.json',
                destination="made/metrics:latest",
            ),
        ),
    }
    return {name: begin() for name, begin in cases.items()}


def test_a_digest_is_published_with_provenance_and_nothing_is_left(
    runs: dict[str, Run], world: World, text: str
) -> None:
    run = runs["published"]
    answer = run.answer()
    with world.store() as store:
        reference, descriptor = store.resolve("made/text:latest")
        assert answer["digest"] == descriptor.digest
        assert answer["reference"] == str(reference.at(descriptor.digest))
        found = find(store.target(reference), descriptor, SLSA_PROVENANCE)
    # Another run made the same bytes, and attached what it knows of them.
    (attached,) = [each for each in found if each.descriptor.digest == answer["provenance"]]
    assert answer["tags"] == ["latest"]
    definition = attached.statement.predicate["buildDefinition"]
    named = {each["name"]: each for each in definition["resolvedDependencies"]}
    assert named["text"]["uri"] == f"oci://{text}"
    assert named["image"]["uri"] == f"oci://{world.image}"
    assert named["config"]["digest"]["sha256"]
    assert attached.statement.predicate["runDetails"]["builder"]["id"].endswith("/builders/kubernetes")
    assert run.leftovers() == []


def test_a_task_that_waits_on_its_worker_says_the_same(runs: dict[str, Run]) -> None:
    first, second = runs["published"].answer(), runs["on the worker"].answer()
    assert first["digest"] == second["digest"]
    assert runs["on the worker"].leftovers() == []


def test_credentials_of_the_connection_are_seen_by_nobody_else(runs: dict[str, Run], world: World) -> None:
    run = runs["private"]
    answer = run.answer()
    assert answer["reference"].startswith(world.cluster.private_registry)
    log = run.log()
    assert "KITOPS_INPUTS=/in" in log  # what the program sees
    assert "can't open '/kitops/secret/*': No such file" in log
    assert not any(secret in log for secret in (PASSWORD, base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()))
    assert run.leftovers() == []


@pytest.mark.parametrize(
    ("name", "reason", "said", "tries"),
    [
        ("exit 3", "ProgramFailed", "work ended with exit code 3: ValueError: the label column is missing", 1),
        ("exit 9", "ProgramFailed", "work ended with exit code 9", 2),
        ("memory", "OOMKilled", "work used more memory than its limit of 24Mi and was killed (exit code 137)", 1),
        ("gpu memory", "CudaOutOfMemory", "CUDA out of memory. Tried 2 GiB", 1),
        ("no command", "CannotStart", "/no/such/program", 1),
        ("bad image", "ImagePull", "cannot pull", 1),
        ("unschedulable", "Unschedulable", "Insufficient nvidia.com/gpu", 1),
        ("no pod", "NoPod", "has made no pod", 1),
        ("deadline", "DeadlineExceeded", "ran past its deadline of 8 s", 1),
        ("execution timeout", "ExecutionTimeout", "ran past its execution_timeout", 1),
        ("no output", "StepFailed", "publish failed", 1),
        ("lost layer", "StepFailed", "fetch failed (exit code 3)", 1),
        ("tag taken", "StepFailed", "publish failed (exit code 5)", 1),
    ],
)
def test_a_failure_is_told_in_one_line(runs: dict[str, Run], name: str, reason: str, said: str, tries: int) -> None:
    run = runs[name]
    failure = run.failure()
    assert failure["reason"] == reason, failure
    assert said in failure["message"]
    assert "\n" not in failure["message"]
    log = run.log()
    assert f"{reason}: {failure['message']}" in log
    kind = "JobFailed" if failure["retry"] else "JobFailedForGood"
    assert f"NOTIFIED {'JobTimedOut' if reason == 'ExecutionTimeout' else kind} {reason}" in log
    assert run.task()["try_number"] == tries
    assert run.leftovers() == []


def test_a_traceback_is_in_the_log(runs: dict[str, Run]) -> None:
    assert runs["exit 3"].wait("failed") == "failed"
    assert '[work]   File "train.py", line 12, in <module>' in runs["exit 3"].log()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stranger", "401"),
        ("missing input", "sha256:" + "0" * 64),
        ("misspelt", "hostNetwrok"),
    ],
)
def test_what_cannot_work_fails_before_anything_runs(runs: dict[str, Run], name: str, said: str) -> None:
    run = runs[name]
    assert run.wait("success", "failed") == "failed"
    assert said in run.log()
    assert "Created the Job" not in run.log()
    assert run.leftovers() == []


def test_a_job_that_is_kept_has_no_credentials_and_is_not_gone_on_from(runs: dict[str, Run]) -> None:
    run = runs["kept"]
    assert run.failure()["exit_code"] == 3
    (job,) = run.jobs()
    assert job["metadata"]["labels"]["airflow-provider-kitops.dev/reported"] == "true"
    kinds = [thing.partition("/")[0] for thing in run.things()]
    assert sorted(kinds) == ["ConfigMap", "Job", "Pod"]


def test_more_metrics_than_a_pod_can_tell_are_read_from_the_provenance(runs: dict[str, Run]) -> None:
    metrics: dict[str, Any] = runs["large metrics"].answer()["metrics"]
    assert len(metrics) == 901
    assert metrics["m899"] == 899


def test_a_job_that_no_node_takes_runs_when_one_does(world: World, tmp_path: Path) -> None:
    run = world.start(
        "once", **world.script("echo 1 > /out/result.txt", destination="made/later:latest", job={"gpu": 1})
    )
    world.airflow.wait("the Job to wait for a GPU", lambda: f"Insufficient {_GPU}" in run.log())
    world.cluster.set_gpus(1)
    assert run.answer()["digest"]
    world.cluster.set_gpus(0)
    assert run.leftovers() == []
