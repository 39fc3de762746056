"""A change to a pod template is merged as a strategic merge patch is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.cluster.merge import merged

scalars = st.one_of(st.booleans(), st.integers(), st.text(max_size=3))
keys = st.sampled_from(["a", "b", "c"])
mappings = st.recursive(
    st.dictionaries(keys, scalars | st.lists(scalars, max_size=2), max_size=3),
    lambda inner: st.dictionaries(keys, inner | scalars, max_size=3),
    max_leaves=8,
)
named = st.lists(
    st.builds(lambda name, rest: {"name": name, **rest}, st.sampled_from(["x", "y", "z"]), mappings),
    max_size=3,
    unique_by=lambda item: item["name"],
)
templates = st.builds(lambda mapping, items: {**mapping, "items": items}, mappings, named)


@given(templates)
def test_nothing_changes_nothing(base: dict[str, Any]) -> None:
    assert merged(base, {}) == base


@given(templates)
def test_what_is_there_already_changes_nothing(base: dict[str, Any]) -> None:
    assert merged(base, base) == base


@given(templates, templates)
def test_a_change_twice_is_a_change_once(base: dict[str, Any], change: dict[str, Any]) -> None:
    once = merged(base, change)
    assert merged(once, change) == once


@given(templates, templates)
def test_neither_is_altered(base: dict[str, Any], change: dict[str, Any]) -> None:
    before = copy.deepcopy((base, change))
    merged(base, change)
    assert (base, change) == before


@given(templates, named)
def test_items_keep_their_order_and_new_ones_come_last(base: dict[str, Any], change: list[Any]) -> None:
    old = [item["name"] for item in base["items"]]
    new = [item["name"] for item in merged(base, {"items": change})["items"]]
    assert new == [*old, *(item["name"] for item in change if item["name"] not in old)]


@pytest.mark.parametrize(
    ("base", "change", "result"),
    [
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": 3}}, {"a": {"c": 2, "d": 3}}),
        ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": "text"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": "text"}),
        # A volume is of one kind.
        (
            {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]},
            {"volumes": [{"name": "b", "hostPath": {"path": "/data"}}]},
            {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/data"}}]},
        ),
        # Containers by name.
        (
            [{"name": "fetch", "image": "a"}, {"name": "work", "image": "b"}],
            [{"name": "work", "env": [{"name": "X", "value": "1"}]}],
            [{"name": "fetch", "image": "a"}, {"name": "work", "image": "b", "env": [{"name": "X", "value": "1"}]}],
        ),
        # Mounts by path: one volume may be mounted twice.
        (
            [{"name": "scratch", "mountPath": "/in", "subPath": "in"}, {"name": "scratch", "mountPath": "/out"}],
            [{"name": "big", "mountPath": "/out"}, {"name": "data", "mountPath": "/data"}],
            [
                {"name": "scratch", "mountPath": "/in", "subPath": "in"},
                {"name": "big", "mountPath": "/out"},
                {"name": "data", "mountPath": "/data"},
            ],
        ),
        # A volume's source is replaced by taking the old one away.
        (
            [{"name": "scratch", "emptyDir": {}}],
            [{"name": "scratch", "emptyDir": None, "hostPath": {"path": "/big"}}],
            [{"name": "scratch", "hostPath": {"path": "/big"}}],
        ),
        # What has no name is replaced, tolerations for one.
        ([{"key": "a"}], [{"key": "b"}], [{"key": "b"}]),
        ([{"name": "a"}], [{"key": "b"}], [{"key": "b"}]),
        ([{"name": "a"}], (), [{"name": "a"}]),
        (["a"], ("b",), ["b"]),
    ],
)
def test_mappings_are_merged_items_are_found_and_the_rest_replaced(base: Any, change: Any, result: Any) -> None:
    assert merged(base, change) == result
