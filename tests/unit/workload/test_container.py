"""What a step tells, how long it waits, and what it leaves; the whole way is tests/integration/test_container.py."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE, Statement, Subject
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.descriptor import Descriptor, digest_of
from airflow_provider_kitops.oci.errors import (
    Conflict,
    NotFound,
    RateLimited,
    RegistryUnavailable,
    StorageError,
    VerificationFailed,
    WorkloadFailed,
)
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.oci.target import ProgressHook
from airflow_provider_kitops.workload import runner
from airflow_provider_kitops.workload.container import MESSAGE_LIMIT, Patience, _failure, _Hidden, _Message, main
from airflow_provider_kitops.workload.provenance import metrics_of
from airflow_provider_kitops.workload.spec import WorkloadSpec


class Clock:
    """Time that passes only while somebody sleeps, and a patience that lives by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, clock=lambda: self.now, sleep=self.sleep)


def failing(times: int, error: Exception, then: Callable[[], None] = lambda: None) -> Callable[[], str]:
    left = iter(range(times))

    def work() -> str:
        if next(left, None) is None:
            return "done"
        then()
        raise error

    return work


AWAY = RegistryUnavailable("The registry is away.")


def test_waits_grow_to_a_minute_and_end_with_patience() -> None:
    clock = Clock()
    with pytest.raises(RegistryUnavailable):
        clock.patience(600).call(failing(1000, AWAY))
    assert sum(clock.waits) == pytest.approx(600)
    assert clock.waits[:4] == pytest.approx([1.5, 2.5, 4.5, 8.5], abs=0.5)
    assert 59 <= max(clock.waits) <= 60


def test_a_registry_that_comes_back_in_time_costs_nothing_but_time() -> None:
    clock = Clock()
    assert clock.patience(600).call(failing(8, AWAY)) == "done"


def test_without_patience_nothing_is_tried_again() -> None:
    clock = Clock()
    with pytest.raises(RegistryUnavailable):
        clock.patience(0).call(failing(1, AWAY))
    assert clock.waits == []


@pytest.mark.parametrize("error", [NotFound("x"), Conflict("x"), StorageError("x"), WorkloadFailed("x"), ValueError()])
def test_what_stays_wrong_is_not_tried_again(error: Exception) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        clock.patience(600).call(failing(1, error))
    assert clock.waits == []


def test_time_at_work_is_not_counted_as_waiting() -> None:
    clock = Clock()

    def hours() -> None:
        clock.now += 7200

    assert clock.patience(600).call(failing(1, AWAY, hours)) == "done"


def test_patience_begins_anew_when_the_work_comes_further() -> None:
    clock = Clock()
    patience = clock.patience(600)
    done = 0

    def further() -> None:
        nonlocal done
        clock.now += 500
        done += 1
        patience.note("part", done)

    assert patience.call(failing(20, AWAY, further)) == "done"
    assert max(clock.waits) <= 2


def test_a_transfer_that_always_breaks_at_the_same_place_comes_to_an_end() -> None:
    clock = Clock()
    patience = clock.patience(600)

    def same() -> None:
        clock.now += 100
        patience.note("part", 5)

    with pytest.raises(RegistryUnavailable):
        patience.call(failing(1000, AWAY, same))
    assert clock.now < 1000


def test_what_the_registry_asks_for_is_waited() -> None:
    clock = Clock()
    assert clock.patience(600).call(failing(1, RateLimited("slow", retry_after=200))) == "done"
    assert clock.waits == [200]


def test_each_wait_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    clock.patience(600).call(failing(2, AWAY))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("The registry is away. Trying again in ")


@settings(deadline=None)
@given(line=st.text(st.characters(codec=None), max_size=6000), transient=st.booleans())
def test_a_failure_s_message_always_fits(line: str, transient: bool) -> None:
    message = _failure(line, transient)
    assert len(message) <= MESSAGE_LIMIT
    told = json.loads(message)
    assert told["transient"] is transient
    assert told["error"] == line or (told["error"].endswith("…") and line.startswith(told["error"][:-1]))


def test_a_message_fits_into_what_a_node_keeps_where_others_put_containers_into_the_pod() -> None:
    assert 12288 // MESSAGE_LIMIT >= 10


def test_a_long_failure_fills_the_message() -> None:
    assert MESSAGE_LIMIT - 12 <= len(_failure("☃" * 5000, False)) <= MESSAGE_LIMIT


def result(metrics: dict[str, Any], repository: str = "demo/model") -> runner.WorkloadResult:
    descriptor = Descriptor.of("application/vnd.oci.image.manifest.v1+json", b"{}")
    return runner.WorkloadResult(
        f"{repository}@{descriptor.digest}", descriptor, metrics, ("v1",), 3, 1.5, descriptor.digest
    )


@pytest.mark.parametrize(
    ("metrics", "kept"),
    [({}, True), ({"loss": 0.25}, True), ({"names": ["☃"] * 500}, False), ({"names": "x" * 4096}, False)],
)
def test_metrics_that_do_not_fit_are_left_out_of_the_message(
    tmp_path: Path, metrics: dict[str, Any], kept: bool
) -> None:
    made = result(metrics)
    _Message(tmp_path / "message", _Hidden()).succeed(made)
    assert (tmp_path / "message").stat().st_size <= MESSAGE_LIMIT
    assert json.loads((tmp_path / "message").read_text()) == {
        "digest": made.descriptor.digest,
        "reference": made.reference,
        "metrics": metrics if kept else None,
        "provenance": made.provenance,
        "seconds": 1.5,
    }


def test_no_secret_is_in_the_last_line_or_the_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = _Hidden()
    hidden.add(["s3cret", "s3cret-and-more", "ab"])
    code = _Message(tmp_path / "message", hidden).fail("It said\n s3cret-and-more,\x1b s3cret, ab.", 4, transient=False)
    assert code == 4
    assert capsys.readouterr().err == "error: It said …,  …, ab.\n"
    assert json.loads((tmp_path / "message").read_text()) == {"error": "It said …,  …, ab.", "transient": False}


def test_a_message_that_cannot_be_written_hides_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert _Message(tmp_path / "no" / "message", _Hidden()).fail("It broke.", 5, transient=True) == 5
    assert capsys.readouterr().err == "error: It broke.\n"
    assert "Cannot write" in caplog.text


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def run(*arguments: str) -> int:
        places = {name: tmp_path / name for name in ("root", "job", "secret", "cache")}
        flags = [part for name, path in places.items() for part in (f"--{name}", str(path))]
        return main([*arguments, *flags, "--termination-log", str(tmp_path / "message")])

    return run


def test_a_missing_specification_is_a_usage_error(
    step: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert step("fetch") == 2
    assert json.loads((tmp_path / "message").read_text()) == {
        "error": f"Cannot read {tmp_path}/job/spec.json: No such file or directory.",
        "transient": False,
    }
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: Cannot read")


def test_what_nobody_expected_is_exit_code_1_with_a_traceback(
    step: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("airflow_provider_kitops.workload.mounts.read_spec", broken)
    assert step("publish") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: ZeroDivisionError: by nothing"


@pytest.mark.parametrize("arguments", [["work"], [], ["fetch", "--patience", "-1"], ["fetch", "--patience", "inf"]])
def test_a_command_line_that_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(StoreConfig(layout=tmp_path / "registry")) as opened:
        yield opened


def packed(store: Store, directory: Path, repository: str, kitfile: str, files: dict[str, str]) -> str:
    directory.mkdir()
    for name, text in {**files, "Kitfile": f"manifestVersion: 1.0.0\n{kitfile}"}.items():
        (directory / name).write_text(text)
    made = pack(directory, None, store.target(repository))
    return f"{repository}@{made.descriptor.digest}"


@pytest.fixture
def spec(store: Store, tmp_path: Path) -> WorkloadSpec:
    """A workload with one input that is based on another ModelKit."""
    base = packed(store, tmp_path / "b", "demo/base", "model: {name: m, path: weights.bin}\n", {"weights.bin": "w" * 9})
    tuned = packed(
        store,
        tmp_path / "t",
        "demo/tuned",
        f"model: {{name: m, path: '{base}', parts: [{{path: delta.bin}}]}}\n",
        {"delta.bin": "delta"},
    )
    return WorkloadSpec.of(
        inputs={"model": tuned}, command=["true"], output={"reference": "demo/out:v1", "kitfile": {"docs": []}}
    )


def content(root: Path) -> dict[str, str]:
    found = {path.name: path.read_text() for path in (root / "in" / "model").iterdir()}
    found.pop("Kitfile")
    return found


def test_inputs_come_through_the_cache_with_what_they_are_based_on(
    store: Store, spec: WorkloadSpec, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    watched: list[tuple[str, str]] = []
    actions: list[str] = []

    @contextlib.contextmanager
    def watch(name: str, reference: str) -> Iterator[ProgressHook]:
        watched.append((name, reference))
        yield lambda step: actions.append(step.action)

    runner.fetch(spec, store, tmp_path / "one", cache=cache, watch=watch)
    assert content(tmp_path / "one") == {"weights.bin": "w" * 9, "delta.bin": "delta"}
    assert watched == [("model", spec.inputs["model"])]
    assert {"mount", "unpack"} <= set(actions)  # the source is a layout on the same disk
    actions.clear()
    runner.fetch(spec, store, tmp_path / "two", cache=cache, watch=watch)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert set(actions) == {"download", "skip", "unpack"}
    with Store(StoreConfig(layout=cache)) as cached:
        assert cached.repositories() == ["demo/base", "demo/tuned"]


def test_what_the_registry_no_longer_gives_does_not_come_out_of_the_cache(
    store: Store, spec: WorkloadSpec, tmp_path: Path
) -> None:
    runner.fetch(spec, store, tmp_path / "one", cache=tmp_path / "cache")
    target = store.target("demo/tuned")
    target.delete(target.resolve(spec.inputs["model"].rpartition("@")[2]))
    with pytest.raises(NotFound):
        runner.fetch(spec, store, tmp_path / "two", cache=tmp_path / "cache")


@pytest.mark.parametrize("size", [9, 5 * 1024 * 1024])
def test_a_damaged_cache_gives_no_wrong_bytes(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    base = packed(
        store, tmp_path / "b", "demo/base", "model: {name: m, path: weights.bin}\n", {"weights.bin": "w" * size}
    )
    output = {"reference": "demo/out", "kitfile": {"docs": []}}
    spec = WorkloadSpec.of(inputs={"model": base}, command=["true"], output=output)
    cache = tmp_path / "cache"
    runner.fetch(spec, store, tmp_path / "one", cache=cache)
    for path in (cache / "demo" / "base" / "blobs" / "sha256").iterdir():
        data = path.read_bytes()
        path.unlink()  # it is a link to the registry's own file
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    runner.fetch(spec, store, tmp_path / "two", cache=cache)
    assert content(tmp_path / "two") == {"weights.bin": "w" * size}
    # Small content is repaired; large content is known by its size until it is read.
    assert (f"Fetching past the cache in {cache}" in caplog.text) == (size > 9)


def test_a_cache_that_cannot_be_written_is_named(store: Store, spec: WorkloadSpec, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "demo").write_text("in the way")
    with pytest.raises(StorageError, match=r"/cache/demo/tuned.*: "):
        runner.fetch(spec, store, tmp_path / "one", cache=tmp_path / "cache")


def test_a_second_begin_forgets_what_the_first_one_left(spec: WorkloadSpec, tmp_path: Path) -> None:
    for _ in range(2):
        runner.begin(spec, tmp_path)
        assert list((tmp_path / "out").iterdir()) == []
        assert not (tmp_path / "checkpoints").exists()
        with pytest.raises(WorkloadFailed, match="left nothing"):
            runner.finish(spec, tmp_path)
        (tmp_path / "out" / "lost+found").mkdir(exist_ok=True)
        (tmp_path / "out" / "lost+found").rmdir()
        (tmp_path / "out" / "result").mkdir()
        (tmp_path / "out" / "result" / "file").write_text("x")
        runner.finish(spec, tmp_path)


def test_how_long_the_work_took_is_known_from_what_was_noted(
    spec: WorkloadSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.begin(spec, tmp_path)
    note = json.loads((tmp_path / "state" / "begun.json").read_text())
    (tmp_path / "out" / "file").write_text("x")
    monkeypatch.setattr("time.time", lambda: note["started"] + 90.5)
    runner.finish(spec, tmp_path)
    assert json.loads((tmp_path / "state" / "done.json").read_text())["seconds"] == 90.5
    runner.finish(spec, tmp_path)  # publishing again does not make the work longer


def test_work_that_never_began_has_no_end(spec: WorkloadSpec, tmp_path: Path) -> None:
    with pytest.raises(WorkloadFailed, match="There is no work in"):
        runner.finish(spec, tmp_path)


def test_a_volume_s_own_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    runner.empty(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lost+found"]


def nest(directory: Path, depth: int = 3000) -> None:
    """Directories in directories, as a program can make them: no path leads to the last one."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(directory)
        for _ in range(depth):
            Path("nested").mkdir()
            os.chdir("nested")
        Path("file").write_text("x")
    finally:
        os.fchdir(before)
        os.close(before)


def test_directories_nested_deeper_than_a_path_is_long_are_removed(tmp_path: Path) -> None:
    (tmp_path / "wide" / "a").mkdir(parents=True)
    (tmp_path / "wide" / "b").mkdir()
    nest(tmp_path / "wide" / "a")
    nest(tmp_path)
    runner.empty(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_behind_a_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "out" / "a").mkdir(parents=True)
    for link in (tmp_path / "out" / "link", tmp_path / "out" / "a" / "link"):
        link.symlink_to(tmp_path / "kept")
    runner.empty(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "kept" / "file").exists()


def test_an_output_of_an_earlier_try_may_be_nested_at_will(spec: WorkloadSpec, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    nest(tmp_path / "out")
    runner.begin(spec, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_refused_is_left_and_the_rest_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    unlink = os.unlink
    refusals = iter([PermissionError(errno.EPERM, "Operation not permitted")])

    def refusing(name: str, **named: Any) -> None:
        if error := next(refusals, None):
            raise error
        unlink(name, **named)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(PermissionError, match="not permitted"):
        runner.empty(tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("when", ["before it is written", "after it was written"])
def test_a_signal_while_a_success_is_told_does_not_make_it_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    made, write = result({}), Path.write_bytes
    signals = iter([KeyboardInterrupt])

    def interrupted(path: Path, data: bytes) -> int:
        kill = next(signals, None)
        if kill and when == "before it is written":
            raise kill
        written = write(path, data)
        if kill:
            raise kill
        return written

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    message = _Message(tmp_path / "message", _Hidden())
    with pytest.raises(KeyboardInterrupt):
        message.succeed(made)
    assert message.fail("The step was terminated.", 143, transient=True) == 0
    assert json.loads((tmp_path / "message").read_text())["digest"] == made.descriptor.digest


def test_a_success_that_cannot_be_told_is_a_failure(tmp_path: Path) -> None:
    message = _Message(tmp_path / "no" / "message", _Hidden())
    with pytest.raises(StorageError):
        message.succeed(result({}))
    assert message.fail("It could not be told.", 1, transient=False) == 1


def test_what_was_published_stays_told_whatever_comes_after(
    step: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = result({})
    where = "airflow_provider_kitops.workload"
    (tmp_path / "root" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(f"{where}.mounts.read_spec", lambda *_: None)
    monkeypatch.setattr(f"{where}.mounts.read_store_config", lambda *_: StoreConfig(layout=tmp_path / "registry"))
    monkeypatch.setattr(f"{where}.container.publish", lambda *_: made)
    for error, told in [
        (RecursionError("too deep"), "Cannot remove the checkpoints"),
        (OSError(errno.EPERM, "Operation not permitted"), "Cannot remove the checkpoints"),
        (KeyboardInterrupt(), "After the output was published: The step was interrupted."),
    ]:

        def broken(*_: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(f"{where}.runner.empty", broken)
        assert step("publish") == 0
        assert json.loads((tmp_path / "message").read_text())["digest"] == made.descriptor.digest
        assert told in caplog.text
        caplog.clear()


def test_metrics_that_get_another_name_are_named_once(
    spec: WorkloadSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner.begin(spec, tmp_path)
    (tmp_path / "out" / "metrics.json").write_text(json.dumps({"__type": 1, "a": [{"__x\n": 2}], "loss": 3}))
    runner.finish(spec, tmp_path)
    (record,) = [each for each in caplog.records if "metrics.json" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith(r"'__type', '__x\n'.")


@pytest.fixture
def closed() -> Iterator[Path]:
    """A run's directory whose output nobody may look into, seen by somebody who is not root."""
    root = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(root, 65534, -1)
        os.seteuid(65534)
    try:
        for name in ("out", "state"):
            (root / name).mkdir()
        (root / "state" / "begun.json").write_text('{"started": 1}')
        (root / "out").chmod(0)
        yield root
        (root / "out").chmod(0o700)
    finally:
        os.seteuid(user)
        shutil.rmtree(root)


def test_an_output_that_nobody_may_look_into_is_named(spec: WorkloadSpec, closed: Path) -> None:
    with pytest.raises(StorageError, match=f"^Cannot read the output in {closed}/out: Permission denied"):
        runner.finish(spec, closed)
    with pytest.raises(StorageError, match=f"^Cannot empty {closed}/out: Permission denied"):
        runner.begin(spec, closed)


def statement(*byproducts: Any) -> Statement:
    subject = Subject("demo/model", digest_of(b"model"))
    return Statement([subject], SLSA_PROVENANCE, {"runDetails": {"byproducts": list(byproducts)}})


def byproduct(data: bytes, content: Any = None, digest: str = "") -> dict[str, Any]:
    import base64

    told = digest or digest_of(data).removeprefix("sha256:")
    return {
        "name": "metrics.json",
        "content": base64.b64encode(data).decode() if content is None else content,
        "digest": {"sha256": told},
    }


def test_metrics_are_read_from_a_provenance() -> None:
    other = {"name": "log.txt", "uri": "https://logs"}
    assert metrics_of(statement(other, byproduct(b'{"loss": 0.5}'))) == {"loss": 0.5}
    assert metrics_of(statement(other, "nonsense")) == {}
    assert metrics_of(Statement([Subject("x", digest_of(b""))], SLSA_PROVENANCE, {})) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        byproduct(b"{}", digest="0" * 64),
        byproduct(b"[1]"),
        byproduct(b"{"),
        byproduct(b"{}", content="not base64!"),
        byproduct(b"{}", content=7),
        {"name": "metrics.json"},
    ],
)
def test_metrics_that_are_not_what_the_provenance_says_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(VerificationFailed):
        metrics_of(statement(wrong))
