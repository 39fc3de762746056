"""One watch for all Jobs of a namespace, and nothing missed whatever happens to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

from airflow_provider_kitops.cluster.names import CONTROLLER_UID, JOB_NAME, MANAGED_BY, QUEUE, STARTED
from airflow_provider_kitops.triggers import _watch
from airflow_provider_kitops.triggers._connection import ClusterConnection
from airflow_provider_kitops.triggers._watch import NamespaceWatch, View, _kept, watching
from tests.fake_kubernetes import Asked, FakeKubernetes, fake_kubernetes

from .jobs_world import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_LIST_SECONDS", 0.3), ("_SOON_SECONDS", 0.05), ("_POLL_SECONDS", 0.1)):
        monkeypatch.setattr(_watch, name, seconds)
    monkeypatch.setattr(_watch, "_LONGEST_WAIT", 0.1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def pod(name: str, job: str, phase: str = "Running", **more: Any) -> dict[str, Any]:
    labels = {**MANAGED_BY, JOB_NAME: job, CONTROLLER_UID: f"uid-{job}"}
    metadata = {"name": name, "uid": f"uid-{name}", "labels": labels}
    return {"metadata": metadata, "status": {"phase": phase}, **more}


def job(name: str, *conditions: str) -> dict[str, Any]:
    found = [{"type": each, "status": "True"} for each in conditions]
    metadata = {"name": name, "uid": f"uid-{name}", "labels": dict(MANAGED_BY)}
    return {"metadata": metadata, "spec": {}, "status": {"conditions": found}}


def cluster_of(fake: FakeKubernetes) -> ClusterConnection:
    return ClusterConnection(lambda: AsyncKubernetesHook(conn_id=None, config_dict=fake.kubeconfig))


def on_a_fake(test: Callable[[FakeKubernetes, NamespaceWatch], Awaitable[None]]) -> None:
    async def run() -> None:
        async with fake_kubernetes() as fake:
            watch = NamespaceWatch(cluster_of(fake), fake.namespace)
            try:
                await asyncio.wait_for(test(fake, watch), 30)
            finally:
                for view in list(watch.views):
                    await watch.close(view)

    asyncio.run(run())


def test_however_many_views_one_watch_is_open() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        for number in range(60):
            fake.put_job(job(f"job-{number}"))
            fake.put_pod(pod(f"pod-{number}", f"job-{number}"))
        views = [watch.open(f"job-{number}", f"uid-job-{number}") for number in range(60)]
        await until(lambda: fake.watches and all(view.listed and view.pods for view in views))
        for number, view in enumerate(views):
            assert list(view.pods) == [f"pod-{number}"]
            assert view.job == job(f"job-{number}")
        assert (fake.watches, fake.most_watches) == (1, 1)
        assert fake.count("pods") == 1
        assert fake.count("jobs") <= 3

    on_a_fake(test)


def test_a_change_wakes_the_view_that_it_is_for() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a"))
        one, other = watch.open("a", "uid-a"), watch.open("b", "uid-b")
        await until(lambda: one.listed and other.listed and fake.watches)
        one.changed.clear()
        other.changed.clear()
        fake.put_pod(pod("p", "a"))
        await until(one.changed.is_set)
        assert one.pods["p"]["status"]["phase"] == "Running"
        assert not other.changed.is_set()
        assert other.job is None

    on_a_fake(test)


@pytest.mark.parametrize("condition", ["Complete", "Suspended"])
def test_another_job_of_the_same_name_is_not_ours(condition: str) -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a", condition))
        fake.put_pod(pod("p", "a"))
        mine, other = watch.open("a", "uid-before"), watch.open("a", "uid-a")
        await until(lambda: mine.listed and other.listed and other.pods and fake.watches)
        fake.put_pod(pod("q", "a"))
        await until(lambda: len(other.pods) == 2 or condition == "Complete")
        assert other.job is not None
        assert mine.job is None
        assert mine.pods == {}
        assert watch.open("a", "uid-before").pods == {}

    on_a_fake(test)


def test_a_job_that_has_ended_is_told_without_the_pods_of_another_of_its_name() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a", "Failed"))
        stranger = pod("stranger", "a")
        stranger["metadata"]["labels"][CONTROLLER_UID] = "uid-before"
        for each in (pod("p", "a", "Failed"), stranger):
            fake.put_pod(each)
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed)
        assert list(view.pods) == ["p"]

    on_a_fake(test)


def test_a_view_that_is_opened_late_knows_what_the_watch_told_before() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        watch.open("first", "uid-first")
        await until(lambda: fake.watches)
        fake.put_pod(pod("p", "late"))
        fake.put_pod(pod("gone", "late"))
        fake.delete_pod("gone")
        fake.put_pod(pod("q", "first"))
        await until(lambda: any(view.pods for view in watch.views))
        assert list(watch.open("late", "uid-late").pods) == ["p"]
        assert fake.count("pods") == 1

    on_a_fake(test)


def test_what_happened_while_the_watch_was_down_is_noticed() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        for name in ("kept", "lost"):
            fake.put_pod(pod(name, "a"))
        view = watch.open("a", "uid-a")
        await until(lambda: len(view.pods) == 2 and fake.watches)
        fake.status = lambda asked: 503 if asked.kind in ("pods", "watch") else None
        fake.cut()
        await until(lambda: not fake.watches)
        fake.delete_pod("lost")
        fake.put_pod(pod("new", "a"))
        view.changed.clear()
        fake.status = lambda asked: None
        await until(lambda: "new" in view.pods)
        assert view.changed.is_set()
        assert view.pods["lost"]["deleted"]
        assert view.pods["lost"]["metadata"]["deletionTimestamp"]
        assert not view.pods["kept"]["deleted"]
        late = watch.open("a", "uid-a")
        assert set(late.pods) == {"kept", "new"}

    on_a_fake(test)


def test_two_views_of_one_job_both_notice_that_a_pod_has_gone() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_pod(pod("p", "a"))
        one, other = watch.open("a", "uid-a"), watch.open("a", "uid-a")
        await until(lambda: one.pods and other.pods and fake.watches)
        fake.forget()
        fake._pods.clear()
        one.changed.clear()
        other.changed.clear()
        fake.cut()
        await until(lambda: one.pods["p"]["deleted"] and other.pods["p"]["deleted"])
        assert one.changed.is_set()
        assert other.changed.is_set()

    on_a_fake(test)


def test_a_version_that_is_too_old_is_listed_anew() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        view = watch.open("a", "uid-a")
        await until(lambda: fake.watches)
        # The list is not yet as new as what is remembered, as of an API server that has just started.
        fake._oldest = 10**6
        fake.cut()
        await until(lambda: fake.count("watch") >= 3)
        fake._oldest = 0
        fake.put_pod(pod("p", "a"))
        await until(lambda: view.pods)
        assert fake.count("pods") >= 3

    on_a_fake(test)


def test_a_deleted_pod_stays_as_it_was_last_seen() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        view = watch.open("a", "uid-a")
        await until(lambda: fake.watches)
        fake.put_pod(pod("p", "a", "Failed"))
        fake.delete_pod("p")
        await until(lambda: view.pods and view.pods["p"]["deleted"])
        assert view.pods["p"]["status"] == {"phase": "Failed"}

    on_a_fake(test)


def test_where_watching_is_forbidden_pods_are_listed() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.status = lambda asked: 403 if asked.kind == "watch" else None
        view = watch.open("a", "uid-a")
        await until(lambda: fake.count("pods") >= 3)
        fake.put_pod(pod("p", "a"))
        await until(lambda: view.pods)
        fake.delete_pod("p")
        await until(lambda: view.pods["p"]["deleted"])
        assert fake.count("watch") == 1

    on_a_fake(test)


def test_watching_that_was_forbidden_for_a_moment_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_POLLED_SECONDS", 0.3)

    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.status = lambda asked: 403 if asked.kind == "watch" else None
        watch.open("a", "uid-a")
        await until(lambda: fake.count("watch") >= 2)
        fake.status = lambda asked: None
        await until(lambda: fake.watches == 1)

    on_a_fake(test)


@pytest.mark.parametrize("kind", ["pods", "watch", "jobs"])
@pytest.mark.parametrize("status", [401, 500])
def test_an_api_that_answers_again_is_asked_again(kind: str, status: int) -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a"))
        fake.status = lambda asked: status if asked.kind == kind else None
        view = watch.open("a", "uid-a")
        await until(lambda: fake.count(kind) >= 3)
        fake.status = lambda asked: None
        fake.put_pod(pod("p", "a"))
        await until(lambda: view.listed and view.pods and fake.watches)

    on_a_fake(test)


def test_credentials_that_cannot_be_had_now_may_be_had_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        usual, failures = watch.cluster.hook.get_conn, iter(range(4))

        def get_conn() -> Any:
            if next(failures, None) is not None:
                raise RuntimeError("no token")
            return usual()

        monkeypatch.setattr(watch.cluster.hook, "get_conn", get_conn)
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed and fake.watches)

    on_a_fake(test)


def test_a_watch_that_ends_at_once_is_not_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_LONGEST_WAIT", 30)

    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.watch_seconds = 0
        watch.open("a", "uid-a")
        await until(lambda: fake.count("watch"))
        await asyncio.sleep(0.6)
        assert fake.count("watch") == 1

    on_a_fake(test)


def test_a_job_is_not_told_to_have_ended_before_its_pods_are_known() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        def only_one_jobs_pods(asked: Asked) -> int | None:
            return 500 if asked.kind == "pods" and JOB_NAME not in asked.query["labelSelector"] else None

        fake.status = only_one_jobs_pods
        fake.put_job(job("a"))
        fake.put_pod(pod("p", "a", "Succeeded"))
        fake.put_pod(pod("q", "b", "Succeeded"))
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed)
        assert view.pods == {}
        fake.put_job(job("a", "Complete"))
        await until(lambda: view.job == job("a", "Complete"))
        assert list(view.pods) == ["p"]
        asked = len(fake.asked)
        await asyncio.sleep(0.5)
        assert [each for each in fake.asked[asked:] if JOB_NAME in each.query.get("labelSelector", "")] == []

    on_a_fake(test)


def test_what_the_watch_tells_of_a_job_that_has_ended_is_older_than_what_is_known() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a", "Complete"))
        fake.put_job(job("b"))
        fake.put_pod(pod("p", "a", "Succeeded"))
        one, other = watch.open("a", "uid-a"), watch.open("b", "uid-b")
        await until(lambda: one.listed and other.listed and fake.watches)
        one.changed.clear()
        fake.put_pod(pod("p", "a", "Running"))
        fake.put_pod(pod("q", "b"))
        await until(lambda: other.pods)
        assert one.pods["p"]["status"] == {"phase": "Succeeded"}
        assert not one.changed.is_set()

    on_a_fake(test)


def test_a_view_knows_whether_its_pods_have_been_looked_for() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.status = lambda asked: 500 if asked.kind == "pods" else None
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed)
        assert not view.pods_listed
        view.changed.clear()
        fake.status = lambda asked: None
        await until(view.changed.is_set)
        assert view.pods_listed
        assert watch.open("b", "uid-b").pods_listed

    on_a_fake(test)


def test_jobs_that_nobody_ever_let_run_are_removed_in_the_end() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        for name in ("left", "mine", "young", "queued", "begun", "runs"):
            each = job(name)
            each["spec"] = {"suspend": name != "runs", "ttlSecondsAfterFinished": 600}
            age = timedelta(seconds=500 if name == "young" else 700)
            each["metadata"]["creationTimestamp"] = (datetime.now(UTC) - age).isoformat()
            each["metadata"]["labels"] |= {QUEUE: "team"} if name == "queued" else {}
            each["metadata"]["annotations"] = {STARTED: "true"} if name == "begun" else {}
            fake.put_job(each)
        watch.open("mine", "uid-mine")
        await until(lambda: "left" not in fake.things("jobs"))
        await asyncio.sleep(0.7)
        assert fake.things("jobs").keys() == {"mine", "young", "queued", "begun", "runs"}
        assert fake.count("delete jobs") == 1

    on_a_fake(test)


def test_that_what_nobody_let_run_cannot_be_removed_keeps_nobody_from_following() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        left = job("left")
        left["spec"] = {"suspend": True, "ttlSecondsAfterFinished": 600}
        left["metadata"]["creationTimestamp"] = "2026-11-01T00:00:00Z"
        fake.put_job(left)
        fake.put_job(job("a"))
        fake.status = lambda asked: 403 if asked.kind == "delete jobs" else None
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed and fake.count("delete jobs"))
        assert view.job == job("a")

    on_a_fake(test)


def test_that_pods_cannot_be_looked_for_is_told_until_they_can() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a"))
        fake.status = lambda asked: 500 if asked.kind == "pods" else None
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed and "about the pods" in view.trouble and "500" in view.trouble)
        assert not view.pods_listed
        fake.status = lambda asked: 503 if asked.kind in ("pods", "jobs") else None
        await until(lambda: "about the Jobs" in view.trouble and "about the pods" in view.trouble)
        fake.status = lambda asked: None
        await until(lambda: view.pods_listed and not view.trouble)

    on_a_fake(test)


def test_that_listing_pods_is_forbidden_is_not_taken_for_watching(caplog: pytest.LogCaptureFixture) -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.status = lambda asked: 403 if asked.kind == "pods" else None
        view = watch.open("a", "uid-a")
        await until(lambda: "does not let Airflow see the pods" in view.trouble)

    with caplog.at_level("WARNING"):
        on_a_fake(test)
    assert "may not be watched" not in caplog.text


def test_a_connection_that_cannot_be_used_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_REFUSED_SECONDS", 0.5)

    async def run() -> None:
        hook = AsyncKubernetesHook(conn_id=None, config_file="/nowhere/kubeconfig")
        watch = NamespaceWatch(ClusterConnection(lambda: hook), "models")
        view = watch.open("a", "uid-a")
        try:
            await asyncio.wait_for(until(lambda: view.refused), 30)
        finally:
            await watch.close(view)
        assert "kube-config" in view.refused

    asyncio.run(run())


def test_a_job_whose_pods_cannot_be_had_holds_up_no_other() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        for name in "abcdefgh":
            fake.put_job(job(name, "Complete"))
        mine = f"{JOB_NAME}=a"
        fake.status = lambda asked: 500 if mine in asked.query.get("labelSelector", "").split(",") else None
        views = {name: watch.open(name, f"uid-{name}") for name in "abcdefgh"}
        await until(lambda: all(view.listed for name, view in views.items() if name != "a"))
        await until(lambda: "500" in views["a"].trouble)
        assert not views["a"].listed
        fake.status = lambda asked: None
        await until(lambda: views["a"].listed)

    on_a_fake(test)


def test_credentials_that_were_renewed_are_read_anew() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed and fake.watches)
        fake.token = "another"
        fake.cut()
        fake.put_job(job("a"))
        fake.put_pod(pod("p", "a"))
        await until(lambda: view.job and view.pods and fake.watches)

    on_a_fake(test)


@pytest.mark.parametrize("kind", ["jobs", "pods"])
@pytest.mark.parametrize("status", [401, 403])
def test_nothing_but_refusals_for_minutes_is_an_answer(kind: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_REFUSED_SECONDS", 0.5)

    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.status = lambda asked: status if asked.kind == kind else None
        begun = time.monotonic()
        view = watch.open("a", "uid-a")
        await until(lambda: view.refused)
        assert time.monotonic() - begun >= 0.5
        assert view.refused == f"{status} {'Unauthorized' if status == 401 else 'Forbidden'}: {kind} refused"
        late = watch.open("b", "uid-b")
        await until(lambda: late.refused)

    on_a_fake(test)


def test_a_refusal_now_and_then_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_REFUSED_SECONDS", 0.3)

    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.watch_seconds = 0.1
        fake.status = lambda asked: 401 if fake.count(asked.kind) % 2 else None
        view = watch.open("a", "uid-a")
        await asyncio.sleep(2)
        assert not view.refused
        fake.status = lambda asked: 403 if fake.count(asked.kind) % 2 else 500
        await asyncio.sleep(1)
        assert not view.refused

    on_a_fake(test)


def test_a_job_that_ended_before_it_was_looked_at_is_told_with_its_pods() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a", "Failed"))
        fake.put_pod(pod("p", "a", "Failed"))
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed)
        assert list(view.pods) == ["p"]

    on_a_fake(test)


def test_a_job_whose_pod_has_ended_is_asked_for_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_LIST_SECONDS", 30.0)

    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a"))
        fake.put_pod(pod("p", "a"))
        view = watch.open("a", "uid-a")
        await until(lambda: view.listed and fake.watches)
        fake.put_pod(pod("p", "a", "Succeeded"))
        await asyncio.sleep(0.3)
        fake.put_job(job("a", "Complete"))
        begun = time.monotonic()
        await until(lambda: view.job == job("a", "Complete"))
        assert time.monotonic() - begun < 3

    on_a_fake(test)


def test_a_job_that_takes_long_to_start_a_pod_again_is_asked_for_less_and_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_watch, "_LIST_SECONDS", 30.0)
    monkeypatch.setattr(_watch, "_SOON_SECONDS", 0.02)

    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        fake.put_job(job("a"))
        fake.put_pod(pod("p", "a", "Failed"))
        watch.open("a", "uid-a")
        await asyncio.sleep(1.5)
        assert fake.count("jobs") < 10

    on_a_fake(test)


def test_the_last_view_ends_the_watch_and_a_new_one_begins_it() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        before = asyncio.all_tasks()
        for _ in range(2):
            one, other = watch.open("a", "uid-a"), watch.open("b", "uid-b")
            await until(lambda: fake.watches)
            await watch.close(one)
            await asyncio.sleep(0.1)
            assert fake.watches == 1
            await watch.close(other)
            await until(lambda: not fake.watches and not fake.connections)
        server = {task for task in asyncio.all_tasks() if "aiohttp" in repr(task)}
        assert asyncio.all_tasks() - before - server == set()

    on_a_fake(test)


def test_a_view_may_be_closed_in_the_moment_in_which_another_is_opened() -> None:
    async def test(fake: FakeKubernetes, watch: NamespaceWatch) -> None:
        one = watch.open("a", "uid-a")
        await until(lambda: one.listed and fake.watches)
        other = watch.open("b", "uid-b")
        await watch.close(one)
        await asyncio.wait_for(watch.close(other), 5)
        await until(lambda: not fake.connections)

    on_a_fake(test)


def test_those_who_ask_by_one_connection_share_a_watch() -> None:
    async def run() -> None:
        async with fake_kubernetes() as fake:
            fake.put_job(job("a"))

            async def follow(name: str) -> None:
                async with watching(cluster_of(fake), fake.namespace, name, f"uid-{name}") as view:
                    await until(lambda: view.listed and fake.watches)
                    await asyncio.sleep(0.2)

            await asyncio.gather(*(follow(name) for name in "abcdefgh"))
            assert fake.most_watches == 1
            assert _watch._watches == {}
            await until(lambda: not fake.connections)
            await follow("a")
            assert fake.count("watch") == 2

    asyncio.run(asyncio.wait_for(run(), 30))


def test_whoever_is_cancelled_leaves_nothing_open() -> None:
    async def run() -> None:
        async with fake_kubernetes() as fake:

            async def follow() -> None:
                async with watching(cluster_of(fake), fake.namespace, "a", "uid-a") as view:
                    while True:
                        await view.changed.wait()
                        view.changed.clear()

            following = asyncio.create_task(follow())
            await until(lambda: fake.watches)
            following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await following
            assert _watch._watches == {}
            await until(lambda: not fake.connections)

    asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize(
    ("found", "pods", "unsettled"),
    [
        (None, [pod("p", "a", "Failed")], False),
        (job("a"), [], False),
        (job("a"), [pod("p", "a", "Running")], False),
        (job("a"), [pod("p", "a", "Failed")], True),
        (job("a"), [pod("p", "a", "Failed"), pod("q", "a", "Pending")], False),
        (job("a", "Suspended"), [pod("p", "a", "Succeeded")], True),
        (job("a", "FailureTarget"), [pod("p", "a", "Failed")], True),
        (job("a", "FailureTarget", "Failed"), [pod("p", "a", "Failed")], False),
        (job("a", "Complete"), [pod("p", "a", "Succeeded")], False),
        ({"metadata": {"name": "a"}, "status": {"conditions": None}}, [pod("p", "a", "Failed")], True),
        ({"metadata": {"name": "a"}}, [{**pod("p", "a"), "deleted": True}], True),
    ],
)
def test_a_view_is_unsettled_while_the_job_has_not_said_what_a_pods_end_means(
    found: Any, pods: list[Any], unsettled: bool
) -> None:
    view = View("a", found, {each["metadata"]["name"]: each for each in pods})
    assert view.unsettled is unsettled


def test_of_a_pod_only_what_is_looked_at_is_kept() -> None:
    container = {"name": "work", "image": "i", "resources": {"limits": {}}, "env": [{"name": "A", "value": "secret"}]}
    spec = {"nodeName": "n", "initContainers": [container], "containers": None, "volumes": [{}]}
    found = _kept(pod("p", "a", spec=spec))
    assert found["spec"] == {
        "nodeName": "n",
        "initContainers": [{"name": "work", "image": "i", "resources": {"limits": {}}}],
        "containers": [],
    }
    assert found["metadata"]["labels"][JOB_NAME] == "a"
    assert found["deleted"] is False
    assert _kept({"metadata": {"name": "p"}})["status"] == {}
