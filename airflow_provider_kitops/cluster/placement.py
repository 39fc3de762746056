"""On which nodes a pod may, should or must run."""

from __future__ import annotations

import copy
from typing import Any

from airflow_provider_kitops.cluster.settings import JobSettings

_PREFERENCE = 100  # of 1 to 100; what is preferred here is to be found before anything else


def placement(settings: JobSettings) -> dict[str, Any]:
    """The part of a pod's specification that says where it runs.

    A GPU that is asked for tolerates the taint that its nodes usually have (``nvidia.com/gpu:NoSchedule``); asking for
    none keeps the pod off them.
    """
    tolerations = [dict(each) for each in settings.tolerations]
    if settings.gpu:
        tolerations.append({"key": settings.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    on = settings.on_node
    for effect, labels in (
        ("NoSchedule", (*on.may, *on.prefer, *on.must)),
        ("PreferNoSchedule", (*on.prefer, *on.must)),
    ):
        for label in labels:
            key, _, value = label.partition("=")
            tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": effect})
    selector = dict(settings.node_selector)
    if settings.gpu_type:
        selector[settings.gpu_label] = settings.gpu_type
    part: dict[str, Any] = {
        "nodeSelector": selector,
        "tolerations": tolerations,
        "affinity": _affinity(settings),
        "priorityClassName": settings.priority_class,
    }
    return {key: value for key, value in part.items() if value}


def _affinity(settings: JobSettings) -> dict[str, Any]:
    affinity = copy.deepcopy(settings.affinity)
    must = [_expression(label) for label in settings.on_node.must]
    prefer = [_expression(label) for label in settings.on_node.prefer]
    if not must and not prefer:
        return affinity
    nodes = affinity.setdefault("nodeAffinity", {})
    if must:
        required = nodes.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
        # One of the terms has to hold, so what must hold belongs into each of them.
        for term in required.setdefault("nodeSelectorTerms", [{}]):
            term.setdefault("matchExpressions", []).extend(must)
    if prefer:
        preferred = nodes.setdefault("preferredDuringSchedulingIgnoredDuringExecution", [])
        preferred.extend({"weight": _PREFERENCE, "preference": {"matchExpressions": [each]}} for each in prefer)
    return affinity


def _expression(label: str) -> dict[str, Any]:
    key, _, value = label.partition("=")
    return {"key": key, "operator": "In", "values": [value]}
