"""How a workload's Job is made and how long it is waited for: all that is Kubernetes' and not the program's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from airflow_provider_kitops._validation import nearest
from airflow_provider_kitops.cluster.names import QUEUE, RESERVED

#: When the Job is removed: always, only when it succeeded, or never (then Kubernetes' own clean-up is left to you).
OnFinish = Literal["delete", "delete_on_success", "keep"]

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([eE][-+]?[0-9]{1,2}|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_UNITS = {"m": Decimal("0.001")} | {
    unit + binary: Decimal(base) ** power
    for binary, base in (("", 1000), ("i", 1024))
    for power, unit in enumerate(("k" if not binary else "K", "M", "G", "T", "P", "E"), 1)
}
_LEAST_MEMORY = 1024**2  # what is less was meant to be something else
_LEAST_TTL = 600  # so that whoever follows the Job sees how it ended, also after a while without an answer

# What Kubernetes takes for the names of things, and for the keys and values of labels.
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(rf"({_OBJECT.pattern.replace('$', '/')}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_LABEL_HINT = "at most 63 letters, digits, '-', '_' and '.', the first and the last a letter or digit"

#: Kinds of volume sources, as core/v1 has them.
_VOLUMES = (
    *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI"),
    *("emptyDir", "ephemeral", "fc", "flexVolume", "gcePersistentDisk", "glusterfs", "hostPath", "image", "iscsi"),
    *("nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected", "quobyte", "rbd"),
    *("scaleIO", "secret", "storageos", "vsphereVolume"),
)

ExitCode = Annotated[int, Field(ge=1, le=255)]


def _seconds(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value[:20]!r} is no number of seconds") from None


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, lt=10**9, allow_inf_nan=False)]


class OnNode(BaseModel):
    """Nodes by label, as ``"key=value"``, each with how much it is wanted.

    :param may: pods may run there: the taint ``key=value:NoSchedule`` is tolerated.
    :param prefer: they should: ``PreferNoSchedule`` is tolerated too, and nodes with the label come first.
    :param must: they run nowhere else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    may: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    must: tuple[str, ...] = ()

    @field_validator("may", "prefer", "must")
    @classmethod
    def _labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for label in value:
            key, equals, text = label.partition("=")
            if not key or not equals or not text:
                raise ValueError(f"{label!r} is not key=value")
            _check_label(key, text)
        return value


class JobSettings(BaseModel):
    """Settings of a workload's Job. What is left out comes from the option ``[kitops] job``, then from the defaults.

    :param namespace: where the Job runs; by default the namespace of the Kubernetes connection, else ``default``.
    :param image: the program's image; by default the trainer's of this package's version, in the registry of the
        ``kitops`` connection. A tag is resolved to its digest before the Job is made.
    :param steps_image: image of the containers that fetch and publish; by default as ``image``, with ``steps`` for
        ``trainer``.
    :param cpu: cores of the program, as in ``"4"``; request and limit.
    :param memory: memory of the program, as in ``"16Gi"``; request and limit.
    :param gpu: whole GPUs.
    :param gpu_type: value of ``gpu_label`` that the node must have, such as ``NVIDIA-A100-SXM4-80GB``.
    :param gpu_label: label by which nodes tell their GPU.
    :param gpu_resource: name of the GPUs as a resource.
    :param node_selector: labels that the node must have.
    :param on_node: nodes by label, with may, prefer and must.
    :param tolerations: further tolerations, as in a pod.
    :param affinity: affinity, as in a pod; terms of ``on_node`` are added.
    :param priority_class: the pod's PriorityClass.
    :param queue: Kueue's LocalQueue. The Job is then started by Kueue. The time until then is part of
        ``execution_timeout``, of no other limit.
    :param service_account: account of the pod; its token is mounted only if it is named here.
    :param image_pull_secrets: names of Secrets of the namespace. Credentials of the ``kitops`` connection are added by
        themselves.
    :param scratch: volume source for inputs, output and temporary files: an ``emptyDir``, for example
        ``{"emptyDir": {"sizeLimit": "200Gi"}}``, or an ``ephemeral`` volume, which is the pod's alone.
    :param cache: volume source that keeps fetched blobs for further Jobs; none by default.
    :param checkpoints: volume source that outlives the pod, for example
        ``{"persistentVolumeClaim": {"claimName": "checkpoints"}}``. Each task instance has a directory of its own
        there. By default they live as long as the pod.
    :param shared_memory: size of ``/dev/shm``, which data loaders with several workers need.
    :param deadline: seconds that the Job may be active, watched by Kubernetes; by default the task's
        ``execution_timeout``.
    :param startup_timeout: seconds that a pod may wait for a node and its images.
    :param image_pull_timeout: seconds that pulling an image may keep failing.
    :param grace_period: seconds between SIGTERM and SIGKILL, to write a checkpoint in.
    :param backoff_limit: how often Kubernetes starts the pod again after a failure that is not the program's;
        evictions, preemption and lost nodes do not count.
    :param retry_exit_codes: exit codes of the program after which Airflow's retries are worth it.
    :param on_finish: ``delete`` the Job and all that belongs to it, ``delete_on_success``, or ``keep``.
    :param ttl: seconds after which Kubernetes removes a finished Job that nobody removed; 600 at least.
    :param labels: further labels of Job and pod; none that this package or Kubernetes sets.
    :param annotations: the same for annotations.
    :param pod_override: merged into the pod template at the end, mapping by mapping; lists whose items have names (or
        mount paths) item by item. The containers are ``fetch``, ``work`` (both in ``initContainers``) and ``publish``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str | None = None
    image: str | None = None
    steps_image: str | None = None
    cpu: str | None = None
    memory: str | None = None
    gpu: int = Field(default=0, ge=0)
    gpu_type: str | None = None
    gpu_label: str = "nvidia.com/gpu.product"
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = Field(default_factory=dict)
    on_node: OnNode = Field(default_factory=OnNode)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = Field(default_factory=dict)
    priority_class: str | None = None
    queue: str | None = None
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    scratch: dict[str, Any] = Field(default_factory=lambda: {"emptyDir": {}})
    cache: dict[str, Any] | None = None
    checkpoints: dict[str, Any] = Field(default_factory=lambda: {"emptyDir": {}})
    shared_memory: str = "1Gi"
    deadline: Seconds | None = None
    startup_timeout: Seconds = 3600.0
    image_pull_timeout: Seconds = 300.0
    grace_period: int = Field(default=120, ge=0, lt=10**6)
    backoff_limit: int = Field(default=3, ge=0, le=1000)
    retry_exit_codes: tuple[ExitCode, ...] = ()
    on_finish: OnFinish = "delete"
    ttl: int = Field(default=24 * 3600, ge=_LEAST_TTL, lt=2**31)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    pod_override: dict[str, Any] = Field(default_factory=dict)

    @field_validator("cpu", "memory", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("cpu", "memory", "shared_memory")
    @classmethod
    def _quantity(cls, value: str | None) -> str | None:
        if value is not None and not _QUANTITY.fullmatch(value):
            raise ValueError(f"{value!r} is no quantity such as 500m, 2 or 16Gi")
        return value

    @field_validator("memory", "shared_memory")
    @classmethod
    def _unit(cls, value: str | None) -> str | None:
        if value is not None and _amount(value) < _LEAST_MEMORY:
            raise ValueError(f"{value!r} is less than 1Mi: m is thousandths, no unit is bytes, and Gi is what is meant")
        return value

    @field_validator("namespace")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and not _NAMESPACE.fullmatch(value):
            raise ValueError(f"{value!r} is no namespace's name")
        return value

    @field_validator("priority_class", "queue", "service_account", "image_pull_secrets")
    @classmethod
    def _object(cls, value: Any) -> Any:
        for name in (value,) if isinstance(value, str) else value or ():
            if not _OBJECT.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a thing in Kubernetes: a-z, 0-9, '-' and '.'")
        return value

    @field_validator("labels", "node_selector")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            _check_label(key, text)
        return value

    @field_validator("annotations")
    @classmethod
    def _annotations(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            _check_label(key)
        return value

    @field_validator("labels", "annotations")
    @classmethod
    def _ours(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if key == QUEUE:
                raise ValueError(f"{key!r} is set by the setting queue")
            if key in RESERVED or key.partition("/")[0] + "/" in RESERVED:
                raise ValueError(f"{key!r} is not yours to set: Kubernetes or this package sets it, and goes by it")
        return value

    @field_validator("gpu_label", "gpu_resource")
    @classmethod
    def _key(cls, value: str) -> str:
        _check_label(value)
        return value

    @field_validator("gpu_type")
    @classmethod
    def _value(cls, value: str | None) -> str | None:
        if value is not None:
            _check_label("gpu", value)
        return value

    @field_validator("scratch")
    @classmethod
    def _alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value.keys() & _VOLUMES and not value.keys() & {"emptyDir", "ephemeral"}:
            raise ValueError(f"{next(iter(value))} outlives the pod and may be shared; use emptyDir or ephemeral")
        return value

    @field_validator("scratch", "cache", "checkpoints")
    @classmethod
    def _volume(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return value
        if len(value) != 1 or not isinstance(next(iter(value.values())), Mapping):
            raise ValueError("a volume source is one mapping by its kind, such as {'emptyDir': {}}")
        kind = next(iter(value))
        if kind not in _VOLUMES:
            near = nearest(kind, _VOLUMES)
            raise ValueError(f"{kind!r} is no kind of volume" + (f" (did you mean {near}?)" if near else ""))
        return value


def _check_label(key: str, value: str = "") -> None:
    if not _LABEL_KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no label's name: {_LABEL_HINT}, with or without a domain and '/' before it")
    if not _LABEL_VALUE.fullmatch(value):
        raise ValueError(f"{value!r} is no label's value: {_LABEL_HINT}")


def _amount(quantity: str) -> Decimal:
    found = _QUANTITY.fullmatch(quantity)
    assert found
    number, unit = found[1], found[2] or ""
    return Decimal(number) * _UNITS[unit] if unit in _UNITS else Decimal(number + unit)
