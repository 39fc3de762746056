"""Fetch, work, publish: the three steps of a workload, the same in a pod and on one machine (DESIGN "Workload").

Each step can be killed at any moment and run again: fetch keeps the inputs that are whole, work goes on from the
program's checkpoints, publish pushes the same bytes. All of a run's files are below one scratch directory ``root``:
``in/NAME``, ``config``, ``out``, ``checkpoints``, and the runner's own notes in ``state``.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.disk import storage_error, storage_errors, write_file
from airflow_provider_kitops.oci.errors import Conflict, DigestMismatch, InvalidInput, StorageError, WorkloadFailed
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.workload import _yaml
from airflow_provider_kitops.workload._removal import empty_tree, remove_tree
from airflow_provider_kitops.workload.metrics import METRICS_FILE, metrics_bytes, parse_metrics, reserved_keys
from airflow_provider_kitops.workload.provenance import BUILDER_LOCAL, attach_provenance
from airflow_provider_kitops.workload.spec import CHECKPOINTS, CONFIG, INPUTS, OUTPUT, WorkloadSpec

if TYPE_CHECKING:
    from airflow_provider_kitops.evidence.signing import Signer
    from airflow_provider_kitops.modelkit.kitfile import Kitfile
    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.oci.target import ProgressHook

logger = logging.getLogger(__name__)

#: Called with each line that the program prints, without the line's end.
LineHook = Callable[[str], None]

#: Called with name and reference of an input that is to be fetched; entered and left as that begins and ends.
Watch = Callable[[str, str], "AbstractContextManager[ProgressHook | None]"]

# Whose names begin so may hold the database's URL, connections, keys and their passwords: nothing for a program.
_KEPT_BACK = ("AIRFLOW", "MODELKIT_", "KITOPS_", "JUDGE_API_KEY")
# The file system's own, at the top of a volume; nobody but root may look into it.
_LOST = "lost+found"
_NAME_LIMIT = 200  # characters of a command in a message; an argument may be a whole program
_NAMES_SHOWN = 10
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
    def begun(self) -> Path:
        """Written before the program starts: when, in seconds since 1970."""
        return self.root / "state" / "begun.json"

    @property
    def done(self) -> Path:
        """Written when the program has ended well: when it began and ended, which provenance tells."""
        return self.root / "state" / "done.json"


def check(spec: WorkloadSpec, store: Store) -> None:
    """Find what would fail in publishing before hours are spent on work.

    :raises InvalidReference: the output or an input belongs to another registry than the store.
    :raises InvalidKitfile: the output's Kitfile breaks a rule.
    :raises InvalidInput: it names an unknown input, or nothing of the output.
    """
    if not any(_kitfile(spec).entries()):
        raise InvalidInput(
            "The output's Kitfile names nothing that the program makes.",
            hint="Name its files, with paths relative to the output directory, as in docs: [{path: report.txt}].",
        )
    for reference in (spec.output.reference, *spec.inputs.values()):
        store.reference(reference)


def fetch(
    spec: WorkloadSpec, store: Store, root: Path, *, cache: Path | None = None, watch: Watch | None = None
) -> None:
    """Unpack every input, each with its chain of parents, verified, below ``root/in``.

    :param cache: local layout that each input is copied to and then unpacked from; runs may share it.
    :param watch: told of each input that is not there yet.
    :raises NotFound, DigestMismatch, UnsafePath, StorageError: as ``unpack`` raises them.
    """
    paths = _Paths(root)
    with storage_errors("make directories in", root):
        paths.inputs.mkdir(parents=True, exist_ok=True)
        paths.state.mkdir(parents=True, exist_ok=True)
    for name, text in spec.inputs.items():
        directory, note = paths.inputs / name, paths.state / f"fetched-{name}"
        if note.is_file() and directory.is_dir() and note.read_text(encoding="utf-8") == text:
            continue
        with storage_errors("empty", directory):
            if directory.exists():
                remove_tree(directory)
            directory.mkdir()
        reference = store.reference(text)
        with watch(name, str(reference)) if watch else nullcontext() as on_progress:
            _bring(store, reference, directory, cache, on_progress)
        write_file(note, text.encode())


def _bring(
    store: Store, reference: Reference, directory: Path, cache: Path | None, on_progress: ProgressHook | None
) -> None:
    """Unpack one input, through the cache if there is one."""
    from airflow_provider_kitops.modelkit.parents import parents_of
    from airflow_provider_kitops.modelkit.unpack import unpack
    from airflow_provider_kitops.workload._cache import Cache

    target, parents, concurrency = store.target(reference), parents_of(store), store.config.concurrency
    bring = partial(unpack, concurrency=concurrency, on_progress=on_progress)
    if cache:
        through = Cache(cache, concurrency, on_progress)
        try:
            held = through.take(target, reference.selector)
            bring(held, reference.selector, directory, parents=through.through(parents))
        except DigestMismatch as error:
            # A layout knows large content by its size alone, so copying again does not replace what is damaged.
            logger.warning("%s Fetching past the cache in %s: remove what is damaged there.", error.message, cache)
        else:
            return
    bring(target, reference.selector, directory, parents=parents)


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
        paths.checkpoints.mkdir(parents=True, exist_ok=True)
    begin(spec, root)
    clock = time.monotonic()
    with _log(paths.log) as log:
        _run(spec, paths, log, on_line, timeout)
    finish(spec, root, seconds=time.monotonic() - clock)


def begin(spec: WorkloadSpec, root: Path) -> None:
    """Make everything ready for the program: its directories, its settings, an empty output. It may start now.

    :raises StorageError: the disk refuses.
    """
    paths = _Paths(root)
    with storage_errors("prepare", root):
        for directory in (paths.inputs, paths.config, paths.output, paths.state):
            directory.mkdir(parents=True, exist_ok=True)
        paths.done.unlink(missing_ok=True)
    # Whatever an earlier try left in the output is not this try's; what is worth keeping is in the checkpoints.
    with storage_errors("empty", paths.output):
        empty(paths.output)
    write_file(paths.config / "config.json", (json.dumps(spec.config, indent=2, sort_keys=True) + "\n").encode())
    write_file(paths.config / "config.yaml", _yaml.dump(spec.config).encode())
    write_file(paths.begun, json.dumps({"started": time.time()}).encode())


def finish(spec: WorkloadSpec, root: Path, *, seconds: float | None = None) -> None:
    """See what the program has left, after it ended well, and note that the work is done.

    :param seconds: how long it took; by default what has passed since ``begin``.
    :raises WorkloadFailed: it left no output, or metrics that cannot be used; or ``begin`` was never called.
    :raises StorageError: the output cannot be read, or the note cannot be written.
    """
    paths = _Paths(root)
    if paths.done.is_file():
        return
    if not paths.begun.is_file():
        raise WorkloadFailed(f"There is no work in {root}: nothing was fetched for it.")
    with storage_errors("read the output in", paths.output):
        left = paths.output.is_dir() and any(each.name != _LOST for each in paths.output.iterdir())
    if not left:
        raise WorkloadFailed(
            f"{_name(spec)} ended well but left nothing in its output directory.",
            hint=f"The program must write its result to ${OUTPUT}.",
        )
    measured = metrics_bytes(paths.output)
    if measured is not None and (renamed := reserved_keys(measured)):
        logger.warning(
            "Keys in %s that begin with two underscores are told with one, for they are Airflow's: %s.",
            METRICS_FILE,
            _first(renamed),
        )
    with suppress(StorageError):  # packing will say so, if it matters
        _tell_unnamed(paths.output, _kitfile(spec))
    begun, now = json.loads(paths.begun.read_text(encoding="utf-8"))["started"], time.time()
    note = {
        "started": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "finished": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "seconds": round(max(0.0, now - begun) if seconds is None else seconds, 3),
    }
    write_file(paths.done, json.dumps(note).encode())


def publish(
    spec: WorkloadSpec,
    store: Store,
    root: Path,
    *,
    builder: str = BUILDER_LOCAL,
    signer: Signer | None = None,
    on_progress: ProgressHook | None = None,
) -> WorkloadResult:
    """Pack ``root/out``, push it, attach SLSA provenance, and only then set the tags.

    Tags come last so that nobody who watches one finds a ModelKit whose provenance is still missing.

    :param builder: who ran the work, as a URI, for the provenance.
    :param signer: signs the provenance.
    :param on_progress: called as bytes are packed.
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
    measured = metrics_bytes(paths.output)
    metrics = {} if measured is None else parse_metrics(measured)
    reference = store.reference(spec.output.reference)
    target = store.target(reference)
    modelkit = pack(
        paths.output,
        _kitfile(spec),
        target,
        None,
        parents=parents_of(store),
        concurrency=store.config.concurrency,
        on_progress=on_progress,
    )
    provenance = attach_provenance(
        spec,
        store,
        target,
        modelkit.descriptor,
        started=datetime.fromisoformat(note["started"]),
        finished=datetime.fromisoformat(note["finished"]),
        builder=builder,
        metrics=measured,
        signer=signer,
    )
    apply_tags(target, modelkit.descriptor, spec.output.all_tags, mutable=store.config.mutable_tags)
    return WorkloadResult(
        reference=str(reference.at(modelkit.descriptor.digest)),
        descriptor=modelkit.descriptor,
        metrics=metrics,
        tags=spec.output.all_tags,
        size=modelkit.size,
        seconds=note["seconds"],
        provenance=provenance.digest,
    )


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


def empty(directory: Path) -> None:
    """Remove what is in a directory, and leave the directory, which may be where a volume is mounted.

    :raises OSError: something cannot be removed; the rest is.
    """
    empty_tree(directory, keep=_LOST)


def _kitfile(spec: WorkloadSpec) -> Kitfile:
    from airflow_provider_kitops.modelkit.kitfile import parse_kitfile

    # JSON, in which a text stays one: YAML that is written for one version of YAML is read otherwise by the other.
    return parse_kitfile(json.dumps(spec.kitfile(), allow_nan=False), name="output.kitfile")


def _tell_unnamed(output: Path, kitfile: Kitfile) -> None:
    """Warn of files that the program left and the Kitfile does not name: nobody will see them again.

    :raises StorageError: the output cannot be read.
    """
    from airflow_provider_kitops.modelkit.ignore import read_rules
    from airflow_provider_kitops.modelkit.layers import unnamed

    names = unnamed(output, kitfile, read_rules(output))
    left = [name for name in names if name not in (METRICS_FILE, _LOST)]
    if left:
        logger.warning("The output's Kitfile does not name, so these are not published: %s.", _first(left))


def _first(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are: a program may have made any number of them."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(repr(name[:_NAME_LIMIT]) for name in names[:_NAMES_SHOWN]) + more


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
    for step in (partial(remove_tree, removed), partial(root.rename, removed), partial(remove_tree, removed)):
        with suppress(OSError):
            step()


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
