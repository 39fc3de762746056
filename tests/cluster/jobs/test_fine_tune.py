"""Models that are fine-tuned by pods: a small real one, one that is told to end, and the example DAG."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops import __version__
from airflow_provider_kitops.evidence.attach import find
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE
from airflow_provider_kitops.oci.manifest import Links
from demo import assets
from tests.cluster.images import trainer_image
from tests.cluster.jobs.world import Run, World
from tests.integration.airflow.test_champion_challenger import TRAINING, write_dataset
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def image(world: World) -> str:
    """The trainer's image, also under the tag that is looked for where no image is named."""
    image = trainer_image(world.cluster)
    with world.store() as store:
        reference, descriptor = store.resolve(image)
        store.target(reference).tag(descriptor, __version__)
    return image


@pytest.fixture(scope="module")
def dataset(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("data") / "dataset"
    write_dataset(directory)
    parts = [{"name": name, "path": f"{name}.jsonl"} for name in ("train", "items", "pairs")]
    return world.push(directory, "news/dataset:latest", {"manifestVersion": "1.0.0", "datasets": parts})


@pytest.fixture(scope="module")
def tiny(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return world.push(directory, "news/base:latest", _model("tiny", "."))


@pytest.fixture
def claim(world: World, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A claim for a volume of this machine, and its namespace."""
    if world.cluster.machine is None:
        pytest.skip("makes a volume of this machine's disk, and KUBECONFIG names another cluster")
    directory, namespace, name = tmp_path / "volume", world.namespace(), f"checkpoints-{secrets.token_hex(4)}"
    directory.mkdir()
    size = {"storage": "1Gi"}
    node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [world.cluster.node]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": name,
            "local": {"path": str(directory)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}},
        },
    }
    wanted = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": name, "resources": {"requests": size}},
    }
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [volume, wanted]})
    world.cluster.kubectl("apply", "--filename=-", input=both)
    yield name, namespace
    world.cluster.kubectl("delete", "persistentvolume", name, "--wait=false")


def test_a_small_base_model_is_fine_tuned_by_a_pod(world: World, image: str, dataset: str, tmp_path: Path) -> None:
    context = tmp_path / "base"
    context.mkdir()
    shutil.copyfile(assets.provide(assets.BASE_MODEL), context / "model.gguf")
    base = world.push(context, "real/base:v1", _model("base", "model.gguf"))
    config = {**TRAINING, "batch_size": 2, "max_steps": 3, "lora_targets": ["q_proj", "v_proj"]}
    run = world.start(
        "fine_tune",
        base=base,
        dataset=dataset,
        config=config,
        destination="real/adapter:challenger",
        image=image,
        job={"cpu": "1", "memory": "4Gi"},
    )
    assert run.wait("success", "failed", timeout=900) == "success", run.log()
    answer = run.answer()
    with world.store() as store:
        reference, descriptor = store.resolve("real/adapter:challenger")
        target = store.target(reference)
        # The same training gives the same bytes: earlier tests may have attached theirs.
        found = find(target, descriptor, SLSA_PROVENANCE)
        (attached,) = [each for each in found if each.descriptor.digest == answer["provenance"]]
        sizes = [layer.size for layer in Links.parse(descriptor.media_type, target.fetch(descriptor).read()).blobs]
    assert answer["digest"] == descriptor.digest
    assert max(sizes) < 20_000_000, "the base is not packed again"
    built = attached.statement.predicate["buildDefinition"]
    named = {each["name"]: each for each in built["resolvedDependencies"]}
    assert named["base"]["uri"] == f"oci://{base}"
    assert named["dataset"]["uri"] == f"oci://{dataset}"
    assert named["image"]["digest"]["sha256"] == image.rpartition(":")[2]
    assert built["externalParameters"]["config"]["max_steps"] == 3
    assert answer["metrics"]["train_loss"] > 0
    assert answer["progress"]["step"] == answer["progress"]["total"] == 3
    assert re.search(r"\[work\] train \d/3, loss \d", run.log())
    assert run.leftovers() == []


def test_a_training_that_is_evicted_goes_on_at_the_step_it_left(
    world: World, image: str, dataset: str, tiny: str, claim: tuple[str, str]
) -> None:
    name, namespace = claim

    def start(destination: str, **job: Any) -> Run:
        return world.start(
            "fine_tune",
            namespace=namespace,
            base=tiny,
            dataset=dataset,
            config={**TRAINING, "max_steps": 1500, "checkpoint_steps": 0},
            destination=destination,
            image=image,
            job={"cpu": "500m", "memory": "3Gi", "grace_period": 60, **job},
        )

    run = start("tiny/evicted:latest", checkpoints={"persistentVolumeClaim": {"claimName": name}})
    pod = run.running("work", timeout=240)
    world.airflow.wait("the training to begin", lambda: "train " in run.log(), 240)
    run.evict(pod)
    whole = start("tiny/whole:latest")
    assert run.wait("success", "failed", timeout=600) == "success", run.log()
    log = run.log()
    left = re.search(r"Terminated: the checkpoint of step (\d+) is whole", log)
    resumed = re.search(r"Going on from the checkpoint of step (\d+)\.", log)
    assert left, log
    assert resumed, log
    assert left[1] == resumed[1]
    assert run.task()["try_number"] == 1
    # Nothing tells that it was interrupted: the same seed gives the same weights.
    assert whole.wait("success", "failed", timeout=600) == "success", whole.log()
    assert _adapter(world, run.answer()["reference"]) == _adapter(world, whole.answer()["reference"])
    assert run.leftovers() == []


def test_a_gpu_is_used_where_there_is_one(world: World, dataset: str, tiny: str) -> None:
    if world.cluster.machine is not None:
        pytest.skip("this machine's own cluster has no real GPU; KUBECONFIG may name one that has")
    nodes = world.cluster.get("nodes")["items"]
    if not any(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in nodes):
        pytest.skip("no node of the cluster has a GPU")
    image = f"{world.cluster.registry}/airflow-provider-kitops/trainer:{__version__}"
    run = world.start(
        "fine_tune",
        base=tiny,
        dataset=dataset,
        config={**TRAINING, "max_steps": 20, "device": "cuda"},
        destination="tiny/gpu:latest",
        image=image,
        job={"gpu": 1, "memory": "8Gi"},
    )
    assert run.wait("success", "failed", timeout=1100) == "success", run.log()
    assert "tokens/s" in run.log()


def test_the_example_dag_runs_on_the_cluster(world: World, image: str, dataset: str, tiny: str) -> None:
    """``base`` and ``dataset`` are found by their tags, the trainer's image by its usual name in the registry."""
    team = f"team-{secrets.token_hex(4)}"
    conf = {
        "model": f"{team}/classifier",
        "predictions": f"{team}/predictions",
        "steps": 24,
        "training": TRAINING,
        "generation": {"template": TRAINING["template"], "max_length": 48, "max_new_tokens": 4},
        "judge_model": None,
        "llm_conn_id": "judge",
    }
    airflow, dag = world.airflow, "champion_challenger"
    run_id = airflow.trigger(dag, conf)
    airflow.wait("the run to end", lambda: airflow.run_state(dag, run_id) in ("success", "failed"), 900)
    assert airflow.run_state(dag, run_id) == "success", airflow.logs()
    champion = airflow.xcom(dag, run_id, "promote")
    assert champion["digest"] == airflow.xcom(dag, run_id, "fine_tune")["digest"]
    with world.store() as store:
        assert store.resolve(f"{team}/classifier:champion")[1].digest == champion["digest"]


def _model(name: str, path: str) -> dict[str, Any]:
    return {"manifestVersion": "1.0.0", "model": {"name": name, "path": path}}


def _adapter(world: World, reference: str) -> list[str]:
    """Digests of the layers that hold an adapter."""
    with world.store() as store:
        full, descriptor = store.resolve(reference)
        links = Links.parse(descriptor.media_type, store.target(full).fetch(descriptor).read())
    return [layer.digest for layer in links.blobs if "model" in layer.media_type]
