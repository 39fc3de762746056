"""The one place where anything is tried again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from airflow_provider_kitops.oci.errors import KitopsError, RegistryUnavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a transient failure is tried again.

    :param attempts: in all.
    :param base: seconds of the first pause; each next is twice as long. Up to as many more are added at random.
    :param longest: the longest pause of our own choice, in seconds.
    :param patience: the longest pause that a registry may ask for (``Retry-After``), in seconds; with a longer one
        the error goes to the caller, who can free the worker meanwhile.
    """

    attempts: int = 5
    base: float = 0.5
    longest: float = 15.0
    patience: float = 60.0


class Retry:
    """Tries again by a policy.

    :param policy: how often and how soon.
    :param interrupted: ends all trying and all pauses once it is set.
    """

    def __init__(self, policy: RetryPolicy, interrupted: threading.Event) -> None:
        self._policy = policy
        # At least the doubled pauses, so that all tries together outlast a restart; the rest parts many clients.
        self._own_pause = wait_exponential(multiplier=policy.base, max=policy.longest) + wait_random(0, policy.base)
        self._interrupted = interrupted

    def call(self, work: Callable[[], T], *, unless: Callable[[], bool] = lambda: False) -> T:
        """Call ``work`` until it succeeds, fails for good, or has failed too often; then raise its last error.

        :param unless: whether it is no use to try again, asked after a failure.
        """
        return Retrying(
            stop=stop_any(stop_after_attempt(self._policy.attempts), stop_when_event_set(self._interrupted)),
            wait=self._pause,
            retry=retry_if_exception(lambda error: self._again(error) and not unless()),
            sleep=sleep_using_event(self._interrupted),
            before_sleep=_log,
            reraise=True,
        )(work)

    def _again(self, error: BaseException) -> bool:
        if not isinstance(error, KitopsError) or not error.transient:
            return False
        return not (isinstance(error, RegistryUnavailable) and (error.retry_after or 0) > self._policy.patience)

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, RegistryUnavailable) else None
        own = float(self._own_pause(state))
        return max(asked or 0.0, own)


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s Trying again in %.1f s.", getattr(error, "message", error), pause)
