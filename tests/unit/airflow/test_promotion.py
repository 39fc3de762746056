"""Judge, gate, promotion and rollback as operators, on a real layout and an endpoint on loopback."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, DownstreamTasksSkipped
from airflow.sdk import Asset
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_kitops.evidence.attach import attach
from airflow_provider_kitops.evidence.provenance import slsa_provenance
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE, ResourceDescriptor, Statement, Subject
from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.operators.gate import PromotionGateOperator
from airflow_provider_kitops.operators.judge import LLMJudgeOperator
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.promote import ModelKitPromoteOperator, ModelKitRollbackOperator
from airflow_provider_kitops.promotion.judging import read_judged
from tests.fake_judge import KEY, FakeJudge, fake_judge

from .conftest import Connections, FakeTaskInstance

ITEMS = [{"id": str(number), "prompt": f"Question {number}?", "reference": "right"} for number in range(24)]
PAIRS = [
    {"id": str(number), "prompt": f"Question {number}?", "better": f"right {number}", "worse": f"wrong {number}"}
    for number in range(30)
]
POLICY = {"minimum_items": 20}


def context_of(operator: Any, **instance: Any) -> Any:
    return {
        "ti": FakeTaskInstance(task_id=operator.task_id, **instance),
        "task": operator,
        "outlet_events": OutletEventAccessors(),
    }


def packed(root: Path, name: str, files: dict[str, str]) -> dict[str, Any]:
    """A ModelKit ``demo/<name>`` of these files."""
    directory = root / name.replace("/", "-").replace(":", "-")
    directory.mkdir()
    for file, text in files.items():
        (directory / file).write_text(text)
    kitfile = {
        "manifestVersion": "1.0.0",
        "package": {"name": "demo"},
        "datasets": [{"name": file.partition(".")[0], "path": file} for file in files],
    }
    operator = KitPackOperator(task_id="pack", context_directory=directory, reference=f"demo/{name}", kitfile=kitfile)
    answer: dict[str, Any] = operator.execute(context_of(operator))
    return answer


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def answers(right: int) -> str:
    """Predictions of which the first ``right`` are right."""
    return lines(
        [
            {"id": item["id"], "prediction": f"{'right' if n < right else 'wrong'} {n % 7}"}
            for n, item in enumerate(ITEMS)
        ]
    )


@pytest.fixture
def world(tmp_path: Path, layout: Path, connections: Connections) -> Iterator[Any]:
    """Two models, their answers, the items, and a judge."""
    with fake_judge(FakeJudge(lambda text: 3.0 * ("right" in text))) as server:
        address = server.endpoint.base_url
        connections.set("judge", "http", host=address, password=KEY, extra={"model": "stub"})
        yield SimpleNamespace(
            server=server,
            good=packed(tmp_path, "model:good", {"a.txt": "good"}),
            bad=packed(tmp_path, "model:bad", {"a.txt": "bad"}),
            good_answers=packed(tmp_path, "answers:good", {"predictions.jsonl": answers(23)}),
            bad_answers=packed(tmp_path, "answers:bad", {"predictions.jsonl": answers(4)}),
            items=packed(tmp_path, "items:v1", {"items.jsonl": lines(ITEMS), "pairs.jsonl": lines(PAIRS)}),
            scratch=tmp_path / "scratch",
        )


def judged(world: Any, challenger: str = "good", champion: str = "bad", **arguments: Any) -> dict[str, Any]:
    operator = LLMJudgeOperator(
        task_id="judge",
        challenger=getattr(world, challenger),
        champion=getattr(world, champion),
        items=world.items,
        **{
            "challenger_predictions": getattr(world, f"{challenger}_answers"),
            "champion_predictions": getattr(world, f"{champion}_answers"),
            "llm_conn_id": "judge",
            "policy": POLICY,
            "scratch": world.scratch,
            **arguments,
        },
    )
    answer: dict[str, Any] = operator.execute(context_of(operator))
    return answer


def decided(report: Any, **arguments: Any) -> tuple[dict[str, Any], Any]:
    operator = PromotionGateOperator(task_id="gate", report=report, **arguments)
    context = context_of(operator)
    answer: dict[str, Any] = operator.execute(context)
    return answer, context


def promoted(world: Any, decision: Any, expected: Any = None, try_number: int = 1, **arguments: Any) -> Any:
    settings = {"challenger": world.good, "outlets": [Asset("champion")], **arguments}
    operator = ModelKitPromoteOperator(task_id="promote", decision=decision, expected=expected, **settings)
    context = context_of(operator, try_number=try_number)
    answer = operator.execute(context)
    events = {outlet.name: context["outlet_events"][outlet].extra for outlet in operator.outlets}
    return answer, events


def test_a_better_challenger_goes_all_the_way(world: Any) -> None:
    report = judged(world)
    assert "demo/model@sha256:" in report["reference"]
    assert (report["challenger"], report["champion"]) == (world.good["digest"], world.bad["digest"])
    assert report["items"] == len(ITEMS)
    assert report["mean"] > 0.5
    assert not any(world.scratch.iterdir()), "something is left in the scratch directory"

    decision, _ = decided(report)
    assert decision["outcome"] == "promote"
    assert 0 < decision["lower"] <= decision["mean"] <= decision["upper"]
    assert decision["report"] == report["digest"]
    assert (decision["challenger"], decision["champion"]) == (world.good["digest"], None)

    answer, events = promoted(world, decision)
    assert answer["changed"] is True
    assert answer["digest"] == world.good["digest"]
    assert KitopsHook().resolve("demo/model:champion")["digest"] == world.good["digest"]
    assert events["champion"]["digest"] == world.good["digest"]


def test_predictions_that_were_swapped_are_found_out(world: Any) -> None:
    with KitopsHook().store() as store:
        target = store.target("demo/answers")
        for model, answered in ((world.good, world.good_answers), (world.bad, world.bad_answers)):
            predicate = slsa_provenance(
                build_type="https://example.com/build",
                external_parameters={},
                resolved_dependencies=[ResourceDescriptor(name="model", digest=model["digest"])],
                builder_id="https://example.com/builder",
            )
            statement = Statement([Subject(target.name, answered["digest"])], SLSA_PROVENANCE, predicate)
            attach(target, target.resolve(answered["digest"]), statement)
    swapped = {"challenger_predictions": world.good_answers, "champion_predictions": world.bad_answers}
    with pytest.raises(AirflowFailException, match="swapped"):
        judged(world, challenger="bad", champion="good", **swapped)
    assert judged(world)["items"] == len(ITEMS)
    with KitopsHook().store() as store:
        report, _, _ = read_judged(store, judged(world)["reference"])
    assert report.challenger.predictions_modelkit == world.good_answers["digest"]


def test_a_decision_is_for_one_tag(world: Any) -> None:
    decision, _ = decided(judged(world), tag="staging")
    with pytest.raises(AirflowFailException, match="about the tag 'staging'"):
        promoted(world, decision)
    assert promoted(world, decision, tag="staging")[0]["changed"] is True


def test_a_second_promotion_changes_nothing_and_sends_no_event(world: Any) -> None:
    decision, _ = decided(judged(world))
    first, _ = promoted(world, decision)
    second, events = promoted(world, decision)
    assert second["changed"] is False
    assert {**second, "changed": True} == first
    assert events == {}


def test_a_second_try_of_a_killed_promotion_sends_its_event(world: Any) -> None:
    decision, _ = decided(judged(world))
    promoted(world, decision)
    _, events = promoted(world, decision, try_number=2)
    assert events["champion"]["digest"] == world.good["digest"]


def test_a_worse_challenger_is_rejected_and_what_follows_is_skipped(world: Any) -> None:
    from airflow.sdk import DAG, BaseOperator

    report = judged(world, challenger="bad", champion="good")
    with DAG("skipping", schedule=None):
        gate = PromotionGateOperator(task_id="gate", report=report)
        after, later = BaseOperator(task_id="after"), BaseOperator(task_id="later")
        gate >> after >> later
    context = context_of(gate)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        gate.execute(context)
    assert set(skipped.value.tasks) == {"after", "later"}
    assert context["ti"].xcom["return_value"]["outcome"] == "reject"


def test_only_the_next_task_is_skipped_where_trigger_rules_are_respected(world: Any) -> None:
    from airflow.sdk import DAG, BaseOperator

    report = judged(world, challenger="bad", champion="good")
    with DAG("skipping", schedule=None):
        gate = PromotionGateOperator(task_id="gate", report=report, ignore_downstream_trigger_rules=False)
        gate >> BaseOperator(task_id="after") >> BaseOperator(task_id="later")
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        gate.execute(context_of(gate))
    assert list(skipped.value.tasks) == ["after"]


def test_a_gate_may_fail_instead(world: Any) -> None:
    with pytest.raises(AirflowFailException, match="reject"):
        decided(judged(world, challenger="bad", champion="good"), fail_on_reject=True)


def test_another_policy_than_the_one_before_the_run_is_refused(world: Any) -> None:
    report = judged(world)
    with pytest.raises(AirflowFailException, match="policy"):
        decided(report, policy={"minimum_items": 1})


def test_a_champion_that_moved_meanwhile_is_a_conflict(world: Any, tmp_path: Path) -> None:
    decision, _ = decided(judged(world), champion=world.bad)
    packed(tmp_path, "model:champion", {"a.txt": "somebody else's"})
    with pytest.raises(AirflowFailException, match="champion"):
        promoted(world, decision, expected=world.bad)


def test_a_rollback_goes_to_the_digest_before_and_only_once(world: Any) -> None:
    operator = KitPackOperator(
        task_id="pack",
        context_directory=Path(world.scratch).parent / "model-bad",
        reference="demo/model:champion",
        kitfile={
            "manifestVersion": "1.0.0",
            "package": {"name": "demo"},
            "datasets": [{"name": "a", "path": "a.txt"}],
        },
    )
    before = operator.execute(context_of(operator))
    assert before["digest"] == world.bad["digest"]
    decision, _ = decided(judged(world), champion=before)
    after, _ = promoted(world, decision, expected=before)
    assert after["previous"] == before["digest"]
    assert KitopsHook().resolve(f"demo/model:{after['history_tag']}")["digest"] == before["digest"]
    for changed in (True, False):
        back = ModelKitRollbackOperator(task_id="back", repository="demo/model", expected=after)
        answer = back.execute(context_of(back))
        assert (answer["digest"], answer["changed"]) == (before["digest"], changed)


def test_a_rollback_without_what_it_leaves_is_refused(world: Any) -> None:
    back = ModelKitRollbackOperator(task_id="back", repository="demo/model", expected=None)  # type: ignore[arg-type]
    with pytest.raises(AirflowFailException, match="expected is empty"):
        back.execute(context_of(back))


def test_an_unqualified_judge_fails_the_task_for_good(world: Any, tmp_path: Path) -> None:
    swapped = [{**pair, "better": pair["worse"], "worse": pair["better"]} for pair in PAIRS]
    pairs = packed(tmp_path, "pairs:swapped", {"pairs.jsonl": lines(swapped)})
    with pytest.raises(AirflowFailException, match="may not decide"):
        judged(world, pairs=pairs)


def test_an_endpoint_that_is_away_is_worth_a_retry(world: Any, connections: Connections) -> None:
    connections.set("judge", "http", host="http://127.0.0.1:1/v1", password=KEY, extra={"model": "stub"})
    with pytest.raises(AirflowException, match=r"127\.0\.0\.1") as caught:
        judged(world, config={"retries": 0})
    assert not isinstance(caught.value, AirflowFailException)
    assert KEY not in str(caught.value)


def test_a_wrong_key_is_not(world: Any, connections: Connections) -> None:
    connections.set("judge", "http", host=world.server.endpoint.base_url, password="hunter2", extra={"model": "stub"})
    with pytest.raises(AirflowFailException) as caught:
        judged(world)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_names_what_is_there(world: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"holds no tests\.jsonl.*items\.jsonl"):
        judged(world, items_file="tests.jsonl")


@pytest.mark.parametrize("given", [{"llm_conn_id": "judge", "judge_model": "demo/judge:v1"}, {"llm_conn_id": "None"}])
def test_exactly_one_judge_must_be_given(world: Any, given: dict[str, str]) -> None:
    with pytest.raises(AirflowFailException, match="llm_conn_id or judge_model"):
        judged(world, **given)


def test_a_judge_of_ones_own_must_be_one_gguf_file(world: Any) -> None:
    with pytest.raises(AirflowFailException, match="one GGUF file"):
        judged(world, llm_conn_id=None, judge_model=world.items)


def test_settings_that_were_rendered_into_text_are_refused(world: Any) -> None:
    with pytest.raises(AirflowFailException, match="render_template_as_native_obj"):
        judged(world, config=str({"seed": 7}))


def test_the_example_dag_looks_at_items_before_it_trains(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = runpy.run_path(str(Path(__file__).parents[3] / "dags" / "champion_challenger.py"))
    dag = names["champion_challenger"]()
    assert "incumbent" in dag.get_task("fine_tune").upstream_task_ids
    incumbent = dag.get_task("incumbent").python_callable
    params = {"model": "demo/model", "judging": {"show_prompt": True}}
    monkeypatch.setitem(incumbent.__globals__, "get_current_context", lambda: {"params": params})
    assert incumbent(world.bad, world.items) == {"champion": None, "model": world.bad}
    unreadable = packed(tmp_path, "items:csv", {"items.csv": "id,text\n1,q\n"})
    with pytest.raises(InvalidInput, match="JSON Lines only"):
        incumbent(world.bad, unreadable)
