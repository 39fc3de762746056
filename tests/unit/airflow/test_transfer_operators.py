"""Push, pull, copy, tag, untag and remove, against real local layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.oci.errors import NotFound
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.operators.copy import KitCopyOperator
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from airflow_provider_kitops.operators.remove import KitRemoveOperator
from airflow_provider_kitops.operators.tag import KitTagOperator
from airflow_provider_kitops.operators.untag import KitUntagOperator
from tests.artifacts import put_artifact, put_referrer

from .conftest import Connections


class World:
    """Two connections, ``kitops_default`` and ``elsewhere``, each with a layout and a namespace of its own."""

    def __init__(self, root: Path, connections: Connections) -> None:
        self.home, self.elsewhere, self.worker = root / "home", root / "elsewhere", root / "worker"
        connections.set(extra={"layout": str(self.home), "namespace": "team"})
        connections.set("elsewhere", extra={"layout": str(self.elsewhere), "namespace": "other/space"})
        with Store(StoreConfig(layout=self.home, namespace="team")) as store:
            target = store.target("demo/model")
            self.old = put_artifact(target, b"old", tag="v0").digest
            self.digest = put_artifact(target, b"weights", tag="v1").digest
            target.tag(target.resolve("v1"), "latest")

    def named(self, reference: str, conn_id: str = "kitops_default") -> str | None:
        found = KitopsHook(conn_id).resolve(reference, default=None)
        return found and found["digest"]


@pytest.fixture
def world(tmp_path: Path, connections: Connections) -> World:
    return World(tmp_path, connections)


def test_pulling_and_pushing_go_the_same_way_back(world: World, context: Any) -> None:
    pulled = KitPullOperator(
        task_id="pull", source="demo/model:v1", tags="latest", destination_layout=world.worker
    ).execute(context)
    assert pulled["digest"] == world.digest
    assert pulled["tags"] == ["v1", "latest"]
    assert pulled["layout"] == str(world.worker)
    assert pulled["copied"] + pulled["skipped"] + pulled["mounted"] == pulled["size"]
    with Store(StoreConfig(layout=world.worker)) as store:
        assert store.target("demo/model").tags() == ["latest", "v1"], "the namespace is the connection's own"
    pushed = KitPushOperator(
        task_id="push", source="demo/model:v1", source_layout=world.worker, kitops_conn_id="elsewhere"
    ).execute(context)
    assert pushed["digest"] == world.named("demo/model:v1", "elsewhere") == world.digest
    again = KitPullOperator(
        task_id="again", source=pushed, destination="copied/model", kitops_conn_id="elsewhere",
        destination_layout=world.worker,
    ).execute(context)  # fmt: skip
    assert (again["reference"], again["tags"]) == (f"copied/model@{world.digest}", [])


def test_a_pull_moves_tags_that_the_connection_lets_move(world: World, connections: Connections, context: Any) -> None:
    connections.set(extra={"layout": str(world.home), "namespace": "team", "mutable_tags": "nightly"})

    def pull(source: str, tag: str) -> Any:
        return KitPullOperator(
            task_id="pull", source=source, destination=f"demo/model:{tag}", destination_layout=world.worker
        ).execute(context)

    for tag in ("nightly", "latest"):
        pull("demo/model:v0", tag)
    pull("demo/model:v1", "nightly")
    with pytest.raises(AirflowFailException, match=world.old):
        pull("demo/model:v1", "latest")


@pytest.mark.parametrize(
    "sides",
    [
        {"source_conn_id": "kitops_default", "destination_conn_id": "elsewhere", "kitops_conn_id": "nobody"},
        {"destination_conn_id": "elsewhere"},
        {"source_conn_id": "kitops_default", "kitops_conn_id": "elsewhere"},
    ],
)
def test_a_copy_goes_from_one_connection_to_the_other(world: World, context: Any, sides: dict[str, str]) -> None:
    copied = KitCopyOperator(task_id="copy", source="demo/model:v1", tags=["stable"], **sides).execute(context)
    assert copied["tags"] == ["v1", "stable"]
    assert copied["copied"] > 0
    assert world.named("demo/model:stable", "elsewhere") == world.digest


def test_a_copy_inside_one_store_moves_no_layer(world: World, context: Any) -> None:
    copied = KitCopyOperator(
        task_id="copy", source=f"demo/model@{world.digest}", destination="released/model:v1"
    ).execute(context)
    assert copied["mounted"] > 0
    assert world.named("released/model:v1") == world.digest


@pytest.mark.parametrize("operator", [KitPullOperator, KitCopyOperator])
def test_a_copy_takes_what_is_attached_only_when_asked(
    world: World, context: Any, operator: type[KitPullOperator | KitCopyOperator]
) -> None:
    with Store(StoreConfig(layout=world.home, namespace="team")) as store:
        target = store.target("demo/model")
        statement = put_referrer(target, target.resolve("v1"))
    where: dict[str, Any] = (
        {"destination_conn_id": "elsewhere"}
        if operator is KitCopyOperator
        else {"destination_layout": world.elsewhere / "other/space"}
    )
    for referrers in (False, True):
        operator(task_id="copy", source="demo/model:v1", referrers=referrers, **where).execute(context)
        assert (world.named(f"demo/model@{statement.digest}", "elsewhere") is not None) == referrers


@pytest.mark.parametrize("arguments", [{"source": 5}, {"destination": 5}, {"destination": ""}, {"tags": 5}])
@pytest.mark.parametrize("operator", [KitPullOperator, KitCopyOperator])
def test_copying_names_an_argument_of_the_wrong_type(
    world: World, context: Any, operator: Any, arguments: dict[str, Any]
) -> None:
    settings = {"source": "demo/model:v1", **arguments}
    with pytest.raises(AirflowFailException, match=rf"^{next(iter(arguments))} is "):
        operator(task_id="copy", **settings).execute(context)
    with pytest.raises(AirflowFailException, match="destination_layout is '', not a path"):
        KitPullOperator(task_id="pull", source="demo/model:v1", destination_layout="").execute(context)


def test_tags_are_given_in_the_same_and_in_another_repository(world: World, context: Any) -> None:
    same = KitTagOperator(task_id="tag", reference="demo/model:v1", tags="champion, v1.0").execute(context)
    assert same["tags"] == ["champion", "v1.0"]
    assert same["reference"] == f"demo/model@{world.digest}"
    assert set(same) == {"reference", "digest", "tags", "size", "media_type"}
    other = KitTagOperator(
        task_id="tag", reference=same, destination="released/model:v1,latest", tags=["stable"]
    ).execute(context)
    assert other["tags"] == ["v1", "latest", "stable"]
    assert world.named("demo/model:champion") == world.named("released/model:stable") == world.digest


def test_a_tag_that_may_not_move_keeps_all_where_they_are(world: World, context: Any) -> None:
    tag = KitTagOperator(task_id="tag", reference=f"demo/model@{world.digest}", tags=["champion", "v0"])
    with pytest.raises(AirflowFailException, match=world.old):
        tag.execute(context)
    assert world.named("demo/model:champion") is None
    with pytest.raises(AirflowFailException, match="No tag"):
        KitTagOperator(task_id="tag", reference="demo/model:v1", destination="demo/model", tags=[""]).execute(context)


def test_untagging_leaves_the_modelkit(world: World, context: Any) -> None:
    answer = KitUntagOperator(task_id="untag", reference="demo/model:v1,latest", tags="v0").execute(context)
    assert answer["untagged"] == {"v1": world.digest, "latest": world.digest, "v0": world.old}
    assert (answer["digest"], answer["tags"]) == (world.digest, [])
    assert KitopsHook().resolve("demo/model:v1", default=None) is None
    assert KitopsHook().resolve(f"demo/model@{world.digest}")


def test_untagging_by_digest_removes_tags_of_this_digest_only(world: World, context: Any) -> None:
    output = KitopsHook().resolve("demo/model:v1")
    with pytest.raises(AirflowFailException, match=world.old):
        KitUntagOperator(task_id="untag", reference=output, tags=["v1", "v0"]).execute(context)
    assert world.named("demo/model:v1") == world.digest
    KitUntagOperator(task_id="untag", reference=output, tags=["v1"]).execute(context)
    assert world.named("demo/model:v1") is None


def test_untagging_twice_is_an_error_unless_said_otherwise(world: World, context: Any) -> None:
    def untag(**arguments: Any) -> Any:
        return KitUntagOperator(task_id="untag", reference="demo/model:v1", **arguments).execute(context)

    untag()
    with pytest.raises(AirflowFailException, match="v1"):
        untag()
    assert untag(missing_ok=True) is None
    with pytest.raises(AirflowFailException, match="No tag"):
        KitUntagOperator(task_id="untag", reference=f"demo/model@{world.digest}").execute(context)


def test_removing_by_tag_leaves_what_other_tags_name(world: World, context: Any) -> None:
    first = KitRemoveOperator(task_id="remove", reference="demo/model:v1").execute(context)
    assert (first["removed"], first["tags"], first["digest"]) == (False, ["latest"], world.digest)
    last = KitRemoveOperator(task_id="remove", reference="demo/model:latest").execute(context)
    assert (last["removed"], last["tags"]) == (True, [])
    assert last["size"] == first["size"] > 0
    assert world.named(f"demo/model@{world.digest}") is None


@pytest.mark.parametrize("how", ["force", "digest", "output"])
def test_removing_by_digest_or_force_removes_all_tags(world: World, context: Any, how: str) -> None:
    reference: Any = {
        "force": "demo/model:v1",
        "digest": f"demo/model@{world.digest}",
        "output": KitopsHook().resolve("demo/model:v1"),
    }[how]

    def remove(**arguments: Any) -> Any:
        return KitRemoveOperator(task_id="remove", reference=reference, force=how == "force", **arguments).execute(
            context
        )

    assert remove()["removed"] is True
    assert world.named("demo/model:latest") is None
    with pytest.raises(AirflowFailException):
        remove()
    assert remove(missing_ok=True) is None


def test_nothing_is_removed_by_a_default_tag(world: World, context: Any) -> None:
    with pytest.raises(AirflowFailException, match="neither tag nor digest"):
        KitRemoveOperator(task_id="remove", reference="demo/model").execute(context)
    assert world.named("demo/model:latest") == world.digest


def test_no_tag_is_set_or_removed_that_a_template_made_of_nothing(world: World, context: Any) -> None:
    made: list[Any] = [
        KitTagOperator(task_id="tag", reference="demo/model:v1", tags="None"),
        KitTagOperator(task_id="tag", reference="demo/model:v1", destination="demo/model:None"),
        KitUntagOperator(task_id="untag", reference="demo/model:None", missing_ok=True),
        KitCopyOperator(task_id="copy", source="demo/model:v1", tags=["None"]),
        KitPullOperator(task_id="pull", source="demo/model:v1", tags=["None"], destination_layout=world.worker),
    ]
    for operator in made:
        with pytest.raises(AirflowFailException, match="names the tag 'None'"):
            operator.execute(context)


def test_what_is_unknown_is_not_tried_again(world: World, context: Any) -> None:
    for operator in (
        KitPullOperator(task_id="a", source="demo/model:none", destination_layout=world.worker),
        KitCopyOperator(task_id="b", source="demo/model:none", destination_conn_id="elsewhere"),
        KitTagOperator(task_id="c", reference="demo/model:none", tags="x"),
    ):
        with pytest.raises(AirflowFailException, match="demo/model") as caught:
            operator.execute(context)
        assert isinstance(caught.value.__cause__, NotFound)
