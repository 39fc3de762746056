"""A workload as a batch/v1 Job with what it mounts (DESIGN "Workload").

One pod, whose containers run one after the other: ``fetch`` and ``work`` as init containers, then ``publish``. So the
program needs no wrapper, any image will do, and nothing is published unless the program ended with 0.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.cluster.merge import merged
from airflow_provider_kitops.cluster.names import (
    MANAGED_BY,
    QUEUE,
    SPECIFICATION,
    STARTED,
    TASK,
    TRY,
    TaskKey,
    digest_label,
)
from airflow_provider_kitops.cluster.placement import placement
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.oci.canonical import json_digest
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.mounts import (
    CACHE_MOUNT,
    CONTAINERS,
    DOCKER_CONFIG,
    FETCH,
    JOB_MOUNT,
    PUBLISH,
    SECRET_MOUNT,
    SIGNING_KEY,
    WORK,
)
from airflow_provider_kitops.workload.spec import CHECKPOINTS, CONFIG, DIRECTORIES, INPUTS, OUTPUT, WorkloadSpec

#: Annotation of a Job: name of the config map and the secret that it mounts.
MOUNTED = "airflow-provider-kitops.dev/mounted"

#: Exit codes of a program that was ended from outside, by SIGKILL and by SIGTERM.
KILLED, TERMINATED = 137, 143

_USER = 65532  # the user "nonroot" of images that have one
_STEP_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
_STATE_MOUNT = "/state"


@dataclass(frozen=True)
class JobObjects:
    """What is created for one workload, as the API takes it.

    The Job is created suspended. The others name it as their owner, so that they go when it goes, and are created when
    its uid is known; then it is let run.

    :param job: batch/v1 Job.
    :param config_map: what the steps read.
    :param secret: credentials; ``None`` where there are none.
    """

    job: dict[str, Any]
    config_map: dict[str, Any]
    secret: dict[str, Any] | None

    def owned(self, job: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Config map and secret as property of a Job that is there, under the name by which it mounts them."""
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": False,
        }

        def own(thing: dict[str, Any]) -> dict[str, Any]:
            return {**thing, "metadata": {**thing["metadata"], "name": mounted_by(job), "ownerReferences": [owner]}}

        return own(self.config_map), own(self.secret) if self.secret else None


def job_objects(
    spec: WorkloadSpec,
    settings: JobSettings,
    *,
    task: TaskKey,
    name: str,
    mounted: str,
    namespace: str,
    steps_image: str,
    files: Mapping[str, str],
    secrets: Mapping[str, bytes],
    deadline: float | None = None,
    try_id: str = "",
) -> JobObjects:
    """The objects that run ``spec``.

    :param task: whose Job it is.
    :param name: the Job's (``TaskKey.job_name``).
    :param mounted: name of the config map and the secret. One that nobody can guess: whoever made a config map of that
        name before would say what is published, with the credentials of this one.
    :param steps_image: image of the containers that fetch and publish.
    :param files: what the steps read, by name (``workload.mounts``).
    :param secrets: the same for credentials; only ``publish`` gets the signing key.
    :param deadline: seconds; stands in for ``settings.deadline`` where that is not set.
    :param try_id: Airflow's id of the try that makes the Job.
    :raises InvalidInput: the specification names no image.
    """
    if not spec.image:
        raise InvalidInput("A workload on Kubernetes needs an image.", hint="Set image in job.")
    labels = {
        **settings.labels,
        **MANAGED_BY,
        TASK: task.label,
        SPECIFICATION: digest_label(spec.digest),
    }
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": {**settings.annotations, **task.annotations()},
    }
    template = {
        "metadata": {"labels": labels, "annotations": metadata["annotations"]},
        "spec": merged(_pod(spec, settings, task, mounted, steps_image, secrets), settings.pod_override),
    }
    limit = settings.deadline or deadline
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            **metadata,
            "labels": {**labels, **_queue(settings)},
            "annotations": {**metadata["annotations"], MOUNTED: mounted, TRY: try_id},
        },
        "spec": {
            "suspend": True,
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": settings.backoff_limit,
            "podFailurePolicy": {"rules": _failure_rules(template["spec"])},
            "template": template,
            **({"activeDeadlineSeconds": max(1, round(limit))} if limit else {}),
            # Of one that is to be kept, it is taken back when the task has told its end: nobody may come to do so.
            "ttlSecondsAfterFinished": settings.ttl,
        },
    }
    shared = {**metadata, "name": mounted}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": shared, "data": dict(files)}
    if not secrets:
        return JobObjects(job, config_map, None)
    data = {key: base64.b64encode(value).decode() for key, value in secrets.items()}
    # A kubelet takes only Secrets of this type for pulling images.
    kind = "kubernetes.io/dockerconfigjson" if DOCKER_CONFIG in data else "Opaque"
    return JobObjects(
        job, config_map, {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": shared, "data": data}
    )


def mounted_by(job: Mapping[str, Any]) -> str:
    """Name of the config map and the secret of a Job."""
    return str((job["metadata"].get("annotations") or {}).get(MOUNTED) or job["metadata"]["name"])


def is_queued(job: Mapping[str, Any]) -> bool:
    """Whether Kueue, and not this package, lets the Job run."""
    return QUEUE in (job["metadata"].get("labels") or {})


def is_held(job: Mapping[str, Any]) -> bool:
    """Whether the Job waits for this package to let it run, for the first time."""
    annotations = job["metadata"].get("annotations") or {}
    return bool(job["spec"].get("suspend")) and not is_queued(job) and STARTED not in annotations


def _queue(settings: JobSettings) -> dict[str, str]:
    return {QUEUE: settings.queue} if settings.queue else {}


def _failure_rules(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which failures of a pod of this specification start it again.

    What took the pod away (eviction, preemption, a lost node) costs none of ``backoffLimit``; what the program or a
    step says by its exit code ends the Job at once. In between are ends that came from outside, which cost one.
    """

    def ends_the_job(container: str, unless: Sequence[int]) -> dict[str, Any]:
        codes = {"containerName": container, "operator": "NotIn", "values": list(unless)}
        return {"action": "FailJob", "onExitCodes": codes}

    # Sidecars are started again by themselves, and their exit codes not looked at.
    everybody = [each for key in ("initContainers", "containers") for each in pod.get(key) or []]
    names = [each.get("name") for each in everybody if each.get("restartPolicy") != "Always"]
    others = [name for name in names if name and name not in CONTAINERS]
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ends_the_job(FETCH, [KILLED, TERMINATED]),
        # Kubernetes cannot tell a program that used too much memory from one that was killed: both are 137. The former
        # would do it again, after all of the work.
        ends_the_job(WORK, [TERMINATED]),
        *(ends_the_job(container, [TERMINATED]) for container in (PUBLISH, *others)),
    ]


def _pod(
    spec: WorkloadSpec,
    settings: JobSettings,
    task: TaskKey,
    mounted: str,
    steps_image: str,
    secrets: Mapping[str, bytes],
) -> dict[str, Any]:
    checkpoints = checkpoints_directory(task, spec)
    scratch = {directory: {"name": "scratch", "subPath": directory.strip("/")} for directory in _SCRATCH}

    def mount(directory: str, *, read_only: bool = False) -> dict[str, Any]:
        return {**scratch[directory], "mountPath": directory, **({"readOnly": True} if read_only else {})}

    def temporary(container: str) -> dict[str, Any]:
        # Each has its own: what the program leaves there is nothing for those that hold credentials.
        return {"name": "scratch", "subPath": f"tmp-{container}", "mountPath": "/tmp"}  # noqa: S108

    kept: dict[str, Any] = {"name": "checkpoints", "mountPath": DIRECTORIES[CHECKPOINTS], "subPath": checkpoints}
    job: dict[str, Any] = {"name": "job", "mountPath": JOB_MOUNT, "readOnly": True}
    secret, signing = (
        [{"name": volume, "mountPath": SECRET_MOUNT, "readOnly": True}] if keys else []
        for volume, keys in _secret_volumes(secrets).items()
    )
    cache: list[dict[str, Any]] = [{"name": "cache", "mountPath": CACHE_MOUNT}] if settings.cache else []

    def step(container: str, mounts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "name": container,
            "image": steps_image,
            # -P: nothing is imported from the working directory, whatever somebody put there.
            "command": ["python", "-P", "-m", "airflow_provider_kitops.workload.container", container],
            "resources": _STEP_RESOURCES,
            "securityContext": _confined(),
            # A step tells by itself how it failed, unless it could not even begin: by an image that is not its own.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [job, *mounts, mount(_STATE_MOUNT), temporary(container)],
        }

    work = {
        "name": WORK,
        "image": spec.image,
        "command": [_literal(each) for each in spec.command],
        "env": _environment(spec),
        "resources": _resources(settings),
        "securityContext": _confined(),
        # What a program said last is kept with the pod, where no log has to be asked for.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount(DIRECTORIES[INPUTS], read_only=True),
            mount(DIRECTORIES[CONFIG], read_only=True),
            mount(DIRECTORIES[OUTPUT]),
            kept,
            temporary(WORK),
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }
    filled = [mount(DIRECTORIES[each]) for each in (INPUTS, CONFIG, OUTPUT)]
    fetch_mounts = [*secret, *cache, *filled]
    publish_mounts = [*signing, mount(DIRECTORIES[OUTPUT], read_only=True), kept]
    pull_secrets = [*settings.image_pull_secrets, *([mounted] if DOCKER_CONFIG in secrets else [])]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace_period,
        "automountServiceAccountToken": settings.service_account is not None,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [step(FETCH, fetch_mounts), work],
        "containers": [step(PUBLISH, publish_mounts)],
        "volumes": _volumes(settings, mounted, secrets),
        **({"serviceAccountName": settings.service_account} if settings.service_account else {}),
        **({"imagePullSecrets": [{"name": each} for each in pull_secrets]} if pull_secrets else {}),
        **placement(settings),
    }


_SCRATCH = (DIRECTORIES[INPUTS], DIRECTORIES[CONFIG], DIRECTORIES[OUTPUT], _STATE_MOUNT)


def checkpoints_directory(task: TaskKey, spec: WorkloadSpec) -> str:
    """Directory of the checkpoints on a volume that several share.

    The same task instance goes on at the same work, also where it is given more memory or another image; no other does.
    """
    work = {"task": task.label, "inputs": spec.inputs, "command": spec.command, "config": spec.config}
    return f"kitops/{digest_label(json_digest(work))}"


def _volumes(settings: JobSettings, mounted: str, secrets: Mapping[str, bytes]) -> list[dict[str, Any]]:
    def secret(volume: str, keys: Sequence[str]) -> dict[str, Any]:
        items = [{"key": key, "path": key} for key in sorted(keys)]
        return {"name": volume, "secret": {"secretName": mounted, "items": items, "defaultMode": 0o440}}

    volumes = [
        {"name": "job", "configMap": {"name": mounted}},
        {"name": "scratch", **settings.scratch},
        {"name": "checkpoints", **settings.checkpoints},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
    ]
    if settings.cache:
        volumes.append({"name": "cache", **settings.cache})
    # One without items would hold them all.
    volumes += [secret(volume, keys) for volume, keys in _secret_volumes(secrets).items() if keys]
    return volumes


def _secret_volumes(secrets: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Volumes of credentials, for ``fetch`` and for ``publish``, with the keys that each holds."""
    return {"secret": [key for key in secrets if key != SIGNING_KEY], "publish-secret": list(secrets)}


def _resources(settings: JobSettings) -> dict[str, Any]:
    amounts = {"cpu": settings.cpu, "memory": settings.memory}
    found: dict[str, Any] = {key: value for key, value in amounts.items() if value}
    if settings.gpu:
        found[settings.gpu_resource] = str(settings.gpu)
    return {"requests": found, "limits": found} if found else {}


def _environment(spec: WorkloadSpec) -> list[dict[str, str]]:
    # A user without an entry in /etc/passwd has neither a home nor a name, which caches of libraries ask for.
    ours = {"HOME": "/tmp", "USER": "kitops", "PYTHONUNBUFFERED": "1"}  # noqa: S108
    variables = {**ours, **spec.env, **DIRECTORIES}
    return [{"name": key, "value": _literal(value)} for key, value in variables.items()]


def _literal(text: str) -> str:
    """The text as Kubernetes leaves it alone, which otherwise puts variables in the place of ``$(NAME)``."""
    return text.replace("$", "$$")


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
