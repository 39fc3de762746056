"""How a Job ended, in one line, and whether it is worth trying again.

Works on the API's own objects (JSON as mappings), so it knows no client and can be tested on recorded ones.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Self

from airflow_provider_kitops.cluster.job import KILLED, TERMINATED
from airflow_provider_kitops.cluster.names import OUTCOME
from airflow_provider_kitops.cluster.reading import (
    Json,
    conditions_of,
    container_of,
    container_states,
    created,
    other_states,
    status_of,
    time_of,
)
from airflow_provider_kitops.cluster.text import plain
from airflow_provider_kitops.workload.metrics import readable, too_deep
from airflow_provider_kitops.workload.mounts import FETCH, PUBLISH, WORK
from airflow_provider_kitops.workload.progress import parse_progress

_GPU_MEMORY = re.compile(
    r"CUDA (out of memory|error: out of memory)|HIP out of memory|torch\.(cuda\.)?OutOfMemoryError"
)
_LINE_LIMIT = 500  # characters of a program's or of Kubernetes' words in a message
_DETAIL_LINES = 20

#: What takes a pod away without being its fault, by the reason of its condition DisruptionTarget.
_DISRUPTIONS = {
    "PreemptionByScheduler": "was preempted by a pod of higher priority",
    "DeletionByTaintManager": "was taken off its node, whose taint it does not tolerate (a lost node has one)",
    "EvictionByEvictionAPI": "was evicted",
    "DeletionByPodGC": "was removed, for its node is gone",
    "TerminationByKubelet": "was ended by its node, which ran short of something or was shut down",
}


@dataclass(frozen=True)
class Outcome:
    """How a Job ended.

    :param reason: one word; the pages' table lists them.
    :param message: one line for people.
    :param succeeded: whether the output is published.
    :param retry: whether another try may end otherwise.
    :param given_up: whether the Job itself has not ended, but is waited for no longer.
    :param container: the container that it is about, if it is about one.
    :param exit_code: its exit code.
    :param detail: the last lines that the container wrote.
    :param result: what ``publish`` told.
    """

    reason: str
    message: str
    succeeded: bool = False
    retry: bool = False
    given_up: bool = False
    container: str | None = None
    exit_code: int | None = None
    detail: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values, for an event or an XCom."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Self:
        """What ``to_json`` made, of another version, too: a task may wait while this package is replaced.

        :raises TypeError: a field is missing.
        """
        known = {each.name for each in fields(cls)}
        return cls(**{name: each for name, each in value.items() if name in known})


def outcome_of(job: Json | None, pods: Sequence[Json], *, retry_exit_codes: Sequence[int] = ()) -> Outcome | None:
    """How the Job ended; ``None`` while it has not.

    :param job: batch/v1 Job; ``None`` if it is gone.
    :param pods: its pods, as far as they are still known.
    :param retry_exit_codes: exit codes of the program after which another try is worth it.
    """
    if job is None:
        return _deleted(pods, retry_exit_codes)
    conditions = conditions_of(job)
    if "Complete" in conditions:
        return _published(pods)
    failed = conditions.get("Failed")
    if failed is None:
        if job["metadata"].get("deletionTimestamp"):
            return _deleted(pods, retry_exit_codes)
        return None
    if found := published(pods) or _given_up(job):
        return found
    if failed.get("reason") == "DeadlineExceeded":
        limit = job["spec"].get("activeDeadlineSeconds")
        return Outcome("DeadlineExceeded", f"The Job ran past its deadline of {limit} s and was ended.", retry=True)
    for pod in sorted(pods, key=created, reverse=True):
        if found := failure_of(pod, retry_exit_codes=retry_exit_codes):
            return found
    said = _line(failed.get("message") or failed.get("reason") or "")
    return Outcome("JobFailed", f"The Job failed, and no pod is left that tells why: {said}", retry=True)


def _given_up(job: Json) -> Outcome | None:
    """Why this package itself ended the Job, whose deadline is but the means."""
    text = (job["metadata"].get("annotations") or {}).get(OUTCOME)
    try:
        return replace(Outcome.of_json(_json(text) or {}), succeeded=False, given_up=False)
    except TypeError:  # none, or somebody edited it
        return None


def published(pods: Sequence[Json]) -> Outcome | None:
    """The outcome where a pod has published; that stays so whatever becomes of its Job, such as meeting a deadline."""
    found = _published(pods)
    return found if found.succeeded else None


def failure_of(pod: Json, *, retry_exit_codes: Sequence[int] = ()) -> Outcome | None:
    """Why a pod failed; ``None`` if nothing of it says so."""
    name, status = pod["metadata"]["name"], status_of(pod)
    if condition := conditions_of(pod).get("DisruptionTarget"):
        reason = condition.get("reason", "")
        said = _DISRUPTIONS.get(reason, f"was taken away ({reason})")
        return Outcome("Disrupted", f"Pod {name} {said}: {_line(condition.get('message') or reason)}", retry=True)
    if status.get("reason") == "Evicted":
        # Without a disruption it was no shortage of the node: the pod used more of a volume, or of the disk, than it
        # may, and would again. Only old versions do not tell which.
        said = _line(status.get("message") or "")
        return Outcome("Evicted", f"Pod {name} was evicted: {said}", retry=said.startswith("The node "))
    # Those of this package first: the others, which pod_override or the cluster may have added, may fail for theirs.
    for container, state in (*container_states(pod), *other_states(pod)):
        ended = state.get("terminated")
        if ended and ended.get("exitCode") != 0:
            return _container_failure(pod, container, ended, retry_exit_codes)
    if status.get("phase") == "Failed":
        words = ": ".join(each for each in (status.get("reason"), status.get("message")) if each)
        said = _line(words or "Kubernetes does not say why.")
        return Outcome("PodFailed", f"Pod {name} failed: {said}", retry=True)
    return None


def _deleted(pods: Sequence[Json], retry_exit_codes: Sequence[int]) -> Outcome:
    """How a Job ended that is gone: it may have done its work, or failed for good, before that was seen."""
    if found := published(pods):
        return found
    last = max(pods, key=created, default=None)
    found = failure_of(last, retry_exit_codes=retry_exit_codes) if last else None
    # A program may end with any code when it is told to, which the deletion did.
    if last and found and not found.retry and _ended_before_its_deletion(last):
        return found
    return Outcome("JobDeleted", "The Job was deleted by somebody else before it ended.", retry=True)


def _ended_before_its_deletion(pod: Json) -> bool:
    """Whether a container failed before the pod was told to end."""
    deleted = time_of(pod["metadata"].get("deletionTimestamp"))
    if deleted is None:
        return True
    told = deleted - timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds") or 0)
    failed = (state.get("terminated") or {} for _, state in container_states(pod))
    times = [time_of(each.get("finishedAt")) for each in failed if each.get("exitCode")]
    return any(each < told for each in times if each)


def _published(pods: Sequence[Json]) -> Outcome:
    for pod in sorted(pods, key=created, reverse=True):
        for container, state in container_states(pod):
            ended = state.get("terminated")
            if container != PUBLISH or not ended:
                continue
            # It tells a digest only of what is published, and may have been killed in clearing up after that.
            if result := _result(ended.get("message")):
                return Outcome("Completed", f"Published {result['digest']}.", succeeded=True, result=result)
            if ended.get("exitCode") == 0:
                said = _line(ended.get("message") or "nothing")
                return Outcome("NoResult", f"The container publish ended well but told no digest: {said}")
    return Outcome("NoResult", "The Job completed, but its pod is gone, and with it the digest.", retry=True)


def _result(text: str | None) -> dict[str, Any] | None:
    """What ``publish`` told, if it names a digest.

    The container is not trusted to have cleaned it: a value nested too deeply is None, and no key is Airflow's own.
    """
    told = _json(text)
    if not told or not isinstance(told.get("digest"), str):
        return None
    result: dict[str, Any] = readable({name: None if too_deep(each) else each for name, each in told.items()})
    return result


def _container_failure(pod: Json, container: str, ended: Json, retry_exit_codes: Sequence[int]) -> Outcome:
    code, said = ended.get("exitCode"), readable(ended.get("message") or "")
    reason = ended.get("reason") or ""

    def outcome(word: str, message: str, *, retry: bool, detail: str = "") -> Outcome:
        return Outcome(word, message, retry=retry, container=container, exit_code=code, detail=detail)

    if reason == "OOMKilled":
        limit = _memory_limit(pod, container)
        more = " Give it more memory, or make it use less." if container == WORK else ""
        return outcome(
            "OOMKilled",
            f"{container} used more memory than {limit} and was killed (exit code {code}).{more}",
            retry=False,
        )
    if reason in ("Unknown", "ContainerStatusUnknown"):
        # What the container runtime, or the kubelet, says after it was restarted (with an exit code of its own).
        return outcome("Lost", f"{container} was lost: its node was restarted, or knows no more of it.", retry=True)
    if reason in ("StartError", "ContainerCannotRun"):
        return outcome("CannotStart", f"{container} could not be started: {_line(said)}", retry=False)
    if container in (FETCH, PUBLISH):
        told = _json(said)
        if told and isinstance(told.get("error"), str):
            word = "StepUnavailable" if told.get("transient") else "StepFailed"
            return outcome(
                word,
                f"{container} failed (exit code {code}): {_line(readable(told['error']))}",
                retry=bool(told.get("transient")),
            )
    if code == KILLED:
        return outcome("Killed", f"{container} was killed by SIGKILL (exit code {code}).", retry=True)
    if code == TERMINATED:
        return outcome("Terminated", f"{container} was ended by SIGTERM (exit code {code}).", retry=True)
    # What it wrote of its progress is no reason.
    lines = [plain(line) for line in said.splitlines() if line.strip() and parse_progress(line) is None]
    detail = "\n".join(lines[-_DETAIL_LINES:])
    if _GPU_MEMORY.search(said):
        found = next((line for line in reversed(lines) if _GPU_MEMORY.search(line)), "")
        return outcome(
            "CudaOutOfMemory",
            f"{container} ran out of GPU memory (exit code {code}): {_line(found)} "
            "Use smaller batches, or a larger GPU.",
            retry=False,
            detail=detail,
        )
    last = f": {_line(lines[-1])}" if lines else " and wrote nothing."
    return outcome(
        "ProgramFailed", f"{container} ended with exit code {code}{last}", retry=code in retry_exit_codes, detail=detail
    )


def _memory_limit(pod: Json, container: str) -> str:
    limit = ((container_of(pod, container).get("resources") or {}).get("limits") or {}).get("memory")
    return f"its limit of {limit}" if limit else "its node had"


def _json(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "", parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _line(text: str) -> str:
    words = " ".join(plain(each) for each in text.split())
    return words if len(words) <= _LINE_LIMIT else words[: _LINE_LIMIT - 1] + "…"
