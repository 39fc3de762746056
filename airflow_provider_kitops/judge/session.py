"""Asking the judge many things: through the journal, several at a time, with the money and the patience counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from airflow_provider_kitops.judge.config import JudgeConfig
from airflow_provider_kitops.judge.endpoint import CallFailed, ChatClient, Completion, Endpoint, Message
from airflow_provider_kitops.judge.journal import Journal, request_key
from airflow_provider_kitops.judge.report import Usage
from airflow_provider_kitops.oci.errors import JudgeUnavailable, LimitExceeded

#: How long an ended run waits for the threads whose connections it has broken.
_LAST_SECONDS = 5.0

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Session:
    """One run's conversation with its judge.

    :param client: the transport.
    :param journal: what was answered before.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, config: JudgeConfig, client: ChatClient, journal: Journal
    ) -> None:
        self._endpoint, self._model, self._config = endpoint, model, config
        self._client, self._journal = client, journal
        self._lock = threading.Lock()
        self._calls = self._input = self._output = 0
        self._failed_in_a_row = 0
        self._workers = min(config.concurrency, endpoint.parallel or config.concurrency)
        self._patience = max(5, 2 * self._workers)

    def ask(self, messages: Sequence[Message]) -> Completion:
        """The answer to one request, asked only if the journal does not have it.

        :raises CallFailed: this request got no usable answer.
        :raises JudgeUnavailable: the endpoint cannot be reached, or has failed many requests in a row.
        :raises LimitExceeded: the cost is used up.
        """
        key = request_key(self._endpoint, self._model, self._config, messages)
        completion = self._journal.get(key)
        if completion is None:
            limit = self._config.maximum_cost
            if limit is not None and self.usage().cost >= limit:
                raise LimitExceeded(
                    f"The judge has used up the cost of {limit:g} that was allowed for.",
                    hint="Raise maximum_cost; with the same journal, nothing is paid for twice.",
                )
            completion = self._call(messages)
            self._journal.put(key, completion)
        with self._lock:
            self._calls += 1
            self._input += completion.input_tokens
            self._output += completion.output_tokens
        return completion

    def usage(self) -> Usage:
        """What the answers so far have cost, those of an interrupted run too."""
        with self._lock:
            config = self._config
            cost = (self._input * config.input_price + self._output * config.output_price) / 1_000_000
            return Usage(calls=self._calls, input_tokens=self._input, output_tokens=self._output, cost=cost)

    def each(
        self, work: Callable[[_Task], _Result], tasks: Sequence[_Task], done: Callable[[int], None]
    ) -> list[_Result]:
        """``work`` on every task, as many at a time as may be; results in the order of the tasks.

        :param done: told how many are finished, one call at a time.
        """
        finished = 0

        def one(task: _Task) -> _Result:
            nonlocal finished
            if stopped.is_set():
                raise CancelledError
            try:
                result = work(task)
            except BaseException:
                stopped.set()
                raise
            with counting:
                finished += 1
                done(finished)
            return result

        counting, stopped = threading.Lock(), threading.Event()
        futures: list[Future[_Result]] = []
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="judge")
        try:
            for task in tasks:
                futures.append(pool.submit(one, task))
            wait(futures, return_when=FIRST_EXCEPTION)
            if stopped.is_set():
                # What is being answered is paid for: it may still get into the journal.
                pool.shutdown(wait=False, cancel_futures=True)
                _wait_for_running(futures, self._config.timeout)
            # Raises the failure that ended the waiting, if there was one.
            for future in futures:
                if future.done() and not future.cancelled() and not isinstance(future.exception(), CancelledError):
                    future.result()
            return [future.result() for future in futures]
        except BaseException:
            # An interrupt is not to wait for an endpoint that takes its time.
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            self._client.close()
            _wait_for_running(futures, _LAST_SECONDS)
            raise
        finally:
            pool.shutdown(wait=False)

    def _call(self, messages: Sequence[Message]) -> Completion:
        try:
            completion = self._client.ask(messages)
        except CallFailed as error:
            with self._lock:
                self._failed_in_a_row = self._failed_in_a_row + 1 if error.transient else 0
                hopeless = self._failed_in_a_row >= self._patience
            if hopeless:
                raise JudgeUnavailable(
                    f"The judge at {self._endpoint.base_url} failed {self._patience} requests in a row. Last: {error}",
                    hint="With the same journal, the next try goes on from here.",
                ) from error
            raise
        with self._lock:
            self._failed_in_a_row = 0
        return completion


def _wait_for_running(futures: Sequence[Future[_Result]], seconds: float) -> None:
    """Wait, but not for what was cancelled before it began: nobody reports its end."""
    wait([future for future in futures if not future.cancelled()], timeout=seconds)
