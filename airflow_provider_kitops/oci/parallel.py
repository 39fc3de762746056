"""Run jobs side by side; the first failure stops the others, and an interrupt ends them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar, runtime_checkable

from airflow_provider_kitops.oci.errors import Interrupted

Result = TypeVar("Result")

#: Seconds that jobs have to end by themselves before what they wait for is cut.
GRACE = 0.5


@runtime_checkable
class Interruptible(Protocol):
    """A target whose work in other threads can be ended at once, whatever it waits for.

    That is so for all who share it (a registry's repositories share a client): between the two calls it is of no use.
    """

    def interrupt(self) -> None: ...
    def resume(self) -> None: ...


class Stop:
    """Tells running jobs that their work is no longer wanted."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask all jobs to end."""
        self._event.set()

    def check(self) -> None:
        """End the calling job if it has been asked to."""
        if self._event.is_set():
            raise Interrupted("Stopped because another part failed.")


def run_all(jobs: Sequence[Callable[[Stop], Result]], concurrency: int, targets: Sequence[object] = ()) -> list[Result]:
    """The results of all jobs, in their order.

    :param jobs: called in threads, each with the ``Stop`` that it must check now and then.
    :param targets: what the jobs may be waiting for; interrupted, where that is possible, when the caller is (by a
        signal, whose exception is raised in the main thread alone).
    :raises Exception: what the first failing job raised.
    """
    if not jobs:
        return []
    stop = Stop()
    interrupted: list[Interruptible] = []
    try:
        with ThreadPoolExecutor(min(concurrency, len(jobs)), thread_name_prefix="modelkit") as pool:
            futures = [pool.submit(job, stop) for job in jobs]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                if any(future.done() and future.exception() for future in futures):
                    _end(stop, futures)
                wait(futures)
            except BaseException:
                _end(stop, futures)
                try:
                    # What moves bytes ends by itself, and in order: a registry can then be told to drop an upload.
                    wait(futures, timeout=GRACE)
                finally:
                    interrupted += [target for target in targets if isinstance(target, Interruptible)]
                    for target in interrupted:
                        target.interrupt()
                raise
    finally:
        # No thread is left by now.
        for target in interrupted:
            target.resume()
    failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(failures, key=lambda failure: isinstance(failure, Interrupted)):
        raise error
    return [future.result() for future in futures]


def _end(stop: Stop, futures: Sequence[Future[Result]]) -> None:
    stop.set()
    for future in futures:
        future.cancel()
