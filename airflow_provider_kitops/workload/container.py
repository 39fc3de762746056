"""``python -m airflow_provider_kitops.workload.container fetch|publish``: the steps of a workload in a pod.

The pod's containers run one after the other: ``fetch`` brings the inputs, ``work`` is the user's image and command and
knows nothing of this package, ``publish`` packs the output and pushes it. What they are told is in ``mounts``.

The exit code is 0 or the error's own (1 for what nobody expected, 143 for SIGTERM). A failure's last line on standard
error begins with ``error:``. The termination message is one JSON object of at most 1024 bytes: of ``publish``
``{"digest", "reference", "metrics", "provenance", "seconds"}`` (``metrics`` is null where they do not fit; then
``provenance.published_metrics`` reads them), of a failure ``{"transient", "error"}``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random

from airflow_provider_kitops.oci import progress
from airflow_provider_kitops.oci.disk import said, storage_errors
from airflow_provider_kitops.oci.errors import KitopsError, RegistryUnavailable
from airflow_provider_kitops.oci.store import Store
from airflow_provider_kitops.oci.target import Progress, ProgressHook
from airflow_provider_kitops.workload import mounts, runner
from airflow_provider_kitops.workload.provenance import BUILDER_KUBERNETES
from airflow_provider_kitops.workload.spec import CHECKPOINTS, DIRECTORIES, WorkloadSpec

T = TypeVar("T")

#: Bytes of the termination message. A node keeps 12288 of all containers together, the same number of each, and a pod
#: may have some that others put there (kubelet, ``normalizeStatus``).
MESSAGE_LIMIT = 1024
#: Seconds without any progress after which a step gives up.
PATIENCE = 1800.0
TERMINATED = 128 + signal.SIGTERM

_LONGEST_WAIT = 60.0
# What is shorter stands in too many words to be taken out of all of them.
_SHORTEST_SECRET = 4

# By name: started with -m, this module is called __main__.
logger = logging.getLogger("airflow_provider_kitops.workload.container")


@dataclass(frozen=True)
class Places:
    """Where a step finds and leaves everything; the defaults are those of a pod.

    :param root: holds ``in``, ``config``, ``out``, ``checkpoints`` and ``state``.
    :param job: the mounted ConfigMap.
    :param secret: the mounted Secret; need not exist.
    :param cache: local layout for the inputs; used if it is a directory.
    """

    root: Path = Path("/")
    job: Path = Path(mounts.JOB_MOUNT)
    secret: Path = Path(mounts.SECRET_MOUNT)
    cache: Path = Path(mounts.CACHE_MOUNT)


def fetch(spec: WorkloadSpec, store: Store, places: Places, patience: Patience) -> None:
    """Bring the inputs and the settings; the program may start when this returns.

    :raises KitopsError: as ``runner.check`` and ``runner.fetch`` raise them, the transient ones when patience is over.
    """
    runner.check(spec, store)
    cache = places.cache if places.cache.is_dir() else None

    @contextmanager
    def watch(name: str, reference: str) -> Iterator[ProgressHook]:
        logger.info("input %s: fetching %s%s", name, reference, f" through {cache}" if cache else "")
        begun, sizes = time.monotonic(), dict[str, int]()

        with progress.lines(logger) as hook:

            def on_progress(step: Progress) -> None:
                if step.action == "unpack":
                    sizes[step.name] = step.total or step.done
                patience.note(f"{name} {step.action} {step.name}", step.done)
                hook(step)

            yield on_progress
        seconds = time.monotonic() - begun
        logger.info("input %s: fetched %s, %d bytes in %.1f s", name, reference, sum(sizes.values()), seconds)

    patience.call(lambda: runner.fetch(spec, store, places.root, cache=cache, watch=watch))
    runner.begin(spec, places.root)


def publish(spec: WorkloadSpec, store: Store, places: Places, patience: Patience) -> runner.WorkloadResult:
    """Publish what the program left, and tell what it is.

    :raises WorkloadFailed: the program left nothing, or metrics that cannot be used.
    :raises KitopsError: as ``runner.publish`` raises them, the transient ones when patience is over.
    """
    from airflow_provider_kitops.evidence.signing import load_signer

    key = places.secret / mounts.SIGNING_KEY
    signer = load_signer(key) if key.is_file() else None
    runner.finish(spec, places.root)

    def once() -> runner.WorkloadResult:
        with progress.lines(logger) as hook:

            def on_progress(step: Progress) -> None:
                patience.note(f"{step.action} {step.name}", step.done)
                hook(step)

            return runner.publish(
                spec, store, places.root, builder=BUILDER_KUBERNETES, signer=signer, on_progress=on_progress
            )

    begun = time.monotonic()
    logger.info("output: publishing %s", store.reference(spec.output.reference))
    result = patience.call(once)
    tags = ", ".join(result.tags) or "no tag"
    seconds = time.monotonic() - begun
    logger.info("output: published %s (%s), %d bytes in %.1f s", result.reference, tags, result.size, seconds)
    return result


class Patience:
    """Tries a step again that failed for a reason which may go away, and knows when to give up.

    Time counts from the first failure; it begins anew when the step comes further than ever before. So a transfer may
    outlive any number of interruptions, but one that always breaks at the same place comes to an end.

    :param seconds: how long.
    :param clock, sleep: for tests.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._chance = wait_random(0, 1)  # parts many pods that wait for one registry
        self._furthest: dict[str, int] = {}
        self._further = False
        self._since: float | None = None
        self._failures = 0

    def note(self, piece: str, done: int) -> None:
        """Note how far a piece of the work is. May be called from several threads."""
        if done > self._furthest.get(piece, 0):
            self._furthest[piece] = done
            self._further = True

    def call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, however often it has to be called; or its last error is raised."""
        return Retrying(
            stop=lambda state: self._left <= 0,
            wait=self._wait,
            retry=retry_if_exception(self._may_go_away),
            sleep=self._sleep,
            before_sleep=self._log,
            reraise=True,
        )(work)

    def _may_go_away(self, error: BaseException) -> bool:
        """Whether to try again after this failure, which is counted; asked before stop and wait are."""
        if not isinstance(error, KitopsError) or not error.transient:
            return False
        if self._further or self._since is None:
            self._further, self._since, self._failures = False, self._clock(), 0
        self._failures += 1
        return True

    @property
    def _left(self) -> float:
        return self._seconds - (self._clock() - (self._since or 0.0))

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, RegistryUnavailable) else None
        own = min(2.0 ** min(self._failures - 1, 10), _LONGEST_WAIT - 1) + self._chance(state)
        # The last try is when patience ends, not a minute before.
        return max(0.0, min(max(asked or 0.0, own), self._left))

    def _log(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        told = "%s Trying again in %.0f s, giving up in %.0f s."
        logger.warning(told, getattr(error, "message", error), pause, self._left)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return its exit code.

    :param arguments: by default those of the process.
    :raises SystemExit: with 2 for a command line that cannot be parsed, with 0 after ``--help``.
    """
    options = _parser().parse_args(arguments)
    places = Places(options.root, options.job, options.secret, options.cache)
    hidden = _Hidden()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(hidden))
    package = logging.getLogger("airflow_provider_kitops")
    package.setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    message = _Message(options.termination_log, hidden)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(options.step, places, Patience(options.patience), message, hidden)
    except _Terminated:
        return message.fail("The step was terminated.", TERMINATED, transient=True)
    except KeyboardInterrupt:
        return message.fail("The step was interrupted.", 128 + signal.SIGINT, transient=True)
    except KitopsError as error:
        return message.fail(str(error), error.exit_code, transient=error.transient)
    except Exception as error:  # noqa: BLE001 - every failure becomes an exit code and one line
        sys.stderr.write(hidden.out_of(traceback.format_exc()))
        return message.fail(f"{type(error).__name__}: {said(error)}", 1, transient=False)
    finally:
        signal.signal(signal.SIGTERM, before)
        logging.getLogger().removeHandler(handler)
    return 0


def _run(step: str, places: Places, patience: Patience, message: _Message, hidden: _Hidden) -> None:
    # Nothing else on this machine is asked for credentials than what is mounted.
    os.environ["DOCKER_CONFIG"] = str(places.secret)
    spec = mounts.read_spec(places.job)
    config = mounts.read_store_config(places.job, places.secret)
    hidden.add(mounts.secrets_of(config))
    with Store(config) as store:
        if step == mounts.FETCH:
            fetch(spec, store, places, patience)
            return
        message.succeed(publish(spec, store, places, patience))
    _clear(places.root / DIRECTORIES[CHECKPOINTS].strip("/"))


def _clear(checkpoints: Path) -> None:
    """Give back the room that the checkpoints take: the work is published, which nothing here can change."""
    try:
        if checkpoints.is_dir():
            runner.empty(checkpoints)
    except _Terminated:
        logger.warning("Terminated before all checkpoints in %s were removed.", checkpoints)
    except Exception as error:  # noqa: BLE001 - whatever a program leaves there, its work is published
        logger.warning("Cannot remove the checkpoints in %s: %s.", checkpoints, said(error))


class _Terminated(KeyboardInterrupt):
    """SIGTERM: what is half done is cleaned up as after Ctrl-C."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # cleaning up is not interrupted again
    raise _Terminated


class _Hidden:
    """What no line may show: credentials, should a server, a proxy or a library repeat them."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def add(self, secrets: Sequence[str]) -> None:
        """Hide these from now on; the longest first, for one may be a part of another."""
        long_enough = {secret for secret in (*self._secrets, *secrets) if len(secret) >= _SHORTEST_SECRET}
        self._secrets = sorted(long_enough, key=len, reverse=True)

    def out_of(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


class _OneLine(logging.Formatter):
    """A record in one line without control characters: it may quote a ModelKit or a server of somebody else's."""

    def __init__(self, hidden: _Hidden) -> None:
        super().__init__()
        self._hidden = hidden

    def format(self, record: logging.LogRecord) -> str:
        return _line(self._hidden.out_of(record.getMessage()))


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


class _Message:
    """The termination message, and the last line of a failure. What was published stays told, whatever comes after.

    :param path: where Kubernetes reads it.
    """

    def __init__(self, path: Path, hidden: _Hidden) -> None:
        self._path = path
        self._hidden = hidden
        self._told: bytes | None = None

    def succeed(self, result: runner.WorkloadResult) -> None:
        """Tell what was published.

        :raises StorageError: the message cannot be written.
        """
        told: dict[str, Any] = {
            "digest": result.descriptor.digest,
            "reference": result.reference,
            "metrics": dict(result.metrics),
            "provenance": result.provenance,
            "seconds": result.seconds,
        }
        if len(_json(told)) > MESSAGE_LIMIT:
            told["metrics"] = None
        if len(_json(told)) > MESSAGE_LIMIT:  # a name may be long, a digest is not
            del told["reference"]
        self._told = _json(told)
        try:
            with storage_errors("write", self._path):
                self._path.write_bytes(self._told)
        except KitopsError:
            self._told = None
            raise

    def fail(self, error: str, code: int, *, transient: bool) -> int:
        """Tell what went wrong, in one line, and return the exit code: ``code``, but 0 after a success."""
        line = _line(self._hidden.out_of(error))
        try:
            # Again, for a signal may have come in the middle of it.
            self._path.write_bytes(_failure(line, transient) if self._told is None else self._told)
        except OSError as refused:
            logger.warning("Cannot write %s: %s.", self._path, said(refused))
        if self._told is not None:
            logger.warning("After the output was published: %s", line)
            return 0
        sys.stdout.flush()
        print(f"error: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the last line is part of the interface
        return code


def _failure(line: str, transient: bool) -> bytes:
    """The message of a failure, with as much of the line as there is room for."""

    def message(length: int) -> bytes:
        return _json({"transient": transient, "error": line if length == len(line) else line[:length] + "…"})

    fits, too_long = 0, len(line) + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if len(message(middle)) <= MESSAGE_LIMIT else (fits, middle)
    return message(fits)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_kitops.workload.container",
        description="A step of a workload in a pod.",
        allow_abbrev=False,
    )
    parser.add_argument("step", choices=(mounts.FETCH, mounts.PUBLISH))
    usual = Places()
    about = {
        "root": "holds in, config, out, checkpoints and state",
        "job": "specification and store",
        "secret": "credentials and keys",
        "cache": "local layout for the inputs, used if it is a directory",
    }
    for name, told in about.items():
        default = getattr(usual, name)
        parser.add_argument(f"--{name}", type=Path, default=default, metavar="DIR", help=f"{told} (default: {default})")
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"), metavar="FILE")
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"time without progress after which a step gives up (default: {PATIENCE:g})",
    )
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
