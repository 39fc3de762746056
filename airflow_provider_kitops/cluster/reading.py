"""What is looked at of Jobs and pods, as the API gives them (JSON as mappings); fields may be missing, or null."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_provider_kitops.cluster.names import CONTROLLER_UID
from airflow_provider_kitops.workload.mounts import CONTAINERS

Json = Mapping[str, Any]


def status_of(thing: Json) -> Json:
    """Its status."""
    found: Json = thing.get("status") or {}
    return found


def conditions_of(thing: Json) -> dict[str, Json]:
    """The conditions of a Job or pod that hold, by their types."""
    return {each["type"]: each for each in status_of(thing).get("conditions") or [] if each.get("status") == "True"}


def is_finished(job: Json) -> bool:
    """Whether the Job has ended, and nothing of it runs any more."""
    return not {"Complete", "Failed"}.isdisjoint(conditions_of(job))


def container_states(pod: Json) -> Iterator[tuple[str, Json]]:
    """The containers of this package and their states, in the order in which they run."""
    found = _states(pod)
    for container in CONTAINERS:
        if container in found:
            yield container, found[container]


def other_states(pod: Json) -> Iterator[tuple[str, Json]]:
    """The containers of others and their states, but for sidecars, which run as long as there is anything else."""
    for container, state in _states(pod).items():
        if container not in CONTAINERS and container_of(pod, container).get("restartPolicy") != "Always":
            yield container, state


def _states(pod: Json) -> dict[str, Json]:
    status = status_of(pod)
    return {
        each["name"]: each.get("state") or {}
        for each in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or []))
    }


def container_of(pod: Json, name: str) -> Json:
    """A container as the pod's specification has it; empty if there is none."""
    spec = pod.get("spec") or {}
    containers = (*(spec.get("initContainers") or []), *(spec.get("containers") or []))
    return next((each for each in containers if each["name"] == name), {})


def owner_of(pod: Json) -> str:
    """The uid of the Job that a pod belongs to; empty if it belongs to none. A name may come again, a uid does not."""
    metadata = pod["metadata"]
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            return str(owner.get("uid") or "")
    return str((metadata.get("labels") or {}).get(CONTROLLER_UID) or "")


def created(thing: Json) -> datetime:
    """When it was made; now, if that is not known."""
    return time_of(thing["metadata"].get("creationTimestamp")) or datetime.now(UTC)


def time_of(text: Any) -> datetime | None:
    """A time as the API writes it."""
    return datetime.fromisoformat(str(text)) if text else None


def status_message(body: str | bytes | None) -> str:
    """What the API says of why it refuses (its ``Status``), in one line; empty if something else has answered."""
    try:
        return " ".join(str(json.loads(body or "")["message"]).split())
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
