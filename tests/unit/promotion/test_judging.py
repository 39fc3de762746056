"""ModelKits unpacked and checked for the judge; judging as a whole is tested with the operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.evidence.attach import attach
from airflow_provider_kitops.evidence.provenance import slsa_provenance
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE, ResourceDescriptor, Statement, Subject
from airflow_provider_kitops.judge.config import JudgeConfig
from airflow_provider_kitops.judge.endpoint import Endpoint
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.descriptor import Descriptor, digest_of
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.oci.target import Progress
from airflow_provider_kitops.promotion import judging
from tests.unit.evidence.conftest import put_manifest


def packed(store: Store, root: Path, name: str, path: str) -> None:
    context = root / name
    context.mkdir()
    if "/" not in path:  # else it is a reference
        (context / path).write_bytes(b"GGUF")
    (context / "notes.md").write_text(name)
    (context / "Kitfile").write_text(
        f"manifestVersion: 1.0.0\nmodel: {{name: judge, path: {path}}}\ndocs: [{{path: notes.md}}]\n"
    )
    pack(context, None, store.target(f"demo/{name}"), "v1")


@pytest.fixture
def contexts() -> list[int]:
    """The tokens that each served model was given."""
    return []


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, contexts: list[int]) -> list[Path]:
    """The files that were served."""
    paths: list[Path] = []

    @contextmanager
    def serve(path: Path, *, threads: int, context: int) -> Iterator[Endpoint]:
        paths.append(path)
        contexts.append(context)
        yield Endpoint("http://127.0.0.1:1/v1")

    monkeypatch.setattr(judging, "serve_gguf", serve)
    return paths


def test_unpacking_uses_the_stores_concurrency_and_tells_how_far_it_is(
    tmp_path: Path, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout", concurrency=3))
    packed(store, tmp_path, "judge", "judge.gguf")
    used: list[int] = []
    real = judging.unpack

    def unpack(*arguments: Any, **named: Any) -> Any:
        used.append(named["concurrency"])
        return real(*arguments, **named)

    monkeypatch.setattr(judging, "unpack", unpack)
    told: list[Progress] = []
    with judging.local_judge(store, "demo/judge:v1", tmp_path / "scratch", 1, told.append):
        assert [path.read_bytes() for path in served] == [b"GGUF"]
    assert used == [3]
    assert any(step.total is not None and step.done >= step.total for step in told)


def test_a_judge_that_is_based_on_another_modelkit_is_found_there(tmp_path: Path, served: list[Path]) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout"))
    packed(store, tmp_path, "judge", "judge.gguf")
    packed(store, tmp_path, "derived", "demo/judge:v1")
    with judging.local_judge(store, "demo/derived:v1", tmp_path / "scratch", 1):
        assert [path.name for path in served] == ["judge.gguf"]


def test_a_judge_gets_the_context_that_its_limits_need(tmp_path: Path, served: list[Path], contexts: list[int]) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout"))
    packed(store, tmp_path, "judge", "judge.gguf")
    for limit in (4000, 100):
        config = JudgeConfig(maximum_prompt_characters=limit, maximum_answer_characters=limit)
        with judging.local_judge(store, "demo/judge:v1", tmp_path / "scratch", 1, config=config):
            pass
    assert contexts[0] > 4 * 4000
    assert contexts[1] < 2048


# --- whose predictions they are

CHAMPION, CHALLENGER, BASE = (f"sha256:{letter * 64}" for letter in "abc")


@pytest.fixture
def target(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", "demo/predictions")


def made_by(target: Layout, **inputs: str) -> Descriptor:
    """Predictions whose provenance names these inputs."""
    predictions = put_manifest(target, "predictions")
    predicate = slsa_provenance(
        build_type="https://example.com/build",
        external_parameters={},
        resolved_dependencies=[ResourceDescriptor(name=name, digest=digest) for name, digest in inputs.items()],
        builder_id="https://example.com/builder",
    )
    attach(target, predictions, Statement([Subject(target.name, predictions.digest)], SLSA_PROVENANCE, predicate))
    return predictions


def test_predictions_belong_to_the_model_that_their_provenance_names(
    target: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = made_by(target, model=CHALLENGER, dataset=BASE)
    judging._require_answered_by(target, predictions, CHALLENGER, "challenger")
    with pytest.raises(VerificationFailed, match=rf"champion's predictions .* made by {CHALLENGER}.* is {CHAMPION}"):
        judging._require_answered_by(target, predictions, CHAMPION, "champion")
    # An input that is not the model does not make the predictions its own.
    with pytest.raises(VerificationFailed):
        judging._require_answered_by(target, predictions, BASE, "champion")
    assert not caplog.records


def test_equal_predictions_belong_to_both_models(target: Layout) -> None:
    made_by(target, model=CHALLENGER)
    predictions = made_by(target, model=CHAMPION)
    for digest in (CHALLENGER, CHAMPION):
        judging._require_answered_by(target, predictions, digest, "champion")


def test_predictions_of_another_program_may_call_their_model_otherwise(
    target: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = made_by(target, classifier=CHALLENGER)
    judging._require_answered_by(target, predictions, CHALLENGER, "challenger")
    assert not caplog.records
    judging._require_answered_by(target, predictions, CHAMPION, "champion")
    assert "is not checked" in caplog.text


def test_predictions_without_provenance_are_told(target: Layout, caplog: pytest.LogCaptureFixture) -> None:
    judging._require_answered_by(target, put_manifest(target, "predictions"), CHAMPION, "champion")
    assert "is not checked" in caplog.text


# --- before anything is trained


def dataset(store: Store, root: Path, **files: str) -> None:
    context = root / "dataset"
    context.mkdir()
    names = [name.replace("_", ".") for name in files]
    for name, text in zip(names, files.values(), strict=True):
        (context / name).write_text(text)
    listed = ", ".join(f"{{path: {name}}}" for name in names)
    (context / "Kitfile").write_text(f"manifestVersion: 1.0.0\ndatasets: [{listed}]\n")
    pack(context, None, store.target("demo/dataset"), "v1")


PAIRS = "".join(f'{{"id": {number}, "text": "q", "better": "x", "worse": "y"}}\n' for number in range(30))


def test_a_dataset_that_can_be_judged_passes(tmp_path: Path) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout"))
    dataset(store, tmp_path, items_jsonl='{"id": "1", "text": "q", "source": "s"}', pairs_jsonl=PAIRS)
    judging.check_inputs(store, "demo/dataset:v1")
    with pytest.raises(InvalidInput, match="needs a reference"):
        judging.check_inputs(store, "demo/dataset:v1", config=JudgeConfig(show_prompt=False))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"items_csv": "id,text\n1,q\n", "pairs_jsonl": PAIRS}, r"holds no items\.jsonl.*JSON Lines only"),
        ({"items_jsonl": '{"id": "1", "question": "q"}', "pairs_jsonl": PAIRS}, r"line 1: there is no prompt"),
        ({"items_jsonl": '{"id": "1", "text": "q"}', "pairs_jsonl": PAIRS[:60]}, "labelled pair|not JSON"),
    ],
)
def test_a_dataset_that_cannot_be_judged_is_told(tmp_path: Path, files: dict[str, str], told: str) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout"))
    dataset(store, tmp_path, **files)
    with pytest.raises(InvalidInput, match=told):
        judging.check_inputs(store, "demo/dataset:v1")


# --- what the report is read from


def test_a_report_that_its_statement_does_not_name_is_not_read(tmp_path: Path) -> None:
    store = Store(StoreConfig(layout=tmp_path / "layout"))
    target = store.target("demo/model")
    subject = put_manifest(target, "a model")
    files = dict.fromkeys(("report.json", "verdicts.jsonl", "policy.json"), b"{}")
    named = [ResourceDescriptor(name=name, digest=digest_of(b"other")).to_json() for name in files]
    statement = Statement([Subject(target.name, subject.digest)], judging.JUDGE_REPORT, {"files": named})
    attached = attach(target, subject, statement, files=files)
    with pytest.raises(VerificationFailed, match=r"report\.json .* that its statement does not name"):
        judging.read_judged(store, f"demo/model@{attached.digest}")
