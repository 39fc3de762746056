"""Run a workload as a Job of a Kubernetes cluster, and tell how it ended."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    TaskDeferred,
    conf,
)

from airflow_provider_kitops.hooks._arguments import path_argument, settings_of
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._errors import require
from airflow_provider_kitops.operators._programs import ProgramOperator
from airflow_provider_kitops.operators._settings import check_settings
from airflow_provider_kitops.operators.outcomes import JobFailed, JobFailedForGood, JobTimedOut

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_kitops.cluster.job import JobObjects
    from airflow_provider_kitops.cluster.names import TaskKey
    from airflow_provider_kitops.cluster.outcome import Outcome
    from airflow_provider_kitops.cluster.settings import JobSettings
    from airflow_provider_kitops.hooks._jobs import JobHandle, Jobs
    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.workload.spec import WorkloadSpec

#: Key of the task state store (Airflow 3.3 and later): which Job the task instance started last, and where.
STATE_KEY = "kitops_job"
#: Key of the XCom that tells of a failed Job.
FAILURE_KEY = "failure"

_LOOK_SECONDS, _END_SECONDS = 3.0, 30.0  # between looks at pods that end; beyond their grace period
_LIMITS = ("startup_timeout", "image_pull_timeout", "retry_exit_codes")


class KubernetesProgramOperator(ProgramOperator):
    """Runs a program as a Job. The program's own arguments come from what this is combined with."""

    def __init__(
        self,
        *,
        image: str | None = None,
        job: Mapping[str, Any] | None = None,
        kubernetes_conn_id: str = "kubernetes_default",
        signing_key: str | Path | None = None,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        from airflow_provider_kitops.cluster.settings import JobSettings

        check_settings({} if job is None else job, "job", self.task_id, JobSettings)
        self.image = image
        self.job = job
        self.kubernetes_conn_id = kubernetes_conn_id
        self.signing_key = signing_key
        self.deferrable = deferrable

    def _execute(self, context: Context) -> Any:
        require("Running workloads on Kubernetes", "kubernetes", "airflow.providers.cncf.kubernetes")
        try:
            event = self._run(context)
        except TaskDeferred:
            raise
        except BaseException as error:
            if not _goes_on(context, error):
                self._end(context)
            raise
        return self._conclude(context, event)

    def _run(self, context: Context) -> dict[str, Any]:
        """Start the Job, or go on with the one that runs, and wait for its end: here, or deferred."""
        from airflow_provider_kitops.hooks._jobs import JobHandle

        settings, jobs = self._job_settings(), self._jobs
        namespace = self._namespace(settings)
        with self.hook.store() as store:
            spec, objects = self._workload(store, context, settings, namespace)
            job = self._running_job(context, jobs, namespace, spec)
            if job is None:
                self._look_ahead(store, spec)
        if job is None:
            adopted = False
            self._let_end(context, jobs, namespace, settings)
            job = self._start(context, jobs, objects)
            self.log.info("Created the Job %s in namespace %s.", job["metadata"]["name"], namespace)
        else:
            adopted = True
            self.log.info("Going on with the Job %s in namespace %s.", job["metadata"]["name"], namespace)
            # Under the name of the Job that is there; what it mounts has that Job's names, too.
            jobs.complete(job, objects(job["metadata"]["name"]), run=not self.deferrable)
        handle = JobHandle.of(job)
        self._remember(context, asdict(handle))
        output = {"reference": spec.output.reference, "tags": list(spec.output.all_tags), "adopted": adopted}
        trigger = self._trigger(handle, output, settings, self._deadline(context))
        if self.deferrable:
            self.defer(trigger=trigger, method_name="execute_complete")
        return _in_a_thread(trigger)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Tell what came of the Job."""
        return self._guarded(context, lambda: self._conclude(context, event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after waiting. If the trigger itself failed, another try goes on with the Job; the last one ends it."""
        if next_method != "execute_complete" and not _has_retries(context):
            self._end(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def _job_settings(self) -> JobSettings:
        """The task's own settings over those of the installation."""
        from pydantic import ValidationError

        from airflow_provider_kitops._validation import problems
        from airflow_provider_kitops.cluster.settings import JobSettings
        from airflow_provider_kitops.oci.errors import InvalidInput

        text = conf.get("kitops", "job", fallback="") or "{}"
        try:
            everywhere = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"The option [kitops] job is no JSON: {error}.") from None
        if not isinstance(everywhere, dict):
            raise InvalidInput(
                "The option [kitops] job is no JSON object.", hint='Write {"namespace": "training"}, say.'
            )

        def checked(chosen: dict[str, Any], what: str) -> JobSettings:
            try:
                return JobSettings.model_validate(chosen)
            except ValidationError as error:
                raise InvalidInput(f"{what} cannot be used: {problems(error, JobSettings, 'together')}.") from None

        checked(everywhere, "The option [kitops] job")
        return checked({**everywhere, **settings_of(self.job, "job")}, "job")

    @cached_property
    def _jobs(self) -> Jobs:
        from airflow_provider_kitops.hooks._jobs import Jobs

        return Jobs(_hook(self.kubernetes_conn_id))

    def _namespace(self, settings: JobSettings) -> str:
        return settings.namespace or self._jobs.namespace

    def _workload(
        self, store: Store, context: Context, settings: JobSettings, namespace: str
    ) -> tuple[WorkloadSpec, Callable[[str], JobObjects]]:
        """What is to be run, and what makes of it the objects of a Job of a given name."""
        from airflow_provider_kitops.cluster.images import pinned_image
        from airflow_provider_kitops.cluster.job import job_objects
        from airflow_provider_kitops.oci.errors import InvalidInput
        from airflow_provider_kitops.workload.mounts import job_files
        from airflow_provider_kitops.workload.runner import check

        if not store.config.registry:
            raise InvalidInput(
                f"The connection {self.kitops_conn_id!r} is the local layout, which no pod can reach.",
                hint="Give the connection a registry, or run the workload on this machine.",
            )
        image = pinned_image(store, self.image or settings.image, "trainer")
        steps = pinned_image(store, settings.steps_image, "steps")
        resources = {"cpu": settings.cpu, "memory": settings.memory, "gpu": settings.gpu}
        spec = self._spec(store, image=image, resources=resources)
        check(spec, store)
        key = b"" if self.signing_key is None else _read_key(self.signing_key)
        files, secrets = job_files(spec, store.config, signing_key=key)
        limit = self.execution_timeout
        return spec, lambda name: job_objects(
            spec,
            settings,
            task=_task_key(context),
            name=name,
            mounted=f"{name}-{token_hex(4)}",
            namespace=namespace,
            steps_image=steps,
            files=files,
            secrets=secrets,
            deadline=limit.total_seconds() if limit else None,
            try_id=_try_id(context),
        )

    def _look_ahead(self, store: Store, spec: WorkloadSpec) -> None:
        """Ask for the tags that are to be set: what would fail in publishing is better known before the work.

        :raises Unauthorized, Forbidden: the registry does not let in who will publish.
        """
        from airflow_provider_kitops.oci.errors import NotFound
        from airflow_provider_kitops.oci.tagging import is_mutable

        target = store.target(store.reference(spec.output.reference))
        for tag in spec.output.all_tags or ("latest",):
            with suppress(NotFound):
                there = target.resolve(tag)
                if tag in spec.output.all_tags and not is_mutable(tag, store.config.mutable_tags):
                    text = "Tag %s of %s names %s and never moves: publishing will fail unless the result is the same."
                    self.log.warning(text, tag, target.name, there.digest)

    def _let_end(self, context: Context, jobs: Jobs, namespace: str, settings: JobSettings) -> None:
        """Wait for pods of an earlier try that are being ended: they write checkpoints where this one would read them.

        :raises ClusterUnavailable: one does not end.
        """
        from airflow_provider_kitops.oci.errors import ClusterUnavailable

        if "emptyDir" in settings.checkpoints:
            return
        end = time.monotonic() + settings.grace_period + _END_SECONDS
        while pods := jobs.pods_of_task(namespace, _task_key(context).label):
            names = ", ".join(pod["metadata"]["name"] for pod in pods)
            if time.monotonic() > end:
                raise ClusterUnavailable(
                    f"Pods of an earlier try do not end: {names} in namespace {namespace}.",
                    hint="Their node may be lost. Another pod cannot use their checkpoints meanwhile.",
                )
            self.log.info("Waiting for pods of an earlier try to end: %s", names)
            time.sleep(_LOOK_SECONDS)

    def _start(self, context: Context, jobs: Jobs, objects: Callable[[str], JobObjects]) -> dict[str, Any]:
        from airflow_provider_kitops.oci.errors import Conflict

        task, attempt = _task_key(context), str(context["ti"].try_number)
        # A task that was ended before it was deferred has nobody to follow its Job: the triggerer lets it run.
        run = not self.deferrable
        try:
            return jobs.start(objects(task.job_name(attempt)), run=run)
        except Conflict:
            # One that was kept, of a run of this name that was deleted since.
            return jobs.start(objects(task.job_name(f"{attempt}-{token_hex(3)}")), run=run)

    def _running_job(self, context: Context, jobs: Jobs, namespace: str, spec: WorkloadSpec) -> dict[str, Any] | None:
        """The Job that an earlier worker of this task instance started and that nobody has told the end of.

        One that failed is not gone on from, nor one that does other work than the task would now.

        :raises ClusterUnavailable: a later try has begun, as after clearing a task whose worker has not noticed it yet.
        """
        from airflow_provider_kitops.cluster.names import SPECIFICATION, digest_label
        from airflow_provider_kitops.cluster.outcome import outcome_of
        from airflow_provider_kitops.hooks._jobs import JobHandle, is_reported, try_of
        from airflow_provider_kitops.oci.errors import ClusterUnavailable

        self._leave_elsewhere(context, namespace)
        chosen = None
        for job in jobs.of_task(namespace, _task_key(context).label):
            if is_reported(job) or job["metadata"].get("deletionTimestamp"):
                continue
            name = job["metadata"]["name"]
            if try_of(job) > _try_id(context):
                # Clocks apart look the same: then the next try is later.
                raise ClusterUnavailable(f"A later try of this task has begun already, with the Job {name}.")
            outcome = outcome_of(job, jobs.pods(job))
            same = job["metadata"]["labels"].get(SPECIFICATION) == digest_label(spec.digest)
            if chosen is None and same and (outcome is None or outcome.succeeded):
                chosen = job
                continue
            if outcome and not outcome.succeeded:
                self.log.info("The Job %s of an earlier try failed: %s", name, outcome.message)
            else:
                why = "a newer one is gone on with" if same else "it does other work than this one"
                self.log.info("Deleting the Job %s of an earlier try: %s.", name, why)
            jobs.delete(JobHandle.of(job))
        return chosen

    def _leave_elsewhere(self, context: Context, namespace: str) -> None:
        """Delete the Job of an earlier try that runs where this one would not look for it."""
        from airflow_provider_kitops.hooks._jobs import JobHandle, Jobs

        state = context.get("task_state_store")
        try:
            stored = None if state is None else state.get(STATE_KEY)
        except Exception as error:  # noqa: BLE001 - a Job that is where this try looks is found without it
            self.log.warning("Cannot read from the task state store where an earlier try's Job is: %s", error)
            return
        if not isinstance(stored, dict):
            return
        note = [stored.get(key) for key in ("kubernetes_conn_id", "namespace", "name", "uid")]
        if note[:2] == [self.kubernetes_conn_id, namespace] or not all(isinstance(each, str) for each in note):
            return
        conn_id, handle = str(note[0]), JobHandle(*map(str, note[1:]))
        self.log.info("Deleting the Job %s of an earlier try in namespace %s.", handle.name, handle.namespace)
        try:
            Jobs(_hook(conn_id)).delete(handle)
        except Exception as error:  # noqa: BLE001 - the connection, or the cluster, may be gone for good
            self.log.warning("It could not be deleted, and may still run: %s", error)

    def _remember(self, context: Context, handle: Mapping[str, str] | None) -> None:
        """Note where the Job is, or that there is none any more. Without the note it is found by its labels."""
        state = context.get("task_state_store")
        if state is None:
            return
        try:
            if handle is None:
                state.delete(STATE_KEY)
            else:
                state.set(STATE_KEY, {"kubernetes_conn_id": self.kubernetes_conn_id, **handle})
        except Exception as error:  # noqa: BLE001 - no reason to lose what hours of work have made
            self.log.warning("Cannot note in the task state store where the Job is: %s", error)

    def _deadline(self, context: Context) -> float | None:
        """When the task's time is over: Airflow itself does not look while a task is deferred."""
        if self.execution_timeout is None:
            return None
        start = getattr(context["ti"], "start_date", None)
        begin = start.timestamp() if isinstance(start, datetime) else time.time()
        return float(begin + self.execution_timeout.total_seconds())

    def _trigger(
        self, handle: JobHandle, output: Mapping[str, Any], settings: JobSettings, deadline: float | None
    ) -> Any:
        from airflow_provider_kitops.triggers.job import WorkloadJobTrigger

        limits = settings.model_dump(mode="json", include=set(_LIMITS))
        in_cluster = True if self._jobs.in_cluster else None
        return WorkloadJobTrigger(
            self.kubernetes_conn_id,
            handle.namespace,
            handle.name,
            handle.uid,
            output,
            limits,
            in_cluster=in_cluster,
            deadline=deadline,
        )

    def _conclude(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        from airflow_provider_kitops.cluster.outcome import Outcome
        from airflow_provider_kitops.hooks._jobs import JobHandle

        handle, output = JobHandle(**event["handle"]), event["output"]
        outcome = Outcome.of_json(event["outcome"])
        if outcome.reason == "JobDeleted" and output.get("adopted"):
            # Whoever cleared the task had it deleted, and this try was there first.
            self.log.info("The Job %s of an earlier try was deleted: this try starts its own.", handle.name)
            return dict(self._execute(context))
        if not outcome.succeeded:
            self._finish(context, handle, outcome)
            self.log.error("%s: %s", outcome.reason, outcome.message)
            if outcome.detail:
                lines = "\n".join(f"[{outcome.container}] {line}" for line in outcome.detail.splitlines())
                self.log.error("The last lines of %s:\n%s", outcome.container, lines)
            try:
                context["ti"].xcom_push(key=FAILURE_KEY, value=outcome.to_json())
            except Exception as error:  # noqa: BLE001 - how the Job failed says whether it is tried again
                self.log.warning("Cannot push the XCom %s: %s", FAILURE_KEY, error)
            if outcome.reason == "ExecutionTimeout":
                raise JobTimedOut(outcome)
            raise JobFailed(outcome) if outcome.retry else JobFailedForGood(outcome)
        try:
            with self.hook.store() as store:
                answer = self._read_back(store, outcome, output)
        except BaseException as error:
            # Where another try comes, it reads on and works no more: the Job, which costs nothing now, stays for it.
            # That is so for whatever ends this one: a worker that stops is told to as by a person.
            if not _tried_again(context, error):
                self._finish(context, handle, outcome)
            raise
        answer["progress"] = event.get("progress")
        self.log.info("%s: %s", outcome.reason, outcome.message)
        self._finish(context, handle, outcome)
        return answer

    def _read_back(self, store: Store, outcome: Outcome, output: Mapping[str, Any]) -> dict[str, Any]:
        from airflow_provider_kitops.workload.provenance import published_metrics

        result = outcome.result
        reference = store.reference(output["reference"]).at(result["digest"])
        metrics = result.get("metrics")
        if metrics is None:  # too many for what a pod can tell
            metrics = published_metrics(store, str(reference), provenance=result.get("provenance") or "")
        return describe(
            store,
            reference,
            tags=output["tags"],
            metrics=metrics,
            seconds=result.get("seconds"),
            provenance=result.get("provenance"),
        )

    def _finish(self, context: Context, handle: JobHandle, outcome: Outcome) -> None:
        """Remove the Job, or leave it for a person to look at, as ``on_finish`` says.

        What the Job did is known and stays so, whether that succeeds or not.
        """
        try:
            settings, jobs = self._job_settings(), self._jobs
            if settings.on_finish == "delete" or (settings.on_finish == "delete_on_success" and outcome.succeeded):
                jobs.delete(handle)
            else:
                jobs.keep(handle, outcome, for_ever=settings.on_finish == "keep")
        except Exception as error:  # noqa: BLE001 - see above
            left = "It may still run." if outcome.given_up else "Kubernetes removes it, and its Secret, after its ttl."
            text = "The Job %s in namespace %s is left: %s %s"
            self.log.error(text, handle.name, handle.namespace, error, left)  # noqa: TRY400 - one line says it all
            return
        self._remember(context, None)

    def _end(self, context: Context) -> None:
        """Delete whatever Jobs of this task instance nobody has told the end of, but not those of a later try.

        The task fails anyway, and for another reason: what cannot be done here is told, and raised no more.
        """
        from airflow_provider_kitops.hooks._jobs import JobHandle, is_reported, try_of

        try:
            jobs, namespace = self._jobs, self._namespace(self._job_settings())
            found = jobs.of_task(namespace, _task_key(context).label)
            left = [job for job in found if not is_reported(job) and try_of(job) <= _try_id(context)]
        except Exception as error:  # noqa: BLE001 - see above
            self.log.error("Cannot see whether Jobs of this task are left: %s", error)  # noqa: TRY400
            return
        for job in left:
            name = job["metadata"]["name"]
            self.log.info("Deleting the Job %s in namespace %s.", name, namespace)
            try:
                jobs.delete(JobHandle.of(job))
            except Exception as error:  # noqa: BLE001 - see above
                text = "The Job %s in namespace %s may still run, and could not be deleted: %s"
                self.log.error(text, name, namespace, error)  # noqa: TRY400


def _hook(conn_id: str) -> Any:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    return KubernetesHook(conn_id=conn_id)


def _task_key(context: Context) -> TaskKey:
    from airflow_provider_kitops.cluster.names import TaskKey

    ti = context["ti"]
    return TaskKey(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)


def _try_id(context: Context) -> str:
    return str(context["ti"].id)


def _goes_on(context: Context, error: BaseException) -> bool:
    """Whether another try comes after this failure, which would go on with the Job that runs."""
    # The others, such as being told to end or timed out, are a person's or Airflow's decision.
    return isinstance(error, Exception) and _tried_again(context, error)


def _tried_again(context: Context, error: BaseException) -> bool:
    """Whether another try comes after this, if nobody has set the task's state."""
    from airflow_provider_kitops.oci.errors import KitopsError

    permanent = isinstance(error, AirflowFailException) or (isinstance(error, KitopsError) and not error.transient)
    return _has_retries(context) and not permanent


def _has_retries(context: Context) -> bool:
    ti = context["ti"]
    return bool(ti.try_number <= (getattr(ti, "max_tries", 0) or 0))


def _read_key(path: str | Path) -> bytes:
    from airflow_provider_kitops.oci.errors import InvalidInput

    path = path_argument(path, "signing_key")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"Cannot read the signing key {path}: {error.strerror}.") from error


def _in_a_thread(trigger: Any) -> dict[str, Any]:
    """Follow the Job here. In a thread, so that being told to end interrupts the wait and not the event loop."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    answer: Future[Any] = Future()

    async def follow() -> Any:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))  # type: ignore[arg-type]
        return await trigger.follow()

    def run() -> None:
        try:
            answer.set_result(asyncio.run(follow()))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            answer.set_exception(error)

    thread = threading.Thread(target=run, name="follow-job", daemon=True)
    thread.start()
    try:
        followed = answer.result()
    except BaseException:
        with suppress(RuntimeError, TimeoutError):  # the loop has ended by itself, or never begun
            loop, following = begun.result(10)
            loop.call_soon_threadsafe(following.cancel)
        thread.join(10)
        raise
    event: dict[str, Any] = trigger.event(followed)
    return event
