"""What a Job that has not ended waits for, and for how long that is to be borne."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_kitops.cluster.outcome import Outcome
from airflow_provider_kitops.cluster.reading import Json, container_of, container_states
from airflow_provider_kitops.cluster.settings import JobSettings

# A wrong configuration may right itself when what it names is created a moment later, but not much later.
_CONFIG_PATIENCE = 60.0

# What a container that cannot start says, and whether it is an image that is missing.
_NO_CURE = {"InvalidImageName", "ErrImageNeverPull"}
_PULLING = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True)
class Waiting:
    """What is waited for.

    :param reason: one word.
    :param message: one line for people.
    :param since: since when, by the cluster's clock.
    :param patience: seconds to bear it from then on; ``None`` for ever.
    """

    reason: str
    message: str
    since: datetime
    patience: float | None = None

    def left(self, now: datetime) -> float | None:
        """Seconds that are left to wait; ``None`` if there is no limit."""
        return None if self.patience is None else self.patience - (now - self.since).total_seconds()

    def given_up(self, now: datetime) -> Outcome:
        """The outcome, where no time is left.

        A node that is not there today may be there tomorrow: only what cannot cure itself is not tried again.
        """
        waited = (now - self.since).total_seconds()
        return Outcome(
            self.reason,
            f"{self.message} (waited {waited:.0f} s)",
            retry=bool(self.patience) and self.reason in ("Unschedulable", "Starting", "ImagePull"),
            given_up=True,
        )


def waiting_for(job: Json, pods: Sequence[Json], settings: JobSettings) -> Waiting | None:
    """What the Job waits for; ``None`` if a container of it runs, or it has ended."""
    if job["spec"].get("suspend"):
        return Waiting("Suspended", "The Job is suspended: it waits in its queue.", _time(job))
    live = [pod for pod in pods if (pod.get("status") or {}).get("phase") in (None, "Pending", "Running", "Unknown")]
    live = [pod for pod in live if not pod["metadata"].get("deletionTimestamp")]
    if not live:
        return None
    pod = max(live, key=_time)
    if found := _container(pod, settings):
        return found
    if any("running" in state for _, state in container_states(pod)):
        return None
    return _unplaced(pod, settings) or _starting(pod, settings)


def _container(pod: Json, settings: JobSettings) -> Waiting | None:
    # A kubelet pulls images from when it took the pod: the wait for a node was another one.
    since = _parsed((pod.get("status") or {}).get("startTime")) or _time(pod)
    for container, state in container_states(pod):
        if ended := state.get("terminated"):
            # The next one has been waited for since this one ended.
            since = _parsed(ended.get("finishedAt")) or since
            continue
        waiting = state.get("waiting") or {}
        reason, said = waiting.get("reason", ""), " ".join((waiting.get("message") or "").split())
        image = _image(pod, container)
        if reason in _NO_CURE:
            return Waiting("ImagePull", f"{container} has no image {image}: {said or reason}", since, 0.0)
        if reason in _PULLING:
            text = f"{container} cannot pull {image}: {said or reason}"
            return Waiting("ImagePull", text, since, settings.image_pull_timeout)
        if reason in _CONFIG:
            return Waiting("CannotStart", f"{container} cannot be started: {said or reason}", since, _CONFIG_PATIENCE)
        return None
    return None


def _unplaced(pod: Json, settings: JobSettings) -> Waiting | None:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("status") == "False":
            said = " ".join((condition.get("message") or condition.get("reason") or "").split())
            if condition.get("reason") == "SchedulingGated":
                return Waiting("SchedulingGated", f"Pod {pod['metadata']['name']} is held back: {said}", _time(pod))
            text = f"No node takes pod {pod['metadata']['name']}: {said}"
            return Waiting("Unschedulable", text, _time(pod), settings.startup_timeout)
    return None


def _starting(pod: Json, settings: JobSettings) -> Waiting | None:
    states = list(container_states(pod))
    ended = [_parsed(state["terminated"].get("finishedAt")) for _, state in states if "terminated" in state]
    if states and len(ended) == len(states):
        return None
    # After the first container the next one's image is pulled.
    since = max((each for each in ended if each), default=_time(pod))
    what = "starts its next container" if ended else "is being started"
    return Waiting("Starting", f"Pod {pod['metadata']['name']} {what}.", since, settings.startup_timeout)


def _image(pod: Json, container: str) -> str:
    return str(container_of(pod, container).get("image") or "its image")


def _time(thing: Json) -> datetime:
    return _parsed(thing["metadata"].get("creationTimestamp")) or datetime.now(UTC)


def _parsed(text: Any) -> datetime | None:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00")) if text else None
