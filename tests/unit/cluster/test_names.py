"""Names are ones that Kubernetes takes, the same for the same attempt and different for different tasks."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.cluster.names import JOB_NAME, MANAGED_BY, TaskKey, digest_label, selector

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

ids = st.text(min_size=1, max_size=250)
tasks = st.builds(TaskKey, ids, ids, ids, st.integers(-1, 10**6))
attempts = st.one_of(
    st.integers(1, 10**6).map(str),
    st.builds(
        lambda number, more: f"{number}-{more}", st.integers(1, 9999), st.from_regex(r"[0-9a-f]{6}", fullmatch=True)
    ),
)


@given(tasks, attempts)
def test_a_name_is_one_that_a_job_and_its_pods_may_have(task: TaskKey, attempt: str) -> None:
    name = task.job_name(attempt)
    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= 52  # a pod's name has eleven characters more at the most, and is a label's value
    assert name.endswith(f"-{attempt}")
    assert LABEL_VALUE.fullmatch(task.label)


@given(tasks, attempts)
def test_the_same_attempt_has_the_same_name(task: TaskKey, attempt: str) -> None:
    again = TaskKey(task.dag_id, task.run_id, task.task_id, task.map_index)
    assert again.job_name(attempt) == task.job_name(attempt)


@given(tasks, tasks, attempts)
def test_different_tasks_have_different_labels_and_names(one: TaskKey, other: TaskKey, attempt: str) -> None:
    if one != other:
        assert one.label != other.label
        assert one.job_name(attempt) != other.job_name(attempt)


@given(tasks, attempts, attempts)
def test_different_attempts_have_different_names(task: TaskKey, one: str, other: str) -> None:
    assert (task.job_name(one) == task.job_name(other)) == (one == other)


def test_ids_that_could_be_joined_in_two_ways_are_not_mixed_up() -> None:
    found = {TaskKey(*ids).label for ids in [("a", "b", "c"), ("a b", "", "c"), ("a", "bc", ""), ("ab", "c", "")]}
    assert len(found) == 4
    assert TaskKey("a", "b", "c", 0).label != TaskKey("a", "b", "c").label


def test_a_name_says_which_task_it_is() -> None:
    assert TaskKey("d", "r", "train.Fine_Tune").job_name("1").startswith("train-fine-tune-")
    assert TaskKey("d", "r", "___").job_name("2").startswith("workload-")
    assert TaskKey("d", "r", "t").annotations() == {
        "airflow-provider-kitops.dev/dag-id": "d",
        "airflow-provider-kitops.dev/run-id": "r",
        "airflow-provider-kitops.dev/task-id": "t",
    }
    assert TaskKey("d", "r", "t", 7).annotations()["airflow-provider-kitops.dev/map-index"] == "7"


def test_a_digest_is_a_label_and_labels_are_a_selector() -> None:
    assert digest_label("sha256:" + "a" * 64) == "a" * 40
    assert selector({"b": "2", "a": "1"}) == "a=1,b=2"
    assert selector({**MANAGED_BY, JOB_NAME: "x"}).endswith("batch.kubernetes.io/job-name=x")
