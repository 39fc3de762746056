"""Where a pod may, should and must run."""

from __future__ import annotations

import copy
from typing import Any

from airflow_provider_kitops.cluster.placement import placement
from airflow_provider_kitops.cluster.settings import JobSettings


def placed(**settings: Any) -> dict[str, Any]:
    return placement(JobSettings.model_validate(settings))


def tolerated(part: dict[str, Any], effect: str) -> set[str]:
    return {f"{each['key']}={each['value']}" for each in part.get("tolerations", []) if each["effect"] == effect}


def expression(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": [value]}


def test_nothing_is_said_where_nothing_is_asked() -> None:
    assert placed() == {}


def test_each_degree_tolerates_what_the_one_before_does() -> None:
    part = placed(on_node={"may": ["a=1"], "prefer": ["b=2"], "must": ["c=3"]})
    assert tolerated(part, "NoSchedule") == {"a=1", "b=2", "c=3"}
    assert tolerated(part, "PreferNoSchedule") == {"b=2", "c=3"}
    assert all(each["operator"] == "Equal" for each in part["tolerations"])
    assert part["affinity"]["nodeAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [expression("c", "3")]}]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": {"matchExpressions": [expression("b", "2")]}}
        ],
    }


def test_a_node_that_is_allowed_is_not_preferred() -> None:
    assert "affinity" not in placed(on_node={"may": ["a=1"]})


def test_several_that_must_hold_all_hold() -> None:
    part = placed(on_node={"must": ["a=1", "b=2"]})
    terms = part["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [expression("a", "1"), expression("b", "2")]}]


def test_what_must_hold_is_added_to_every_term_of_ones_own() -> None:
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [expression("zone", "x")]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                ]
            }
        },
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
    }
    before = copy.deepcopy(affinity)
    part = placed(affinity=affinity, on_node={"must": ["a=1"]})
    terms = part["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [term["matchExpressions"][-1] for term in terms] == [expression("a", "1")] * 2
    assert terms[1]["matchFields"]
    assert part["affinity"]["podAntiAffinity"] == before["podAntiAffinity"]
    assert affinity == before


def test_ones_own_affinity_and_tolerations_stay() -> None:
    toleration = {"key": "spot", "operator": "Exists"}
    part = placed(affinity={"podAffinity": {}}, tolerations=[toleration], priority_class="high")
    assert part == {"affinity": {"podAffinity": {}}, "tolerations": [toleration], "priorityClassName": "high"}


def test_a_gpu_tolerates_the_taint_of_its_nodes_and_names_its_kind() -> None:
    part = placed(gpu=2, gpu_type="L4", gpu_label="gpu/kind", gpu_resource="amd.com/gpu", node_selector={"a": "b"})
    assert part["tolerations"] == [{"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert part["nodeSelector"] == {"a": "b", "gpu/kind": "L4"}


def test_without_a_gpu_its_nodes_are_left_to_others() -> None:
    assert "tolerations" not in placed(gpu=0)
