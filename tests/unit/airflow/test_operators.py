"""Operators against a real local layout."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kitops.evidence.attach import verify
from airflow_provider_kitops.evidence.signing import load_verifier
from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE
from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.errors import InvalidInput, RegistryUnavailable
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.operators._base import (
    KitopsBaseOperator,
    remove_scratch,
    scratch_directory,
    signer,
    verifier,
)
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.promote import ModelKitRollbackOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from airflow_provider_kitops.operators.unpack import KitUnpackOperator
from airflow_provider_kitops.operators.workload import WorkloadLocalOperator
from tests.unit.evidence.conftest import make_keys

from .conftest import Connections, FakeTaskInstance

KITFILE = {
    "manifestVersion": "1.0.0",
    "package": {"name": "demo", "version": "1.2.3"},
    "model": {"path": "weights.bin"},
}


def pack(tmp_path: Path, content: bytes = b"weights", **arguments: Any) -> KitPackOperator:
    directory = tmp_path / "context"
    directory.mkdir(exist_ok=True)
    (directory / "weights.bin").write_bytes(content)
    settings: dict[str, Any] = {"reference": "demo/model:v1", "kitfile": KITFILE, **arguments}
    return KitPackOperator(task_id="pack", context_directory=str(directory), **settings)


def test_packing_returns_the_reference_dictionary(tmp_path: Path, layout: Path, context: Any) -> None:
    answer = pack(tmp_path, tags=["latest"]).execute(context)
    assert set(answer) == {"reference", "digest", "tags", "size", "media_type", "name", "version"}
    assert answer["reference"] == f"demo/model@{answer['digest']}"
    assert answer["tags"] == ["v1", "latest"]
    assert (answer["name"], answer["version"]) == ("demo", "1.2.3")
    with Store(StoreConfig(layout=layout)) as store:
        target = store.target("demo/model")
        assert target.resolve("latest").digest == target.resolve("v1").digest == answer["digest"]
        assert answer["size"] > target.resolve("v1").size


def test_packing_twice_gives_the_same_answer(tmp_path: Path, layout: Path, context: Any) -> None:
    assert pack(tmp_path).execute(context) == pack(tmp_path).execute(context)


def test_a_kitfile_in_the_directory_is_found(tmp_path: Path, layout: Path, context: Any) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Kitfile").write_text("manifestVersion: 1.0.0\nmodel: {path: weights.bin}\n")
    assert pack(tmp_path, kitfile=None).execute(context)["digest"]


def test_a_tag_that_may_not_move_fails_without_a_retry(tmp_path: Path, layout: Path, context: Any) -> None:
    first = pack(tmp_path).execute(context)
    with pytest.raises(AirflowFailException, match=first["digest"]):
        pack(tmp_path, b"other").execute(context)
    assert KitopsHook().resolve("demo/model:v1")["digest"] == first["digest"]


def test_a_bad_kitfile_fails_and_names_the_task(tmp_path: Path, layout: Path, context: Any) -> None:
    with pytest.raises(AirflowFailException, match="kitfile of task pack"):
        pack(tmp_path, kitfile={"manifestVersion": "1.0.0", "modle": {}}).execute(context)


def test_a_registry_that_is_away_is_worth_a_retry(tmp_path: Path, connections: Connections, context: Any) -> None:
    connections.set(host="127.0.0.1:1", extra={"plain_http": True})
    with pytest.raises(AirflowException, match=r"127\.0\.0\.1:1") as caught:
        pack(tmp_path).execute(context)
    assert not isinstance(caught.value, AirflowFailException)


def test_another_registry_than_the_connections_is_refused(tmp_path: Path, layout: Path, context: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"other\.example\.com"):
        pack(tmp_path, reference="other.example.com/demo/model:v1").execute(context)


def test_the_output_of_one_operator_is_the_input_of_the_next(
    tmp_path: Path, layout: Path, connections: Connections, context: Any
) -> None:
    connections.set("elsewhere", extra={"layout": str(tmp_path / "elsewhere"), "namespace": "team"})
    packed = pack(tmp_path).execute(context)
    pushed = KitPushOperator(
        task_id="push",
        source=packed,
        source_conn_id="kitops_default",
        destination="copied/model:v1",
        kitops_conn_id="elsewhere",
    ).execute(context)
    assert pushed["digest"] == packed["digest"]
    assert pushed["copied"] > 0
    assert pushed["copied"] + pushed["skipped"] + pushed["mounted"] == pushed["size"], "each is a number of bytes"
    unpacked = KitUnpackOperator(
        task_id="unpack", reference=pushed, directory=tmp_path / "out", kitops_conn_id="elsewhere"
    ).execute(context)
    assert unpacked["digest"] == packed["digest"]
    assert (tmp_path / "out" / "weights.bin").read_bytes() == b"weights"


def test_a_push_keeps_repository_and_tag_unless_told_otherwise(
    tmp_path: Path, layout: Path, connections: Connections, context: Any
) -> None:
    connections.set("elsewhere", extra={"layout": str(tmp_path / "elsewhere")})
    pack(tmp_path).execute(context)
    push = KitPushOperator(
        task_id="push", source="demo/model:v1", source_layout=layout, kitops_conn_id="elsewhere", tags=["latest"]
    )
    assert push.execute(context)["tags"] == ["v1", "latest"]
    assert KitopsHook("elsewhere").resolve("demo/model:latest")


def test_unpacking_an_unknown_tag_fails_without_a_retry(tmp_path: Path, layout: Path, context: Any) -> None:
    with pytest.raises(AirflowFailException, match="demo/model"):
        KitUnpackOperator(task_id="unpack", reference="demo/model:none", directory=tmp_path / "o").execute(context)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        *({"reference": value} for value in (None, 5, {}, "")),
        *({"tags": value} for value in (5, [None], {"a": 1})),
        *({"kitfile": value} for value in (5, "None", [])),
        *({"created": value} for value in (5, "yesterday")),
        {"annotations": 5},
    ],
)
def test_packing_names_an_argument_of_the_wrong_type(
    tmp_path: Path, layout: Path, context: Any, arguments: dict[str, Any]
) -> None:
    with pytest.raises(AirflowFailException, match=rf"^{next(iter(arguments))} is "):
        pack(tmp_path, **arguments).execute(context)


def test_unpacking_names_that_collide_needs_the_switch(tmp_path: Path, layout: Path, context: Any) -> None:
    (tmp_path / "context" / "w").mkdir(parents=True)
    for name in ("a", "A"):
        (tmp_path / "context" / "w" / name).write_text(name)
    packed = pack(tmp_path, kitfile={"manifestVersion": "1.0.0", "model": {"path": "w"}}).execute(context)
    arguments = {"task_id": "unpack", "reference": packed, "directory": tmp_path / "out"}
    with pytest.raises(AirflowFailException, match="allow_case_collisions"):
        KitUnpackOperator(**arguments).execute(context)
    KitUnpackOperator(**arguments, allow_case_collisions=True).execute(context)
    assert (tmp_path / "out" / "w" / "A").read_text() == "A"


@pytest.mark.parametrize("filters", [None, 5, [None]])
def test_unpacking_names_filters_of_the_wrong_type(tmp_path: Path, layout: Path, context: Any, filters: Any) -> None:
    pack(tmp_path).execute(context)
    unpack = KitUnpackOperator(task_id="u", reference="demo/model:v1", directory=tmp_path / "o", filters=filters)
    with pytest.raises(AirflowFailException, match=r"^filters is .*Give a list"):
        unpack.execute(context)


@pytest.mark.parametrize("arguments", [{"destination": 5}, {"destination": ""}, {"tags": 5}, {"source_layout": 5}])
def test_pushing_names_an_argument_of_the_wrong_type(
    tmp_path: Path, layout: Path, context: Any, arguments: dict[str, Any]
) -> None:
    pack(tmp_path).execute(context)
    settings: dict[str, Any] = {"source": "demo/model:v1", "source_layout": layout, **arguments}
    with pytest.raises(AirflowFailException, match=rf"^{next(iter(arguments))} is "):
        KitPushOperator(task_id="push", **settings).execute(context)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"inputs": value} for value in (None, "None", 5)),
        *({"command": value} for value in (None, "true", [None], 5)),
        *({"kitfile": value} for value in (None, "None")),
        *({"destination": value} for value in (None, 5)),
        *({"tags": value} for value in (5, [None])),
        *({name: 5} for name in ("config", "env", "scratch")),
    ],
)
def test_a_workload_names_an_argument_of_the_wrong_type(
    tmp_path: Path, layout: Path, context: Any, arguments: dict[str, Any]
) -> None:
    pack(tmp_path).execute(context)
    with pytest.raises(AirflowFailException, match=rf"^{next(iter(arguments))} is "):
        workload(tmp_path, COPY, **arguments).execute(context)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, to see that nothing gets there."""
    directory = tmp_path / "current"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.mark.parametrize("value", ["", "None", None, 5])
def test_a_template_that_finds_no_path_does_not_mean_the_current_directory(
    tmp_path: Path, layout: Path, context: Any, elsewhere: Path, value: Any
) -> None:
    pack(tmp_path).execute(context)
    unpack: Any = KitUnpackOperator(task_id="unpack", reference="demo/model:v1", directory=value)
    packing: Any = KitPackOperator(task_id="pack", reference="demo/model:v2", context_directory=value, kitfile=KITFILE)
    with pytest.raises(AirflowFailException, match=r"^directory is"):
        unpack.execute(context)
    with pytest.raises(AirflowFailException, match="context_directory is"):
        packing.execute(context)
    if value is not None:
        working = workload(tmp_path, COPY, scratch=value)
        with pytest.raises(AirflowFailException, match="scratch is"):
            working.execute(context)
    assert not any(elsewhere.iterdir())


def test_no_operator_sets_a_tag_that_a_template_made_of_nothing(tmp_path: Path, layout: Path, context: Any) -> None:
    pack(tmp_path).execute(context)
    made: list[Any] = [
        pack(tmp_path, reference="demo/model:None"),
        pack(tmp_path, tags="None"),
        KitPushOperator(task_id="push", source="demo/model:v1", source_layout=layout, destination="copied/model:None"),
        workload(tmp_path, COPY, destination="demo/result:None"),
        workload(tmp_path, COPY, tags=["None"]),
    ]
    for operator in made:
        with pytest.raises(AirflowFailException, match="names the tag 'None'"):
            operator.execute(context)


def workload(tmp_path: Path, program: str, **arguments: Any) -> WorkloadLocalOperator:
    settings: dict[str, Any] = {
        "inputs": {"model": "demo/model:v1"},
        "command": ["python", "-c", program],
        "destination": "demo/result:latest",
        "kitfile": {"manifestVersion": "1.0.0", "package": {"name": "result"}, "model": {"path": "result.bin"}},
        "scratch": tmp_path / "scratch",
        **arguments,
    }
    return WorkloadLocalOperator(task_id="work", **settings)


COPY = """
import os, pathlib
result = pathlib.Path(os.environ["KITOPS_OUTPUT"]) / "result.bin"
result.write_bytes((pathlib.Path(os.environ["KITOPS_INPUTS"]) / "model" / "weights.bin").read_bytes() * 2)
"""


def test_a_workload_reads_a_modelkit_and_writes_one(tmp_path: Path, layout: Path, context: Any) -> None:
    pack(tmp_path).execute(context)
    answer = workload(tmp_path, COPY).execute(context)
    assert answer["tags"] == ["latest"]
    assert answer["metrics"] == {}
    assert answer["provenance"].startswith("sha256:")
    assert KitopsHook().resolve("demo/result:latest")["digest"] == answer["digest"]
    assert not any((tmp_path / "scratch").rglob("*"))


def test_a_workload_whose_result_cannot_be_read_back_is_not_run_again(
    tmp_path: Path, layout: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path).execute(context)
    resolve, runs = Store.resolve, tmp_path / "runs"
    operator = workload(tmp_path, f"{COPY}\nopen({str(runs)!r}, 'a').write('run\\n')")

    def away(store: Store, reference: Any) -> Any:
        if "demo/result@" in str(reference):
            monkeypatch.setattr(Store, "resolve", resolve)
            raise RegistryUnavailable("away just now")
        return resolve(store, reference)

    monkeypatch.setattr(Store, "resolve", away)
    with pytest.raises(AirflowException, match="away just now") as caught:
        operator.execute(context)
    assert not isinstance(caught.value, AirflowFailException)
    answer = operator.execute(context)
    assert runs.read_text() == "run\n"
    assert KitopsHook().resolve("demo/result:latest")["digest"] == answer["digest"]
    assert not any((tmp_path / "scratch").rglob("*"))


def test_a_workload_signs_its_provenance(tmp_path: Path, layout: Path, context: Any) -> None:
    keys = make_keys(tmp_path / "keys", "ed25519")
    pack(tmp_path).execute(context)
    answer = workload(tmp_path, COPY, signing_key=str(keys.private)).execute(context)
    with Store(StoreConfig(layout=layout)) as store:
        _, subject = store.resolve(answer["reference"])
        (found,) = verify(store.target("demo/result"), subject, load_verifier(keys.public), SLSA_PROVENANCE)
    assert found.descriptor.digest == answer["provenance"]


def test_a_key_that_cannot_be_read_fails_before_the_work(tmp_path: Path, layout: Path, context: Any) -> None:
    pack(tmp_path).execute(context)
    ran = tmp_path / "ran"
    with pytest.raises(AirflowFailException, match="nowhere"):
        workload(tmp_path, f"open({str(ran)!r}, 'w')", signing_key=tmp_path / "nowhere.pem").execute(context)
    assert not ran.exists()


def test_the_workload_of_the_documentation_runs(tmp_path: Path, layout: Path, context: Any) -> None:
    pack(tmp_path).execute(context)
    page = (Path(__file__).parents[3] / "docs" / "operators.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^SHOUT = .*?^WorkloadLocalOperator\(.*?^\)$", page, re.M | re.S)
    code = example.replace("WorkloadLocalOperator(", "operator = WorkloadLocalOperator(")
    names: dict[str, Any] = {
        "WorkloadLocalOperator": partial(WorkloadLocalOperator, scratch=tmp_path / "scratch"),
        "challenger": SimpleNamespace(output="demo/model:v1"),
    }
    exec(code, names)
    answer = names["operator"].execute(context)
    with Store(StoreConfig(layout=layout)) as store:
        unpack(store.target("news/shouting"), answer["digest"], tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "names.txt").read_text() == "KITFILE WEIGHTS.BIN"


@pytest.mark.parametrize("repository", ["demo/model:staging", f"demo/model@sha256:{'0' * 64}"])
def test_a_rollback_takes_its_tag_from_one_place(layout: Path, context: Any, repository: str) -> None:
    operator = ModelKitRollbackOperator(task_id="back", repository=repository, expected=f"sha256:{'1' * 64}")
    with pytest.raises(AirflowFailException, match="names more than a repository"):
        operator.execute(context)


def test_a_workload_takes_tags_as_the_other_operators_do(tmp_path: Path, layout: Path, context: Any) -> None:
    pack(tmp_path).execute(context)
    answer = workload(tmp_path, COPY, destination="demo/result:a,b", tags="c, d").execute(context)
    assert answer["tags"] == ["a", "b", "c", "d"]


def test_a_program_that_fails_keeps_its_scratch_directory_and_tells_why(
    tmp_path: Path, layout: Path, context: Any
) -> None:
    pack(tmp_path).execute(context)
    with pytest.raises(AirflowFailException, match="no such luck"):
        workload(tmp_path, "raise SystemExit('no such luck')").execute(context)
    assert any(scratch_directory(context, tmp_path / "scratch").iterdir())


def test_a_task_that_is_told_to_end_ends_its_program(tmp_path: Path, layout: Path, context: Any) -> None:
    pack(tmp_path).execute(context)
    pid_file = tmp_path / "pid"
    program = f"import os, time, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(600)"
    operator = workload(tmp_path, program)
    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())

    def terminate() -> None:
        end = time.monotonic() + 30
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=terminate)
    killer.start()
    try:
        with pytest.raises(AirflowException, match="told to end") as caught:
            operator.execute(context)
    finally:
        signal.signal(signal.SIGTERM, before)
        killer.join()
    assert not isinstance(caught.value, AirflowFailException), "a worker that stops is no reason to give up"
    end = time.monotonic() + 5  # killed at once, but the kernel may take a moment to say so
    while running(int(pid_file.read_text())) and time.monotonic() < end:
        time.sleep(0.02)
    assert not running(int(pid_file.read_text()))


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_killing_a_task_that_is_not_running_does_nothing(layout: Path) -> None:
    KitUnpackOperator(task_id="unpack", reference="demo/model:v1", directory="/x").on_kill()


def test_every_task_instance_has_a_scratch_directory_of_its_own(tmp_path: Path) -> None:
    ids = [
        {"run_id": "manual__2026-01-01T00:00:00+00:00"},
        {"run_id": "../../escape"},
        {"run_id": ".."},
        {"dag_id": "a/b", "run_id": "c"},
        {"dag_id": "a", "run_id": "b/c"},
        {"map_index": 3},
        {"task_id": "group.task"},
    ]
    found = {scratch_directory({"ti": FakeTaskInstance(**each)}, tmp_path) for each in ids}  # type: ignore[typeddict-item]
    assert len(found) == len(ids)
    for directory in found:
        assert directory.resolve().is_relative_to(tmp_path.resolve())
        assert len(directory.relative_to(tmp_path).parts) == 4


def test_a_directory_that_another_task_removes_meanwhile_is_made_again(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, removed = Path.mkdir, []

    def mkdir(self: Path, *arguments: Any, **more: Any) -> None:
        make(self, *arguments, **more)
        if self.name in ("run", "task") and self.name not in removed:
            removed.append(self.name)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert scratch_directory(context, tmp_path).is_dir()
    assert removed


def test_the_directories_of_a_run_go_with_its_last_task(tmp_path: Path) -> None:
    one, other = (scratch_directory({"ti": FakeTaskInstance(task_id=name)}, tmp_path) for name in ("a", "b"))
    remove_scratch(one)
    assert other.is_dir()
    other.parent.rename(tmp_path / "moved")  # as if another task had been quicker
    remove_scratch(other)
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_a_scratch_directory_that_cannot_be_made_fails_without_a_retry(
    tmp_path: Path, layout: Path, context: Any
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AirflowFailException, match="in the way"):
        workload(tmp_path, COPY, scratch=tmp_path / "file").execute(context)


@pytest.mark.parametrize("value", ["", "None", 5])
def test_a_key_that_a_template_did_not_find_leaves_nothing_unsigned(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"signing_key is .*, not a path"):
        signer(value)
    with pytest.raises(InvalidInput, match=r"verification_key is .*, not a path"):
        verifier(value)
    assert signer(None) is None
    assert verifier(None) is None


def test_no_field_that_airflow_shows_can_hold_a_secret() -> None:
    import airflow_provider_kitops.operators.gate
    import airflow_provider_kitops.operators.judge
    import airflow_provider_kitops.operators.promote  # noqa: F401

    def subclasses(cls: type) -> list[type]:
        return [cls, *(each for sub in cls.__subclasses__() for each in subclasses(sub))]

    shown = {field for cls in subclasses(KitopsBaseOperator) for field in cls.template_fields}  # type: ignore[attr-defined]
    assert not shown & {"env", "password", "api_key", "token", "identity_token", "proxy"}
