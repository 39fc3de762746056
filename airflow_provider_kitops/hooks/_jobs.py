"""The Jobs of this provider in a cluster, for tasks on a worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_kitops.cluster.job import JobObjects, is_held, mounted_by
from airflow_provider_kitops.cluster.merge import merged
from airflow_provider_kitops.cluster.names import (
    JOB_NAME,
    MANAGED_BY,
    OUTCOME,
    REPORTED,
    SPECIFICATION,
    STARTED,
    TASK,
    TRY,
    selector,
)
from airflow_provider_kitops.cluster.reading import owner_of, status_message
from airflow_provider_kitops.oci.errors import (
    ClusterUnavailable,
    Conflict,
    Forbidden,
    InvalidInput,
    KitopsError,
    NotFound,
)

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    from airflow_provider_kitops.cluster.outcome import Outcome

#: Patch that lets a Job run that ``is_held``.
LET_RUN: Mapping[str, Any] = {"metadata": {"annotations": {STARTED: "true"}}, "spec": {"suspend": False}}
# Patch of a Job whose end a task has told.
_REPORT: Mapping[str, Any] = {"metadata": {"labels": {REPORTED: "true"}}}
_STRICT = "Strict"  # otherwise the API drops fields that it does not know, a misspelt one among them


@dataclass(frozen=True)
class JobHandle:
    """Where a Job is.

    :param namespace: the Job's namespace.
    :param name: its name there.
    :param uid: of this very Job, whatever comes after it under the same name.
    """

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> JobHandle:
        """The handle of a Job as the API gives it."""
        metadata = job["metadata"]
        return cls(metadata["namespace"], metadata["name"], metadata["uid"])


class Jobs:
    """What a worker does with Jobs.

    Everything here raises ``ClusterUnavailable`` where the API gives no answer, ``Forbidden`` where it does not let us
    ask, and ``InvalidInput`` where the connection cannot be used.

    :param hook: reaches the cluster.
    """

    def __init__(self, hook: KubernetesHook) -> None:
        self._hook = hook

    @property
    def namespace(self) -> str:
        """The namespace that the connection names, or ``default``.

        :raises InvalidInput: the connection cannot be used.
        """
        with self._errors("read the connection to the cluster"):
            return self._hook.get_namespace() or "default"

    @property
    def in_cluster(self) -> bool:
        """Whether the cluster is reached by the account of the pod that this runs in.

        :raises InvalidInput: the connection cannot be used.
        """
        with self._errors("reach the cluster"):
            return bool(self._hook.is_in_cluster)

    def start(self, objects: JobObjects, *, run: bool) -> dict[str, Any]:
        """Create the Job with what it mounts.

        :param run: whether to let it run; not where that is for another to do: the triggerer, or Kueue.
        :return: the Job. One of the same name that is there already was made by the same attempt, and is completed.
        :raises InvalidInput: the cluster does not take it.
        :raises Conflict: a Job of this name does other work, is being removed, or somebody has told how it ended.
        """
        namespace, name = objects.job["metadata"]["namespace"], objects.job["metadata"]["name"]
        with self._errors(f"create the Job {name} in namespace {namespace}"):
            created = self._create(self._hook.batch_v1_client.create_namespaced_job, namespace, objects.job)
            job = self._plain(created) if created else None
            if job is None:
                job = self.get(namespace, name)
                if job is None or job["metadata"].get("deletionTimestamp") or not _is_same(job, objects.job):
                    raise Conflict(f"Another Job {name} is in namespace {namespace} already.")
        self.complete(job, objects, run=run)
        return job

    def complete(self, job: Mapping[str, Any], objects: JobObjects, *, run: bool) -> None:
        """Create what a Job mounts, where it is not there yet, take the Job over for this try, and let it run.

        Whoever began may have been killed in between.

        :param run: as for ``start``.
        :raises ClusterUnavailable: the Job is gone meanwhile; another try makes its own.
        """
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        core = self._hook.core_v1_client
        config_map, secret = objects.owned(job)
        with self._errors(f"create the ConfigMap {mounted_by(job)} in namespace {namespace}"):
            self._create(core.create_namespaced_config_map, namespace, config_map)
        if secret:
            with self._errors(f"create the Secret {mounted_by(job)} in namespace {namespace}"):
                # Unread, for the client writes every answer that it reads into the log of debugging.
                answer = self._create(core.create_namespaced_secret, namespace, secret, _preload_content=False)
                if answer:
                    answer.drain_conn()
        change: Mapping[str, Any] = LET_RUN if run and is_held(job) else {}
        mine = objects.job["metadata"]["annotations"][TRY]
        if try_of(job) != mine:
            change = merged(change, {"metadata": {"annotations": {TRY: mine}}})
        if change:
            with self._errors(f"start the Job {name} in namespace {namespace}"):
                try:
                    self._patch(JobHandle.of(job), change)
                except NotFound as error:
                    raise ClusterUnavailable(f"The Job {name} was deleted before it ran.") from error

    def get(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Job, or ``None``."""
        with self._errors(f"read the Job {name} in namespace {namespace}"):
            try:
                return self._plain(_retried(self._hook.batch_v1_client.read_namespaced_job)(name, namespace))
            except NotFound:
                return None

    def of_task(self, namespace: str, label: str) -> list[dict[str, Any]]:
        """The Jobs of a task instance, the newest first."""
        with self._errors(f"list the Jobs in namespace {namespace}"):
            jobs = self._list(self._hook.batch_v1_client.list_namespaced_job, namespace, {**MANAGED_BY, TASK: label})
        return sorted(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"]), reverse=True)

    def pods(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pods of a Job that are there; not those of an earlier one of its name."""
        metadata = job["metadata"]
        pods = self._pods(metadata["namespace"], {JOB_NAME: metadata["name"]})
        return [pod for pod in pods if owner_of(pod) == metadata["uid"]]

    def pods_of_task(self, namespace: str, label: str) -> list[dict[str, Any]]:
        """The pods of a task instance, of whatever Job, that have not ended."""
        pods = self._pods(namespace, {**MANAGED_BY, TASK: label})
        return [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def delete(self, handle: JobHandle) -> None:
        """Delete a Job with its pods, Secret and ConfigMap; one that is gone, or another of its name, is left."""
        from kubernetes.client import V1DeleteOptions, V1Preconditions

        options = V1DeleteOptions(propagation_policy="Background", preconditions=V1Preconditions(uid=handle.uid))
        what = f"delete the Job {handle.name} in namespace {handle.namespace}"
        with self._errors(what), suppress(NotFound, Conflict):
            _retried(self._hook.batch_v1_client.delete_namespaced_job, conflicts=False)(
                handle.name, handle.namespace, body=options
            )

    def keep(self, handle: JobHandle, outcome: Outcome, *, for_ever: bool) -> None:
        """Leave a Job where it is, for a person to look at: without its credentials, and with nothing running.

        :param outcome: how it ended. One that was given up is ended by a deadline, unless nothing of it ever ran, so
            that there is nothing to look at: that one is deleted.
        :param for_ever: whether Kubernetes, too, is not to remove it.
        """
        from kubernetes.client import V1DeleteOptions

        job = self.get(handle.namespace, handle.name)
        if job is None or job["metadata"]["uid"] != handle.uid:
            return
        if outcome.given_up and job["spec"].get("suspend"):
            self.delete(handle)
            return
        # First, so that nothing runs on whatever comes of the rest.
        with self._errors(f"mark the Job {handle.name} in namespace {handle.namespace}"), suppress(NotFound):
            change: Mapping[str, Any] = giving_up(outcome) if outcome.given_up else _REPORT
            if for_ever:
                change = {**change, "spec": {**change.get("spec", {}), "ttlSecondsAfterFinished": None}}
            self._patch(handle, change)
        with self._errors(f"delete the Secret {mounted_by(job)} in namespace {handle.namespace}"), suppress(NotFound):
            _retried(self._hook.core_v1_client.delete_namespaced_secret)(
                mounted_by(job), handle.namespace, body=V1DeleteOptions()
            )

    def _pods(self, namespace: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        with self._errors(f"list the pods in namespace {namespace}"):
            return self._list(self._hook.core_v1_client.list_namespaced_pod, namespace, labels)

    def _list(self, call: Callable[..., Any], namespace: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        return self._plain(_retried(call)(namespace, label_selector=selector(labels))).get("items") or []

    def _patch(self, handle: JobHandle, change: Mapping[str, Any]) -> None:
        """Change this very Job.

        :raises NotFound: it is gone, or another one has its name.
        """
        try:
            _retried(self._hook.batch_v1_client.patch_namespaced_job, conflicts=False)(
                handle.name, handle.namespace, of_uid(change, handle.uid)
            )
        except Conflict as error:
            raise NotFound(error.message) from error

    def _create(self, create: Callable[..., Any], namespace: str, body: dict[str, Any], **options: Any) -> Any:
        """Create a thing; ``None`` if one of its name is there."""
        try:
            return _retried(create, conflicts=False)(namespace, body, field_validation=_STRICT, **options)
        except Conflict:
            return None

    def _plain(self, thing: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._hook.api_client.sanitize_for_serialization(thing)
        return found

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Say what was tried where the cluster refuses, in one line.

        :raises InvalidInput: the cluster does not take what it was given, or the connection to it cannot be used.
        :raises Forbidden: it does not know, or not allow, who asks.
        :raises NotFound: there is no such thing, or no such namespace.
        :raises ClusterUnavailable: no answer.
        """
        from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import TRANSIENT_CONNECTION_ERRORS
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException

        try:
            yield
        except NotFound as error:
            raise NotFound(f"Cannot {what}: {error.message}") from error
        except KitopsError:
            raise
        except ApiException as error:
            text = f"Cannot {what}: {_said(error).rstrip('.')}."
            if error.status == 403 and ("exceeded quota" in text or "being terminated" in text):
                raise ClusterUnavailable(text, hint="It is tried again where the task has retries.") from error
            if error.status == 401:
                hint = f"The cluster does not know who asks: correct the credentials of {self._hook.conn_id!r}."
                raise Forbidden(text, hint=hint) from error
            if error.status == 403:
                hint = "Look at the namespace, and at what Airflow's account must be allowed (page on Kubernetes)."
                raise Forbidden(text, hint=hint) from error
            if error.status in (400, 413, 422):
                raise InvalidInput(text, hint="Correct job.") from error
            raise ClusterUnavailable(text) from error
        except (AirflowException, ConfigException) as error:
            text = f"Cannot {what}: {' '.join(str(error).split())[:500].rstrip('.')}."
            raise InvalidInput(text, hint=f"Correct the connection {self._hook.conn_id!r}.") from error
        except TRANSIENT_CONNECTION_ERRORS as error:
            # Of many tries the last one's reason, without the address that was asked for before it.
            reason = " ".join(str(getattr(error, "reason", None) or error).split())
            raise ClusterUnavailable(f"Cannot {what}: {reason[:300]}") from error


def giving_up(outcome: Outcome) -> dict[str, Any]:
    """A patch that ends a Job which is waited for no longer, and which nobody goes on with.

    It is not suspended: Kueue would let it run again, and Kubernetes would never remove it.

    :param outcome: why; kept on the Job, which itself knows of nothing but its deadline.
    """
    why = {"metadata": {"annotations": {OUTCOME: json.dumps(outcome.to_json())}}}
    patch: dict[str, Any] = merged(_REPORT, {**why, "spec": {"activeDeadlineSeconds": 1}})
    return patch


def of_uid(change: Mapping[str, Any], uid: str) -> dict[str, Any]:
    """A patch that the API takes for the object with this uid only."""
    patch: dict[str, Any] = merged(change, {"metadata": {"uid": uid}})
    return patch


def try_of(job: Mapping[str, Any]) -> str:
    """The id of the try that goes on with the Job; empty if an earlier version made it."""
    return str((job["metadata"].get("annotations") or {}).get(TRY) or "")


def is_reported(job: Mapping[str, Any]) -> bool:
    """Whether a task has told how the Job ended."""
    return (job["metadata"].get("labels") or {}).get(REPORTED) == "true"


def _is_same(job: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a Job of the same name is the very one, made a moment ago."""
    mine, theirs = wanted["metadata"]["labels"], job["metadata"].get("labels") or {}
    return not is_reported(job) and all(mine[key] == theirs.get(key) for key in (TASK, SPECIFICATION))


def _retried(call: Callable[..., Any], *, conflicts: bool = True) -> Callable[..., Any]:
    """The call, tried again while the API server is away, with this package's errors.

    :param conflicts: whether 409 is one that goes by (an update beside another one).
    """
    from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
    from kubernetes.client.exceptions import ApiException

    def once(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except ApiException as error:
            if error.status == 404:
                raise NotFound(_said(error)) from error
            if error.status == 409 and not conflicts:
                raise Conflict(_said(error)) from error
            raise

    retried: Callable[..., Any] = generic_api_retry(once)
    return retried


def _said(error: Any) -> str:
    return (status_message(error.body) or f"{error.status} {error.reason}")[:1000]
