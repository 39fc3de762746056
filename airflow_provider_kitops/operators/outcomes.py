"""What a task raises when its Job did not succeed, for callbacks and notifiers (``context["exception"]``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowTaskTimeout

if TYPE_CHECKING:
    from airflow_provider_kitops.cluster.outcome import Outcome


class _OfJob(BaseException):
    """
    Tells of a Job.

    :ivar outcome: reason, message, container, exit code and last lines.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.reason}: {outcome.message}")
        self.outcome = outcome

    def __reduce__(self) -> tuple[type[Self], tuple[Outcome]]:
        return type(self), (self.outcome,)


class JobFailed(_OfJob, AirflowException):
    """The Job failed in a way that another try may not; Airflow retries the task."""


class JobFailedForGood(_OfJob, AirflowFailException):
    """The Job failed, and would again; Airflow does not retry the task."""


class JobTimedOut(_OfJob, AirflowTaskTimeout):
    """The Job was ended because the task's ``execution_timeout`` was over."""
