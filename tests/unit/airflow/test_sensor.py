"""The sensor and its trigger against a real local layout."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, TaskDeferred

from airflow_provider_kitops.hooks import kitops
from airflow_provider_kitops.oci.errors import RateLimited, RegistryUnavailable
from airflow_provider_kitops.sensors.tag import ModelKitTagSensor
from airflow_provider_kitops.triggers import tag
from airflow_provider_kitops.triggers.tag import ModelKitTagWaitTrigger

from .conftest import Connections
from .test_operators import pack

DIGEST = "sha256:" + "a" * 64


def champion(tmp_path: Path, context: Any, content: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = pack(tmp_path, content, reference="demo/model:champion").execute(context)
    return answer


def sensor(**arguments: Any) -> ModelKitTagSensor:
    settings = {"poke_interval": 0.05, "timeout": 0.2, "deferrable": False, **arguments}
    return ModelKitTagSensor(task_id="wait", reference="demo/model:champion", **settings)


def test_a_tag_that_exists_ends_the_wait(tmp_path: Path, layout: Path, context: Any) -> None:
    packed = champion(tmp_path, context, b"1")
    found = sensor().execute(context)
    assert found["digest"] == packed["digest"]
    assert found["tags"] == ["champion"]


def test_a_tag_that_does_not_exist_is_waited_for(layout: Path, context: Any) -> None:
    with pytest.raises(AirflowSensorTimeout):
        sensor().execute(context)


@pytest.mark.parametrize("form", ["digest", "dictionary"])
def test_the_wait_lasts_until_the_tag_has_left_the_digest(
    tmp_path: Path, layout: Path, context: Any, form: str
) -> None:
    first = champion(tmp_path, context, b"1")
    waiting = sensor(moved_from=first if form == "dictionary" else first["digest"])
    assert not waiting.poke(context)
    second = champion(tmp_path, context, b"2")
    assert waiting.poke(context).xcom_value["digest"] == second["digest"]


def test_the_wait_lasts_until_the_tag_has_reached_the_digest(tmp_path: Path, layout: Path, context: Any) -> None:
    champion(tmp_path, context, b"1")
    target = pack(tmp_path, b"2", reference="demo/model:v2").execute(context)
    waiting = sensor(moved_to=target)
    assert not waiting.poke(context)
    champion(tmp_path, context, b"2")
    assert waiting.poke(context)


def test_a_digest_cannot_be_waited_for(layout: Path, context: Any) -> None:
    waiting = ModelKitTagSensor(task_id="wait", reference=f"demo/model@{DIGEST}")
    with pytest.raises(AirflowFailException, match="never moves"):
        waiting.poke(context)


def test_both_conditions_at_once_are_refused_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match="not both"):
        sensor(moved_from=DIGEST, moved_to=DIGEST)


def test_a_condition_that_holds_already_does_not_defer(tmp_path: Path, layout: Path, context: Any) -> None:
    packed = champion(tmp_path, context, b"1")
    assert sensor(deferrable=True).execute(context)["digest"] == packed["digest"]


def test_a_deferred_wait_ends_when_the_tag_moves(tmp_path: Path, layout: Path, context: Any) -> None:
    first = champion(tmp_path, context, b"1")
    waiting = sensor(deferrable=True, moved_from=first)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(context)
    path, arguments = deferred.value.trigger.serialize()
    assert path == f"{ModelKitTagWaitTrigger.__module__}.{ModelKitTagWaitTrigger.__qualname__}"
    trigger = ModelKitTagWaitTrigger(**arguments)

    async def scenario() -> Any:
        events = trigger.run()
        next_event = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.2)
        assert not next_event.done()
        second = await asyncio.to_thread(champion, tmp_path, context, b"2")
        event = await asyncio.wait_for(next_event, 10)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        return second, event

    second, event = asyncio.run(scenario())
    assert waiting.execute_complete(context, event.payload)["digest"] == second["digest"]


def test_a_connection_that_cannot_be_used_fails_the_sensor(connections: Connections, context: Any) -> None:
    connections.set(extra={"layot": "/l"})
    trigger = ModelKitTagWaitTrigger("kitops_default", "demo/model:champion", poll_interval=0.01)
    event = asyncio.run(asyncio.wait_for(anext(trigger.run()), 10))  # type: ignore[arg-type]
    assert event.payload["status"] == "failed"
    assert "layot" in event.payload["message"]
    with pytest.raises(AirflowFailException, match="layot"):
        sensor().execute(context)


def test_an_error_that_waiting_does_not_cure_fails_the_sensor(layout: Path, context: Any) -> None:
    trigger = ModelKitTagWaitTrigger("kitops_default", "other.example.com/demo:champion", poll_interval=0.01)
    event = asyncio.run(asyncio.wait_for(anext(trigger.run()), 10))  # type: ignore[arg-type]
    with pytest.raises(AirflowFailException, match=r"other\.example\.com"):
        sensor().execute_complete(context, event.payload)


@pytest.mark.parametrize("error", [RegistryUnavailable("away"), RateLimited("slow down", retry_after=7.0)])
def test_a_registry_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path, layout: Path, context: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    packed = champion(tmp_path, context, b"1")
    open_store, asked = kitops.KitopsHook.store, []

    def unreliable(self: kitops.KitopsHook) -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise error
        return open_store(self)

    monkeypatch.setattr(kitops.KitopsHook, "store", unreliable)
    trigger = ModelKitTagWaitTrigger("kitops_default", "demo/model:champion", poll_interval=0.01)
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(tag.asyncio, "sleep", sleep)
    event = asyncio.run(asyncio.wait_for(anext(trigger.run()), 10))  # type: ignore[arg-type]
    assert event.payload["found"]["digest"] == packed["digest"]
    assert len(asked) == 3
    if isinstance(error, RateLimited):
        assert slept == [7.0, 7.0], "no sooner than the registry asks for"
    else:
        assert 0.018 <= slept[0] <= 0.022
        assert 0.036 <= slept[1] <= 0.044
