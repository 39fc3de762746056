"""A real Airflow whose Jobs run on the test cluster."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_kitops.modelkit.kitfile import parse_kitfile
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.cluster.cluster import Cluster
from tests.integration.airflow.harness import Airflow

#: What belongs to a Job, as kubectl names it.
KINDS = ("jobs", "pods", "secrets", "configmaps")


@dataclass(frozen=True)
class Run:
    """A run of one of the DAGs in ``dags``, in a namespace of its own."""

    world: World
    dag_id: str
    run_id: str
    namespace: str

    def task(self) -> dict[str, Any]:
        return self.world.airflow.task(self.dag_id, self.run_id, "run")

    def state(self) -> str:
        return str(self.task()["state"])

    def wait(self, *states: str, timeout: float = 240) -> str:
        """Wait for the task to be in one of these states."""
        what = f"{self.dag_id} {self.run_id} to be {' or '.join(states)}"
        self.world.airflow.wait(what, lambda: self.state() in states, timeout)
        return self.state()

    def answer(self) -> dict[str, Any]:
        """What the task returned."""
        assert self.wait("success", "failed") == "success", self.log()
        return dict(self.world.airflow.xcom(self.dag_id, self.run_id, "run"))

    def failure(self) -> dict[str, Any]:
        """The XCom of the failed Job."""
        assert self.wait("success", "failed") == "failed", self.log()
        entry = self.world.airflow.api(
            "GET",
            f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/run/xcomEntries/failure?deserialize=true",
        )
        assert entry, self.log()
        return dict(entry["value"])

    def log(self, attempt: int = 0) -> str:
        """The task's log, as Airflow shows it; of all tries by default."""
        tries = [attempt] if attempt else range(1, int(self.task()["try_number"]) + 1)
        texts = []
        for number in tries:
            path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/run/logs/{number}?full_content=true"
            content = (self.world.airflow.api("GET", path) or {}).get("content") or []
            for entry in content:
                texts.append(str(entry["event"]))
                texts += [f"{each['exc_type']}: {each['exc_value']}" for each in entry.get("error_detail") or []]
        return "\n".join(texts)

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.world.cluster.get("jobs", f"--namespace={self.namespace}")["items"])

    def pods(self) -> list[dict[str, Any]]:
        return list(self.world.cluster.get("pods", f"--namespace={self.namespace}")["items"])

    def running(self, container: str, *, but: Sequence[str] = (), timeout: float = 120) -> str:
        """Wait until a container runs; its pod's name.

        :param but: pods that do not count.
        """

        def look() -> str:
            for pod in self.pods():
                status = pod["status"]
                for each in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
                    if each["name"] == container and "running" in each["state"] and pod["metadata"]["name"] not in but:
                        return str(pod["metadata"]["name"])
            return ""

        return str(self.world.airflow.wait(f"{container} to run in {self.namespace}", look, timeout))

    def evict(self, pod: str) -> None:
        """Evict a pod, as draining its node does."""
        metadata = {"name": pod, "namespace": self.namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self.world.cluster.kubectl("create", "--raw", path, "--filename=-", input=json.dumps(eviction))

    def leftovers(self) -> list[str]:
        """What is there of the provider's, by kind and name; waits until what is being deleted is gone."""
        end = time.monotonic() + 60
        while (found := self.things()) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def things(self) -> list[str]:
        label = "--selector=app.kubernetes.io/managed-by=airflow-provider-kitops"
        found = self.world.cluster.get(",".join(KINDS), f"--namespace={self.namespace}", label)["items"]
        return [f"{each['kind']}/{each['metadata']['name']}" for each in found]


@dataclass(frozen=True)
class World:
    """Airflow, cluster and images together."""

    airflow: Airflow
    cluster: Cluster
    image: str
    steps: str
    namespaces: list[str] = field(default_factory=list)

    def namespace(self) -> str:
        """A new namespace, which is removed at the end of all."""
        name = f"kitops-jobs-{secrets.token_hex(4)}"
        self.cluster.kubectl("create", "namespace", name)
        self.namespaces.append(name)
        return name

    def store(self) -> Store:
        return Store(StoreConfig(registry=self.cluster.registry, plain_http=True))

    def push(self, directory: Path, reference: str, kitfile: dict[str, Any]) -> str:
        """Pack a directory into the cluster's registry; the reference by digest."""
        with self.store() as store:
            name = store.reference(reference)
            target = store.target(name)
            made = pack(directory, parse_kitfile(json.dumps(kitfile)), target, None)
            if name.tag:
                target.tag(made.descriptor, name.tag)
            return str(name.at(made.descriptor.digest))

    def start(self, dag_id: str, *, namespace: str = "", **conf: Any) -> Run:
        """Start a run.

        :param namespace: where its Job goes; by default one of its own.
        :param conf: the DAG's params; the Job's namespace is added.
        """
        namespace = namespace or self.namespace()
        job = {"namespace": namespace, "cpu": "100m", **conf.pop("job", {})}
        conf = {"image": self.image, **conf, "job": job}
        return Run(self, dag_id, self.airflow.trigger(dag_id, conf), namespace)

    def script(self, text: str, **more: Any) -> dict[str, Any]:
        """The conf of a run of a shell script."""
        return {"command": ["sh", "-c", text], **more}
