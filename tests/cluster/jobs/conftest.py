"""One Airflow for all tests of Jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_kitops.cluster.names import MANAGED_BY, selector
from tests.cluster.cluster import Cluster
from tests.cluster.images import busybox_image, steps_image
from tests.cluster.jobs.gates import Gates
from tests.cluster.jobs.world import World
from tests.fake_judge import KEY, FakeJudge, fake_judge
from tests.integration.airflow.harness import Airflow
from tests.integration.airflow.test_champion_challenger import LABELS
from tests.postgres import run_postgres
from tests.registry import PASSWORD, USERNAME

_ROOT = Path(__file__).parents[3]
_DAGS = (Path(__file__).parent / "dags" / "workloads.py", _ROOT / "dags" / "champion_challenger.py")


@pytest.fixture(scope="session")
def world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Airflow with all its processes, connected to the cluster and its registries."""
    image = busybox_image(cluster)
    steps = steps_image(cluster)

    def registry(host: str, **more: str) -> dict[str, object]:
        return {"conn_type": "kitops", "host": host, "extra": {"plain_http": True}, **more}

    dags = tmp_path_factory.mktemp("dags")
    for path in _DAGS:
        (dags / path.name).symlink_to(path)
    judge = FakeJudge(quality=lambda text: 4.0 if text.strip() in LABELS else 0.0, first_bias=1.0)
    judge_running = contextlib.ExitStack()
    judge_running.enter_context(fake_judge(judge))
    airflow = Airflow(
        tmp_path_factory.mktemp("airflow"),
        dags,
        {
            "kitops_default": registry(cluster.registry),
            "private": registry(cluster.private_registry, login=USERNAME, password=PASSWORD),
            "stranger": registry(cluster.private_registry, login=USERNAME, password="not the password"),
            "kubernetes_default": {
                "conn_type": "kubernetes",
                "extra": {"kube_config_path": str(cluster.kubeconfig)},
            },
            "judge": {
                "conn_type": "generic",
                "host": f"http://127.0.0.1:{judge.port}/v1",
                "password": KEY,
                "extra": {"model": "fake"},
            },
        },
    )
    airflow.env["AIRFLOW__CORE__PARALLELISM"] = "8"
    airflow.env["AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"] = "3600"  # nobody changes these files
    _import_once(airflow)
    # The one setting that takes the example DAG from this machine to the cluster.
    airflow.env["AIRFLOW__KITOPS__EXECUTION"] = "kubernetes"
    with (
        judge_running,
        run_postgres() as database,
        contextlib.ExitStack() as running,
    ):
        airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"postgresql+psycopg2://{database}"
        airflow.migrate()
        running.enter_context(airflow.processes())
        world = World(airflow, cluster, image, steps)
        yield world
    for name in world.namespaces:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
    if world.namespaces:
        mine = f"--selector={selector(dict(MANAGED_BY))}"
        cluster.kubectl("delete", "pods", mine, "--all-namespaces", "--now", "--wait=false")


@pytest.fixture(scope="session")
def gates(world: World) -> Iterator[Gates]:
    """Gates that programs of pods may wait at."""
    if world.cluster.machine is None:
        pytest.skip("pods ask this machine, and KUBECONFIG names another cluster")
    gates = Gates(world.cluster.registry.partition(":")[0])
    yield gates
    gates.server.shutdown()


def _import_once(airflow: Airflow) -> None:
    """Let the scheduler import what every task imports: tasks are forks of it, and start seconds sooner."""
    settings = airflow.home / "config" / "airflow_local_settings.py"
    settings.parent.mkdir(exist_ok=True)
    modules = ("sdk.execution_time.task_runner", "providers.cncf.kubernetes.hooks.kubernetes")
    settings.write_text("".join(f"import airflow.{module}\n" for module in modules))
