"""Run jobs side by side; the first failure stops the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from airflow_provider_kitops.oci.errors import KitopsError

Result = TypeVar("Result")


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
            raise _Stopped("Stopped because another part failed.")


class _Stopped(KitopsError):
    """Another job failed; this one need not go on."""


def run_all(jobs: Sequence[Callable[[Stop], Result]], concurrency: int) -> list[Result]:
    """The results of all jobs, in their order.

    :param jobs: called in threads, each with the ``Stop`` that it must check now and then.
    :raises Exception: what the first failing job raised.
    """
    if not jobs:
        return []
    stop = Stop()
    with ThreadPoolExecutor(min(concurrency, len(jobs)), thread_name_prefix="modelkit") as pool:
        futures = [pool.submit(job, stop) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Also when the wait is interrupted: leaving the pool would otherwise first finish every job.
            if not all(future.done() and not future.exception() for future in futures):
                stop.set()
                for future in futures:
                    future.cancel()
    failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(failures, key=lambda failure: isinstance(failure, _Stopped)):
        raise error
    return [future.result() for future in futures]
