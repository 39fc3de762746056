"""Fetch, work, publish: the three steps of a workload, the same in a pod and on one machine (DESIGN "Workload").

Each step can be killed at any moment and run again: fetch keeps the inputs that are whole, work goes on from the
program's checkpoints, publish pushes the same bytes. All of a run's files are below one scratch directory ``root``:
``in/NAME``, ``config``, ``out``, ``checkpoints``, and the runner's own notes in ``state``.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from airflow_provider_kitops import __version__
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.disk import storage_error, storage_errors, write_file
from airflow_provider_kitops.oci.errors import Conflict, InvalidInput, WorkloadFailed
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.workload import _yaml
from airflow_provider_kitops.workload.spec import CHECKPOINTS, CONFIG, INPUTS, OUTPUT, WorkloadSpec

if TYPE_CHECKING:
    from airflow_provider_kitops.evidence.signing import Signer
    from airflow_provider_kitops.modelkit.kitfile import Kitfile
    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.oci.target import Target

#: Called with each line that the program prints, without the line's end.
LineHook = Callable[[str], None]

#: What SLSA provenance calls this way of building.
BUILD_TYPE = "https://airflow-provider-kitops.dev/workload/v1"
BUILDER_LOCAL = "https://airflow-provider-kitops.dev/builders/local"

_METRICS = "metrics.json"
_METRICS_LIMIT = 64 * 1024  # bytes; metrics become an XCom, which is a row of Airflow's database

# Whose names begin so may hold the database's URL, connections, keys and their passwords: nothing for a program.
_KEPT_BACK = ("AIRFLOW", "MODELKIT_", "KITOPS_", "JUDGE_API_KEY")
_NAME_LIMIT = 200  # characters of a command in a message; an argument may be a whole program
# Seconds that a run waits for the same run's lock: one whose parent was killed takes a moment to notice and to end;
# whoever holds it longer is at work.
_LOCK_WAIT = 10.0


@dataclass(frozen=True)
class WorkloadResult:
    """What a workload made.

    :param reference: the output, by digest.
    :param descriptor: its manifest.
    :param metrics: what the program wrote to ``metrics.json``; empty if it wrote none.
    :param tags: the tags that were set.
    :param size: bytes of the whole ModelKit.
    :param seconds: how long the work step took, without fetching and publishing.
    :param provenance: digest of the attached provenance.
    """

    reference: str
    descriptor: Descriptor
    metrics: Mapping[str, Any]
    tags: tuple[str, ...]
    size: int = 0
    seconds: float = 0.0
    provenance: str = ""


@dataclass(frozen=True)
class _Paths:
    root: Path

    @property
    def inputs(self) -> Path:
        return self.root / "in"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def output(self) -> Path:
        return self.root / "out"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def log(self) -> Path:
        return self.root / "state" / "log.txt"

    @property
    def done(self) -> Path:
        """Written when the program has ended well: when it began and ended, which provenance tells."""
        return self.root / "state" / "done.json"


def check(spec: WorkloadSpec, store: Store) -> None:
    """Find what would fail in publishing before hours are spent on work.

    :raises InvalidReference: the output or an input belongs to another registry than the store.
    :raises InvalidKitfile: the output's Kitfile breaks a rule.
    :raises InvalidInput: it names an unknown input.
    """
    _kitfile(spec)
    for reference in (spec.output.reference, *spec.inputs.values()):
        store.reference(reference)


def fetch(spec: WorkloadSpec, store: Store, root: Path) -> None:
    """Unpack every input, each with its chain of parents, verified, below ``root/in``.

    :raises NotFound, DigestMismatch, UnsafePath, StorageError: as ``unpack`` raises them.
    """
    from airflow_provider_kitops.modelkit.parents import parents_of
    from airflow_provider_kitops.modelkit.unpack import unpack

    paths = _Paths(root)
    with storage_errors("make directories in", root):
        paths.inputs.mkdir(parents=True, exist_ok=True)
        paths.state.mkdir(parents=True, exist_ok=True)
    for name, text in spec.inputs.items():
        directory, note = paths.inputs / name, paths.state / f"fetched-{name}"
        if note.is_file() and note.read_text(encoding="utf-8") == text:
            continue
        with storage_errors("empty", directory):
            if directory.exists():
                shutil.rmtree(directory)
            directory.mkdir()
        reference = store.reference(text)
        unpack(
            store.target(reference),
            reference.selector,
            directory,
            parents=parents_of(store),
            concurrency=store.config.concurrency,
        )
        write_file(note, text.encode())


def work(spec: WorkloadSpec, root: Path, *, on_line: LineHook | None = None, timeout: float | None = None) -> None:
    """Run the program on what ``fetch`` brought; its output is in ``root/out`` afterwards.

    The program runs in a process group of its own, which ends when this process ends, however it ends. What it prints
    goes to ``root/state/log.txt`` and, line by line, to ``on_line``. Work that is already done is not done again.

    The program gets this process's environment without Airflow's and this package's own variables (``AIRFLOW*``,
    ``MODELKIT_*``, ``KITOPS_*``, ``JUDGE_API_KEY``), which may hold secrets; then the specification's ``env``.

    :param timeout: seconds after which the program is ended.
    :raises InvalidInput: the timeout is not above 0, or not finite.
    :raises InvalidInput: command and environment are larger than the system passes to a program.
    :raises WorkloadFailed: the program ended with another exit code than 0, ran too long, or left no output.
    :raises StorageError: its log or its directories cannot be written.
    """
    _check_timeout(timeout)
    paths = _Paths(root)
    if paths.done.is_file():
        return
    with storage_errors("prepare", root):
        for directory in (paths.inputs, paths.config, paths.checkpoints, paths.state):
            directory.mkdir(parents=True, exist_ok=True)
        # Whatever an earlier try left in the output is not this try's; what is worth keeping is in the checkpoints.
        shutil.rmtree(paths.output, ignore_errors=True)
        paths.output.mkdir()
    write_file(paths.config / "config.json", (json.dumps(spec.config, indent=2, sort_keys=True) + "\n").encode())
    write_file(paths.config / "config.yaml", _yaml.dump(spec.config).encode())
    started = datetime.now(UTC)
    clock = time.monotonic()
    with _log(paths.log) as log:
        _run(spec, paths, log, on_line, timeout)
    if not any(paths.output.iterdir()):
        raise WorkloadFailed(
            f"{_name(spec)} ended well but left nothing in its output directory.",
            hint=f"The program must write its result to ${OUTPUT}.",
        )
    read_metrics(paths.output)
    note = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
    }
    write_file(paths.done, json.dumps(note).encode())


def publish(
    spec: WorkloadSpec,
    store: Store,
    root: Path,
    *,
    builder: str = BUILDER_LOCAL,
    termination_log: Path | None = None,
    signer: Signer | None = None,
) -> WorkloadResult:
    """Pack ``root/out``, push it, attach SLSA provenance, and only then set the tags.

    Tags come last so that nobody who watches one finds a ModelKit whose provenance is still missing.

    :param builder: who ran the work, as a URI, for the provenance.
    :param signer: signs the provenance.
    :param termination_log: file that gets ``{"digest", "metrics"}`` as JSON (Kubernetes' termination message).
    :raises WorkloadFailed: the work is not done.
    :raises InvalidKitfile, Conflict, RegistryUnavailable: as ``pack`` and the store raise them.
    """
    from airflow_provider_kitops.modelkit.pack import pack
    from airflow_provider_kitops.modelkit.parents import parents_of
    from airflow_provider_kitops.oci.tagging import apply_tags

    paths = _Paths(root)
    if not paths.done.is_file():
        raise WorkloadFailed(f"Nothing to publish in {root}: the work is not done.")
    note = json.loads(paths.done.read_text(encoding="utf-8"))
    metrics = read_metrics(paths.output)
    reference = store.reference(spec.output.reference)
    target = store.target(reference)
    modelkit = pack(
        paths.output, _kitfile(spec), target, None, parents=parents_of(store), concurrency=store.config.concurrency
    )
    provenance = _attach_provenance(spec, store, target, modelkit.descriptor, note, builder, signer)
    apply_tags(target, modelkit.descriptor, spec.output.all_tags, mutable=store.config.mutable_tags)
    result = WorkloadResult(
        reference=str(reference.at(modelkit.descriptor.digest)),
        descriptor=modelkit.descriptor,
        metrics=metrics,
        tags=spec.output.all_tags,
        size=modelkit.size,
        seconds=note["seconds"],
        provenance=provenance,
    )
    if termination_log:
        with storage_errors("write", termination_log):
            message = {"digest": modelkit.descriptor.digest, "metrics": dict(metrics)}
            termination_log.write_text(json.dumps(message), encoding="utf-8")
    return result


def run_local(
    spec: WorkloadSpec,
    store: Store,
    scratch: Path,
    *,
    on_line: LineHook | None = None,
    timeout: float | None = None,
    on_step: Callable[[str], None] | None = None,
    on_published: Callable[[WorkloadResult], None] | None = None,
    signer: Signer | None = None,
) -> WorkloadResult:
    """Fetch, work and publish on this machine.

    The run's files are in a directory of ``scratch`` that is named by the specification's digest: a run that was
    killed goes on where it was when the same specification is run again. It is removed on success.

    :param on_step: called with ``fetch``, ``work`` and ``publish`` as each begins.
    :param on_published: called with the result while the run's files are still there. Whatever the caller has yet to
        do with the result belongs here: if it raises, the next run publishes the same bytes without working again.
    :param signer: signs the provenance.
    :raises Conflict: the same specification is being run in the same scratch directory.
    :raises InvalidInput, WorkloadFailed, KitopsError: as the steps raise them.
    """
    check(spec, store)
    _check_timeout(timeout)
    step = on_step or (lambda name: None)
    root = scratch / spec.digest.removeprefix("sha256:")[:16]
    with storage_errors("make the directory", scratch):
        scratch.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root.with_name(root.name + ".lock"))
    try:
        lock.acquire(timeout=_LOCK_WAIT)
    except Timeout:
        raise Conflict(
            f"The same workload ({spec.digest}) is running in {scratch}.",
            hint="Wait for it, or give this run a scratch directory of its own.",
        ) from None
    except OSError as error:
        raise storage_error("lock", lock.lock_file, error) from error
    try:
        step("fetch")
        fetch(spec, store, root)
        step("work")
        work(spec, root, on_line=on_line, timeout=timeout)
        step("publish")
        result = publish(spec, store, root, signer=signer)
        if on_published:
            on_published(result)
        _remove(root)
        return result
    finally:
        lock.release()


def read_metrics(output: Path) -> dict[str, Any]:
    """The program's ``metrics.json``; empty if there is none.

    :raises WorkloadFailed: it is not a JSON object, holds NaN or an infinite number, or is larger than 64 KiB.
    """
    path = output / _METRICS
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        data = file.read(_METRICS_LIMIT + 1)
    if len(data) > _METRICS_LIMIT:
        raise WorkloadFailed(
            f"The program's {_METRICS} is larger than {_METRICS_LIMIT // 1024} KiB.",
            hint="Write a summary there, and what is large to another file of the output.",
        )
    try:
        metrics = json.loads(data)
        # Python reads NaN, Infinity and 1e999, but no other reader of JSON does, nor the database behind XCom.
        json.dumps(metrics, allow_nan=False)
    except RecursionError:
        raise WorkloadFailed(f"The program's {_METRICS} is nested too deeply.") from None
    except ValueError as error:
        raise WorkloadFailed(f"The program's {_METRICS} is no JSON: {error}.") from error
    if not isinstance(metrics, dict):
        raise WorkloadFailed(f"The program's {_METRICS} holds a {type(metrics).__name__}, not an object.")
    return metrics


def _kitfile(spec: WorkloadSpec) -> Kitfile:
    from airflow_provider_kitops.modelkit.kitfile import parse_kitfile

    # JSON, in which a text stays one: YAML that is written for one version of YAML is read otherwise by the other.
    return parse_kitfile(json.dumps(spec.kitfile(), allow_nan=False), name="output.kitfile")


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not 0 < timeout <= threading.TIMEOUT_MAX:
        raise InvalidInput(f"The timeout is {timeout:g} seconds.", hint="Give a number above 0, or None for no limit.")


def _name(spec: WorkloadSpec) -> str:
    name = " ".join(spec.command[:3])
    return name if len(name) <= _NAME_LIMIT else name[:_NAME_LIMIT] + "…"


def _environment(spec: WorkloadSpec, paths: _Paths) -> dict[str, str]:
    directories = {
        INPUTS: paths.inputs,
        CONFIG: paths.config,
        OUTPUT: paths.output,
        CHECKPOINTS: paths.checkpoints,
    }
    # So that "python" in a command is the interpreter that runs this, as it is in the image that has the package.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(_KEPT_BACK)}
    return {
        **inherited,
        "PATH": search,
        "PYTHONUNBUFFERED": "1",
        **spec.env,
        **{name: str(directory.absolute()) for name, directory in directories.items()},
    }


@contextmanager
def _log(path: Path) -> Iterator[Callable[[str], None]]:
    """Appends to the log. Only the log's own errors are the log's: what else fails meanwhile is told as what it is."""
    with storage_errors("write", path):
        file = path.open("a", encoding="utf-8")

    def write(text: str) -> None:
        with storage_errors("write", path):
            file.write(text)

    try:
        yield write
    finally:
        with storage_errors("write", path):
            file.close()


def _remove(root: Path) -> None:
    """Remove a run's directory. It is renamed first, so that no run goes on from what a kill in between leaves."""
    removed = root.with_name(root.name + ".removed")
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(OSError):
        root.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _start(spec: WorkloadSpec, paths: _Paths) -> subprocess.Popen[str]:
    launcher = Path(__file__).with_name("_launch.py")
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(launcher), str(os.getpid()), *spec.command],
            cwd=paths.root,
            env=_environment(spec, paths),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            process_group=0,
        )
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise InvalidInput(
                f"Cannot start {_name(spec)}: command and environment are larger than the system passes to a program.",
                hint="Put what is large into config, which the program reads from a file, or into an input.",
            ) from error
        raise storage_error("start", _name(spec), error) from error


def _run(
    spec: WorkloadSpec,
    paths: _Paths,
    log: Callable[[str], object],
    on_line: LineHook | None,
    timeout: float | None,
) -> None:
    process = _start(spec, paths)
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _end(process)

    timer = threading.Timer(timeout, expire) if timeout is not None else None
    last: deque[str] = deque(maxlen=1)
    try:
        if timer:
            timer.daemon = True
            timer.start()
        assert process.stdout is not None
        for raw in process.stdout:
            log(raw)
            line = raw.rstrip("\r\n")
            if line.strip():
                last.append(line.strip())
            if on_line:
                on_line(line)
        code = process.wait()
    finally:
        if timer:
            timer.cancel()
        _end(process)
    if expired.is_set():
        raise WorkloadFailed(f"{_name(spec)} ran past its limit of {timeout:g} seconds and was ended.")
    if code:
        said = f" Its last line: {_ended(last[0][:1000])}" if last else ""
        raise WorkloadFailed(f"{_name(spec)} {_ending(code)}.{said}", hint=f"Its whole output is in {paths.log}.")


def _ended(line: str) -> str:
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _ending(code: int) -> str:
    number = code - 128 if code > 128 else -code
    if 0 < number < signal.NSIG:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"was killed by {name}" + (", most likely for want of memory" if name == "SIGKILL" else "")
    return f"ended with exit code {code}"


def _end(process: subprocess.Popen[str]) -> None:
    """End the program's whole process group."""
    # Neither is a failure: it has ended by itself, and nothing of its group is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _attach_provenance(
    spec: WorkloadSpec,
    store: Store,
    target: Target,
    descriptor: Descriptor,
    note: Mapping[str, Any],
    builder: str,
    signer: Signer | None,
) -> str:
    from airflow_provider_kitops.evidence.attach import attach
    from airflow_provider_kitops.evidence.provenance import ResourceDescriptor, slsa_provenance
    from airflow_provider_kitops.evidence.statement import SLSA_PROVENANCE, Statement, Subject

    inputs = {name: store.reference(text) for name, text in spec.inputs.items()}
    dependencies = [
        ResourceDescriptor(
            name=name, uri=f"oci://{reference}" if reference.registry else str(reference), digest=reference.digest
        )
        for name, reference in inputs.items()
    ]
    dependencies.append(ResourceDescriptor(name="config", digest=spec.config_digest))
    if spec.image:
        dependencies.append(
            ResourceDescriptor(name="image", uri=f"oci://{spec.image}", digest=Reference.parse(spec.image).digest)
        )
    predicate = slsa_provenance(
        build_type=BUILD_TYPE,
        # The whole specification, whose digest is below, and beside it what is read most, references with registry.
        external_parameters={
            "specification": spec.model_dump(mode="json"),
            "command": list(spec.command),
            "config": spec.config,
            "inputs": {name: str(reference) for name, reference in inputs.items()},
            "output": str(store.reference(spec.output.reference)),
        },
        internal_parameters={"specification": spec.digest, "package": __version__},
        resolved_dependencies=dependencies,
        builder_id=builder,
        started_on=datetime.fromisoformat(note["started"]),
        finished_on=datetime.fromisoformat(note["finished"]),
    )
    statement = Statement([Subject(target.name, descriptor.digest)], SLSA_PROVENANCE, predicate)
    return attach(target, descriptor, statement, signer=signer).digest
