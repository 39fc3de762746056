"""What all operators of this provider share."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowException, conf
from airflow.sdk import BaseOperator

from airflow_provider_kitops.hooks._arguments import path_argument
from airflow_provider_kitops.hooks._errors import airflow_errors, require
from airflow_provider_kitops.hooks.kitops import KitopsHook
from airflow_provider_kitops.links.modelkit import ModelKitLink
from airflow_provider_kitops.operators._outlets import announce

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_provider_kitops.evidence.signing import Signer, Verifier


# How often in a row other tasks may remove what is being made: each of them does it once.
_TRIES = 100


class KitopsBaseOperator(BaseOperator):
    """
    Base of the operators that talk to the store of a ``kitops`` connection.

    Errors that a retry cannot cure fail the task at once. A task that is told to end (marked failed, cleared, its
    worker stopping) leaves whatever it is doing, which ends its subprocesses, its connections and the uploads that it
    began, and removes its temporary files.

    The events of assets in ``outlets`` tell reference and digest of what the task returned.

    :param kitops_conn_id: the connection (templated).
    """

    template_fields: Sequence[str] = ("kitops_conn_id",)
    operator_extra_links: Collection[BaseOperatorLink] = (ModelKitLink(),)
    ui_color = "#ffe8c2"

    def __init__(self, *, kitops_conn_id: str = KitopsHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kitops_conn_id = kitops_conn_id
        self._running = False

    @cached_property
    def hook(self) -> KitopsHook:
        """The connection's hook."""
        return KitopsHook(self.kitops_conn_id)

    def execute(self, context: Context) -> Any:
        """Do the work, with errors that Airflow understands."""
        return self._guarded(context, lambda: self._execute(context))

    def _guarded(self, context: Context, work: Callable[[], Any]) -> Any:
        self._running = True
        try:
            with airflow_errors():
                answer = work()
        except _Killed:
            # Retried where retries are left: a worker that stops is no reason to give the task up. If a person set
            # the task's state, that state stays.
            raise AirflowException("The task was told to end before it was done.") from None
        finally:
            self._running = False
        announce(self, context, answer)
        return answer

    @abstractmethod
    def _execute(self, context: Context) -> Any: ...

    def on_kill(self) -> None:
        """Unwind from wherever the task is: Airflow calls this in the main thread and then only waits."""
        if self._running:
            self._running = False
            raise _Killed


class _Killed(BaseException):
    """Not an ``Exception``, so that no library on the way up takes it for a failure of its own."""


def scratch_directory(context: Context, configured: str | Path | None = None) -> Path:
    """The directory that a task instance keeps between its tries; made if it does not exist.

    :param configured: root to use instead of the option ``[kitops] scratch_directory``.
    :raises InvalidInput: ``configured`` is no path.
    :raises StorageError: it cannot be made.
    """
    if configured is not None:
        root = path_argument(configured, "scratch")
    elif option := conf.get("kitops", "scratch_directory", fallback=""):
        root = Path(option)
    else:
        root = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")) / "kitops" / "scratch"
    ti = context["ti"]
    parts = (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index))
    # Ids may hold anything; as quoted names they can neither leave the root nor meet one another.
    directory = root.expanduser().joinpath(*(quote(part, safe=" +:@=,").replace(".", "%2E") for part in parts))
    _make_scratch(directory)
    return directory


def _make_scratch(directory: Path) -> None:
    """Make a task instance's directory, though another task may remove the empty ones above it at any moment.

    Once it is there, those above it are not empty, and stay.
    """
    from airflow_provider_kitops.oci.disk import make_directory

    for _ in range(_TRIES):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # one above it was removed after it had been made
            continue
        except OSError:
            break
        return
    make_directory(directory)


def remove_scratch(directory: Path) -> None:
    """Remove a task instance's directory, and the ones above it (task, run, DAG) that held nothing else.

    Other tasks of the run do the same, and make theirs, at the same time: a directory that is not empty, or gone, is
    left to them.
    """
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
    for parent in list(directory.parents)[:3]:
        try:
            parent.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def signer(path: str | Path | None) -> Signer | None:
    """The key to sign with, if one is configured.

    :raises InvalidInput: the path is empty, so that a template which finds nothing leaves nothing unsigned.
    """
    if path is None:
        return None
    path = path_argument(path, "signing_key")
    from airflow_provider_kitops.evidence.signing import load_signer

    require("Signing", "sign", "securesystemslib")
    return load_signer(path)


def verifier(path: str | Path | None) -> Verifier | None:
    """The keys to trust, if any are configured.

    :raises InvalidInput: the path is empty, so that a template which finds nothing lets nothing unsigned through.
    """
    if path is None:
        return None
    path = path_argument(path, "verification_key")
    from airflow_provider_kitops.evidence.signing import load_verifier

    require("Verifying signatures", "sign", "securesystemslib")
    return load_verifier(path)
