"""A small part of a Kubernetes API on the loopback interface, for what a real one cannot be made to do on demand.

It lists and watches pods, serves their logs, creates, reads, lists, patches and deletes Jobs, and creates and deletes
ConfigMaps and Secrets. It can cut connections, forget versions, change its token and answer with errors.

It leaves out: all other verbs and kinds, any other authentication, TLS, label selectors other than equality, bookmarks,
paging, ``sinceSeconds`` (a log always comes from its beginning), checks of what it is given (of names, fields, types
and of what may not change), defaults, versions of anything but pods, strategic merges of lists, finalizers and grace
periods. Of preconditions it knows the uid. What a deleted Job owned goes with it at once, if the deletion asks for
that, instead of a moment later, and pods do not take their time to end. A name is there once, not once in each
namespace. Nothing runs: pods are what the test says they are, and so are Jobs once they are created. The real one is
in ``tests/cluster``.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Asked:
    """A request.

    :param kind: ``pods``, ``watch``, ``jobs``, ``read`` (one Job), ``patch`` (a Job), ``log``, or ``create`` or
        ``delete`` with the resource after it, as in ``create secrets``.
    :param path: as it was asked for.
    :param body: what was sent, if anything was.
    """

    kind: str
    query: dict[str, str]
    path: str = ""
    body: dict[str, Any] | None = None


@dataclass
class FakeKubernetes:
    """The API. Tests change what is there by its methods, and how it answers by its fields.

    :param namespace: where things are that do not say where they are.
    :param others: the other namespaces that there are.
    :param asked: all requests.
    :param status: the status to answer a request with instead of what was asked for, or ``None``.
    :param message: what that answer says, if not which kind was refused.
    :param token: what whoever asks must have to show, if not empty.
    :param watch_seconds: how long a watch is kept open, if not as long as it was asked for.
    :param logs: the log's lines, with their times, by pod and container.
    :param cut_logs: for each further request for a log, the number of bytes after which the connection is cut.
    :param most_watches: how many watches have been open at once.
    """

    namespace: str = "models"
    others: tuple[str, ...] = ()
    asked: list[Asked] = field(default_factory=list)
    status: Callable[[Asked], int | None] = lambda asked: None
    message: str = ""
    token: str = ""
    watch_seconds: float | None = None
    logs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    cut_logs: list[int] = field(default_factory=list)
    most_watches: int = 0

    def __post_init__(self) -> None:
        self._pods: dict[str, dict[str, Any]] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._config_maps: dict[str, dict[str, Any]] = {}
        self._secrets: dict[str, dict[str, Any]] = {}
        self._created = 0
        self._version = 1
        self._oldest = 0
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._watches: list[tuple[web.Request, asyncio.Event]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def kubeconfig(self) -> dict[str, Any]:
        """How it is reached."""
        return {
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}],
            "users": [{"name": "fake", "user": {"token": self.token} if self.token else {}}],
        }

    @property
    def connections(self) -> int:
        """How many connections are open."""
        assert self._runner
        assert self._runner.server
        return len(self._runner.server.connections)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def count(self, kind: str) -> int:
        """How many requests of a kind there were."""
        return sum(each.kind == kind for each in self.asked)

    def put_pod(self, pod: dict[str, Any]) -> None:
        """Add or change a pod; watches tell."""
        name = pod["metadata"]["name"]
        self._happened("MODIFIED" if name in self._pods else "ADDED", pod)
        self._pods[name] = pod

    def delete_pod(self, name: str) -> None:
        """Delete a pod; watches tell."""
        self._happened("DELETED", self._pods.pop(name))

    def put_job(self, job: dict[str, Any]) -> None:
        """Add or change a Job."""
        self._jobs[job["metadata"]["name"]] = copy.deepcopy(job)

    def delete_job(self, name: str) -> None:
        """Delete a Job."""
        del self._jobs[name]

    def things(self, resource: str) -> dict[str, dict[str, Any]]:
        """What there is of ``pods``, ``jobs``, ``configmaps`` or ``secrets``, by name."""
        return dict(self._things(resource))

    def annotations(self, name: str) -> dict[str, str]:
        """The annotations of a Job."""
        return dict(self._jobs[name]["metadata"].get("annotations") or {})

    def cut(self) -> None:
        """Cut the connections of all watches."""
        for request, _ in self._watches:
            if request.transport:
                request.transport.abort()

    def forget(self) -> None:
        """Forget what has happened so far: to go on from there is answered with 410."""
        self._version += 1
        self._oldest = self._version

    def _happened(self, kind: str, pod: dict[str, Any]) -> None:
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, {"type": kind, "object": json.loads(json.dumps(pod))}))
        for _, news in list(self._watches):
            assert self._loop
            self._loop.call_soon_threadsafe(news.set)

    def _things(self, resource: str) -> dict[str, dict[str, Any]]:
        return {"pods": self._pods, "jobs": self._jobs, "configmaps": self._config_maps, "secrets": self._secrets}[
            resource
        ]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        namespace, resource, *rest = parts[parts.index("namespaces") + 1 :]
        if request.method in ("POST", "DELETE"):
            kind = f"{'create' if request.method == 'POST' else 'delete'} {resource}"
        elif request.method == "PATCH":
            kind = "patch"
        elif rest:
            kind = "log" if resource == "pods" else "read"
        elif resource == "jobs":
            kind = "jobs"
        else:
            kind = "watch" if request.query.get("watch") in ("true", "True") else "pods"
        body = await request.json() if request.can_read_body else None
        asked = Asked(kind, dict(request.query), request.path, body)
        self.asked.append(asked)
        known = not self.token or request.headers.get("Authorization") == f"Bearer {self.token}"
        status = self.status(asked) if known else 401
        if status:
            return _refused(status, "Refused", self.message or f"{kind} refused")
        if kind == "watch":
            return await self._watch(request)
        if kind == "log":
            return await self._log(request)
        if kind.startswith("create"):
            return self._create(resource, namespace, body or {})
        if rest:
            return self._one(request, resource, namespace, rest[0], body or {})
        wanted = dict(each.split("=") for each in request.query.get("labelSelector", "").split(",") if each)
        items = [
            each
            for each in self._things(resource).values()
            if self._is_in(namespace, each) and wanted.items() <= (each["metadata"].get("labels") or {}).items()
        ]
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    def _is_in(self, namespace: str, thing: Mapping[str, Any]) -> bool:
        return bool(thing["metadata"].get("namespace", self.namespace) == namespace)

    def _create(self, resource: str, namespace: str, body: dict[str, Any]) -> web.StreamResponse:
        if namespace not in (self.namespace, *self.others):
            return _refused(404, "NotFound", f'namespaces "{namespace}" not found')
        things, name = self._things(resource), body["metadata"]["name"]
        if name in things:
            return _refused(409, "AlreadyExists", f'{resource} "{name}" already exists')
        self._created += 1
        its = {"namespace": namespace, "uid": f"created-{self._created}", "creationTimestamp": _now()}
        # A copy: what is patched later is not what was asked for.
        things[name] = {**copy.deepcopy(body), "metadata": {**body["metadata"], **its}}
        return web.json_response(things[name], status=201)

    def _one(
        self, request: web.Request, resource: str, namespace: str, name: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        """Read, patch or delete one thing."""
        thing = self._things(resource).get(name)
        if thing is None or not self._is_in(namespace, thing):
            return _refused(404, "NotFound", f'{resource} "{name}" not found')
        asked = body.get("preconditions") if request.method == "DELETE" else body.get("metadata")
        uid, its = (asked or {}).get("uid"), thing["metadata"].get("uid")
        if uid and uid != its:
            text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {its}"
            return _refused(409, "Conflict", text)
        if request.method == "DELETE":
            self._delete(resource, name, background=body.get("propagationPolicy") == "Background")
        elif request.method == "PATCH":
            if not request.content_type.endswith("merge-patch+json"):
                return _refused(415, "UnsupportedMediaType", f"no merge: {request.content_type}")
            _merge(thing, body)
        return web.json_response(thing)

    def _delete(self, resource: str, name: str, *, background: bool) -> None:
        uid = self._things(resource).pop(name)["metadata"].get("uid")
        if not background:  # then batch/v1 leaves what a Job owned
            return
        for kind in ("configmaps", "secrets", "pods"):
            for each, thing in self.things(kind).items():
                owners = thing["metadata"].get("ownerReferences") or []
                if uid not in [owner.get("uid") for owner in owners]:
                    continue
                if kind == "pods":
                    self.delete_pod(each)
                else:
                    del self._things(kind)[each]

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        news = asyncio.Event()
        self._watches.append((request, news))
        self.most_watches = max(self.most_watches, self.watches)
        seen = int(request.query["resourceVersion"])
        loop = asyncio.get_running_loop()
        seconds = self.watch_seconds
        end = loop.time() + (float(request.query["timeoutSeconds"]) if seconds is None else seconds)
        try:
            if seen < self._oldest:
                gone = {"code": 410, "reason": "Expired", "message": "too old resource version"}
                await response.write(_line({"type": "ERROR", "object": gone}))
                return response
            while loop.time() < end:
                news.clear()
                for version, event in self._events:
                    if version > seen:
                        seen = version
                        await response.write(_line(event))
                try:
                    await asyncio.wait_for(news.wait(), max(end - loop.time(), 0))
                except TimeoutError:
                    break
            return response
        finally:
            self._watches = [each for each in self._watches if each[1] is not news]

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = request.path.split("/")[-2]
        log = self.logs.get((pod, request.query["container"]))
        if log is None:
            return _refused(404, "NotFound", "not found")
        if tail := request.query.get("tailLines"):
            log = b"".join(log.splitlines(keepends=True)[-int(tail) :])
        response = web.StreamResponse()
        await response.prepare(request)
        if not self.cut_logs:
            await response.write(log)
            return response
        await response.write(log[: self.cut_logs.pop(0)])
        await asyncio.sleep(0.05)
        assert request.transport
        request.transport.abort()
        return response


@asynccontextmanager
async def fake_kubernetes() -> AsyncIterator[FakeKubernetes]:
    """The API while it runs."""
    fake = FakeKubernetes()
    fake._loop = asyncio.get_running_loop()
    app = web.Application()
    for method in ("GET", "POST", "PATCH", "DELETE"):
        app.router.add_route(method, "/{path:.*}", fake._answer)
    runner = fake._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake._port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        await runner.cleanup()


@contextmanager
def fake_kubernetes_in_a_thread() -> Iterator[FakeKubernetes]:
    """The same, for tests that wait for its answers in their own thread."""
    ready: Future[tuple[FakeKubernetes, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        over = asyncio.Event()
        async with fake_kubernetes() as fake:
            ready.set_result((fake, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fake-kubernetes", daemon=True)
    thread.start()
    fake, loop, over = ready.result(20)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)


def _refused(status: int, reason: str, message: str) -> web.Response:
    said = {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": message}
    return web.json_response(said, status=status)


def _merge(thing: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping):
            if not isinstance(thing.get(key), dict):
                thing[key] = {}
            _merge(thing[key], value)
        elif value is None:
            thing.pop(key, None)
        else:
            thing[key] = value


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # whole seconds, as the API has them


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"
