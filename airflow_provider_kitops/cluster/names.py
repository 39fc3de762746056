"""Names and labels by which a Job and what belongs to it are found again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

_DOMAIN = "airflow-provider-kitops.dev"

#: On everything that this package makes; the triggerer watches pods by it.
MANAGED_BY: Mapping[str, str] = {"app.kubernetes.io/managed-by": "airflow-provider-kitops"}
#: Label: which task instance a Job belongs to, whatever its try.
TASK = f"{_DOMAIN}/task"
#: Label: which work it is, so that a Job of a task that was changed meanwhile is not taken for this one.
SPECIFICATION = f"{_DOMAIN}/specification"
#: Label, set when a task has told how the Job ended: nobody goes on from it any more.
REPORTED = f"{_DOMAIN}/reported"
#: Annotation: up to when the task's log holds what the containers said.
LOGGED = f"{_DOMAIN}/logged-until"
#: Annotation: id of the try that goes on with the Job. Airflow's are UUIDs of version 7: a later try's is larger.
TRY = f"{_DOMAIN}/try"
#: Annotation of a Job that was let run once: who suspends it after that means it.
STARTED = f"{_DOMAIN}/started"
#: Annotation of a Job that was given up: how, as JSON, for whoever follows it next.
OUTCOME = f"{_DOMAIN}/outcome"
#: Label by which Kueue finds what waits in its queues.
QUEUE = "kueue.x-k8s.io/queue-name"
#: Labels that Kubernetes puts on the pods of a Job: its name, and its uid.
JOB_NAME = "batch.kubernetes.io/job-name"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"

#: Labels and annotations that nobody may set, for a Job is found and gone on from by them; with "/" whole domains.
RESERVED = (f"{_DOMAIN}/", *MANAGED_BY, "batch.kubernetes.io/", "job-name", "controller-uid")

# Pods add eleven characters to it at the most, and a label's value has 63 at the most.
_NAME_LIMIT = 52


@dataclass(frozen=True)
class TaskKey:
    """A task instance, without its try.

    :param map_index: -1 where the task is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def label(self) -> str:
        """The same as a label's value: ids may hold what labels may not."""
        text = json.dumps([self.dag_id, self.run_id, self.task_id, self.map_index])
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def annotations(self) -> dict[str, str]:
        """The ids as a person who finds the Job reads them."""
        ids = {
            f"{_DOMAIN}/dag-id": self.dag_id,
            f"{_DOMAIN}/run-id": self.run_id,
            f"{_DOMAIN}/task-id": self.task_id,
        }
        return ids if self.map_index < 0 else {**ids, f"{_DOMAIN}/map-index": str(self.map_index)}

    def job_name(self, attempt: str) -> str:
        """Name of the Job of one attempt: the same attempt cannot make two."""
        tail = f"-{self.label[:8]}-{attempt}"
        slug = re.sub(r"[^a-z0-9]+", "-", self.task_id.lower()).strip("-") or "workload"
        return slug[: _NAME_LIMIT - len(tail)].rstrip("-") + tail


def digest_label(digest: str) -> str:
    """A digest as a label's value."""
    return digest.removeprefix("sha256:")[:40]


def selector(labels: Mapping[str, str]) -> str:
    """Labels as a label selector."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
