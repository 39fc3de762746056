"""What a Job that has not ended waits for, and for how long that is to be borne."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from airflow_provider_kitops.cluster.outcome import Outcome
from airflow_provider_kitops.cluster.reading import (
    Json,
    conditions_of,
    container_of,
    container_states,
    created,
    is_finished,
    other_states,
    status_of,
    time_of,
)
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.workload.mounts import PUBLISH

# A wrong configuration may right itself when what it names is created a moment later, but not much later.
_CONFIG_PATIENCE = 60.0
# What runs beside publish may have something left to do when that has ended.
_LINGER_PATIENCE = 60.0
# The longest that Kubernetes itself waits after a failure before it makes another pod.
_BACKOFF = 600.0

# What a container that cannot start says, and whether it is an image that is missing.
_NO_CURE = {"InvalidImageName", "ErrImageNeverPull"}
_PULLING = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}

# Of these Kubernetes does not tell since when they are so. What counts is since when they have been seen.
_SINCE_SEEN = ("ImagePull", "CannotStart", "NoPod")


@dataclass(frozen=True)
class Waiting:
    """What is waited for.

    :param reason: one word.
    :param message: one line for people.
    :param since: since when, by the cluster's clock, or since it was first seen. May be yet to come.
    :param patience: seconds to bear it from then on; ``None`` for ever.
    :param retry: whether another try may end otherwise. A node that is not there today may be there tomorrow.
    :param usual: whether it is so with every pod for a moment, and no news to anybody before it lasts.
    """

    reason: str
    message: str
    since: datetime
    patience: float | None = None
    retry: bool = True
    usual: bool = False

    def left(self, now: datetime) -> float | None:
        """Seconds that are left to wait; ``None`` if there is no limit."""
        return None if self.patience is None else self.patience - (now - self.since).total_seconds()

    def given_up(self, now: datetime) -> Outcome:
        """The outcome, where no time is left."""
        waited = (now - self.since).total_seconds()
        return Outcome(self.reason, f"{self.message} (waited {waited:.0f} s)", retry=self.retry, given_up=True)


def waiting_for(
    job: Json,
    pods: Sequence[Json],
    settings: JobSettings,
    *,
    before: Waiting | None = None,
    now: datetime | None = None,
) -> Waiting | None:
    """What the Job waits for; ``None`` if a container of it runs, or it has ended.

    :param pods: all its pods, those that were deleted (``deleted`` is set) as they were last seen.
    :param before: what it waited for when this was asked last.
    :param now: the time; by default that of this machine.
    """
    now = now or datetime.now(UTC)
    found = _found(job, pods, settings, now)
    if found is None or before is None:
        return found
    if found.reason == before.reason and found.reason in _SINCE_SEEN:
        return replace(found, since=before.since)
    if found.reason == "Unschedulable":
        # Nothing of a pod says when its last gate was opened. No node was looked for before that.
        if before.reason == "SchedulingGated":
            return replace(found, since=now)
        if before.reason == found.reason:
            return replace(found, since=max(found.since, before.since))
    return found


def _found(job: Json, pods: Sequence[Json], settings: JobSettings, now: datetime) -> Waiting | None:
    if is_finished(job):
        return None
    if job["spec"].get("suspend"):
        return Waiting("Suspended", "The Job is suspended: it waits in its queue.", created(job))
    if any(status_of(pod).get("phase") == "Succeeded" for pod in pods):
        return None
    live = [pod for pod in pods if not pod.get("deleted") and status_of(pod).get("phase") != "Failed"]
    staying = [pod for pod in live if not pod["metadata"].get("deletionTimestamp")]
    if not live:
        return _no_pod(job, settings, now, first=not pods)
    if not staying:
        return _terminating(max(live, key=created), settings, now)
    pod = max(staying, key=created)
    if found := _container(pod, settings, now) or _lingering(pod):
        return found
    if any("running" in state for _, state in (*container_states(pod), *other_states(pod))):
        return None
    return _unplaced(pod, settings) or _starting(pod, settings)


def _no_pod(job: Json, settings: JobSettings, now: datetime, *, first: bool) -> Waiting:
    """A Job says nothing of why it gets no pod: only its events do, which are another permission."""
    metadata = job["metadata"]
    text, patience = "Kubernetes has made no pod for the Job.", settings.startup_timeout
    if not first:
        text = "Kubernetes has made no other pod for the Job; it waits up to ten minutes after a failure."
        patience += _BACKOFF
    where = f" --namespace {metadata['namespace']}" if "namespace" in metadata else ""
    # Events outlive the Job, which may be deleted by the time that somebody looks.
    ask = f"kubectl{where} get events --field-selector involvedObject.name={metadata['name']}"
    more = f"A quota, admission or a missing account may forbid it: {ask}"
    return Waiting("NoPod", f"{text} {more}", now, patience, usual=True)


def _terminating(pod: Json, settings: JobSettings, now: datetime) -> Waiting:
    """As long as a node that does not answer is in the cluster, Kubernetes takes it that the pod may run there."""
    node = (pod.get("spec") or {}).get("nodeName") or "its node"
    text = f"Pod {pod['metadata']['name']} does not end: {node} does not answer, and no other pod starts before it has."
    # This time has the grace period in it.
    since = time_of(pod["metadata"].get("deletionTimestamp")) or now
    return Waiting("Terminating", text, since, settings.startup_timeout, usual=True)


def _container(pod: Json, settings: JobSettings, now: datetime) -> Waiting | None:
    for container, state in container_states(pod):
        if "terminated" in state:
            continue
        waiting = state.get("waiting") or {}
        reason, said = waiting.get("reason", ""), " ".join((waiting.get("message") or "").split())
        image = container_of(pod, container).get("image") or "its image"
        if reason in _NO_CURE:
            return Waiting("ImagePull", f"{container} has no image {image}: {said or reason}", now, 0.0, retry=False)
        if reason in _PULLING:
            text = f"{container} cannot pull {image}: {said or reason}"
            return Waiting("ImagePull", text, now, settings.image_pull_timeout)
        if reason in _CONFIG:
            text = f"{container} cannot be started: {said or reason}"
            return Waiting("CannotStart", text, now, _CONFIG_PATIENCE, retry=False)
        return None
    return None


def _lingering(pod: Json) -> Waiting | None:
    """What goes on though all is done: a container that somebody put beside ``publish``."""
    ended = dict(container_states(pod)).get(PUBLISH, {}).get("terminated")
    others = [container for container, state in other_states(pod) if "running" in state]
    if not ended or not others:
        return None
    text = f"publish has ended, but pod {pod['metadata']['name']} goes on: {', '.join(others)} still runs."
    since = time_of(ended.get("finishedAt")) or created(pod)
    return Waiting("Lingering", text, since, _LINGER_PATIENCE, usual=True)


def _unplaced(pod: Json, settings: JobSettings) -> Waiting | None:
    for condition in status_of(pod).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("status") == "False":
            said = " ".join((condition.get("message") or condition.get("reason") or "").split())
            if condition.get("reason") == "SchedulingGated":
                return Waiting("SchedulingGated", f"Pod {pod['metadata']['name']} is held back: {said}", created(pod))
            text = f"No node takes pod {pod['metadata']['name']}: {said}"
            return Waiting("Unschedulable", text, created(pod), settings.startup_timeout)
    return None


def _starting(pod: Json, settings: JobSettings) -> Waiting | None:
    states = list(container_states(pod))
    ended = [time_of(state["terminated"].get("finishedAt")) for _, state in states if "terminated" in state]
    if states and len(ended) == len(states):
        return None
    # The wait for a node was another one, and after the first container the next one's image is pulled.
    since = max((each for each in ended if each), default=_placed(pod))
    what = "starts its next container" if ended else "is being started"
    text = f"Pod {pod['metadata']['name']} {what}."
    return Waiting("Starting", text, since, settings.startup_timeout, usual=True)


def _placed(pod: Json) -> datetime:
    """When a node was found for the pod, and took it."""
    scheduled = conditions_of(pod).get("PodScheduled") or {}
    return time_of(status_of(pod).get("startTime")) or time_of(scheduled.get("lastTransitionTime")) or created(pod)
