"""A small part of a Kubernetes API on the loopback interface, for what a real one cannot be made to do on demand.

It lists and watches pods, lists Jobs, changes their annotations and serves logs, of one namespace, and can cut
connections, forget versions, change its token and answer with errors. It leaves out: all other verbs and kinds, any
other authentication, TLS, label selectors other than equality, bookmarks, paging, and ``sinceSeconds``: a log always
comes from its beginning. Nothing runs: pods and Jobs are what the test says they are. The real one is in
``tests/cluster``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Asked:
    """A request.

    :param kind: ``pods``, ``watch``, ``jobs``, ``patch`` (of a Job) or ``log``.
    """

    kind: str
    query: dict[str, str]


@dataclass
class FakeKubernetes:
    """The API. Tests change what is there by its methods, and how it answers by its fields.

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
        self._version = 1
        self._oldest = 0
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._watches: list[tuple[web.Request, asyncio.Event]] = []
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
        self._jobs[job["metadata"]["name"]] = job

    def delete_job(self, name: str) -> None:
        """Delete a Job."""
        del self._jobs[name]

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
        for _, news in self._watches:
            news.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "PATCH":
            kind = "patch"
        elif request.path.endswith("/log"):
            kind = "log"
        elif request.path.endswith("/jobs"):
            kind = "jobs"
        else:
            kind = "watch" if request.query.get("watch") in ("true", "True") else "pods"
        asked = Asked(kind, dict(request.query))
        self.asked.append(asked)
        known = not self.token or request.headers.get("Authorization") == f"Bearer {self.token}"
        status = self.status(asked) if known else 401
        if status:
            said = {"kind": "Status", "code": status, "reason": "Refused", "message": self.message or f"{kind} refused"}
            return web.json_response(said, status=status)
        if kind == "patch":
            return await self._patch(request)
        if kind == "watch":
            return await self._watch(request)
        if kind == "log":
            return await self._log(request)
        things = self._jobs if kind == "jobs" else self._pods
        wanted = dict(each.split("=") for each in request.query.get("labelSelector", "").split(",") if each)
        items = [each for each in things.values() if wanted.items() <= each["metadata"].get("labels", {}).items()]
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        job = self._jobs.get(request.path.split("/")[-1])
        if job is None:
            return web.json_response({"code": 404, "message": "not found"}, status=404)
        metadata = (await request.json())["metadata"]
        if metadata.get("uid", job["metadata"].get("uid")) != job["metadata"].get("uid"):
            return web.json_response({"code": 409, "message": "Precondition failed: UID in precondition"}, status=409)
        changed = {**(job["metadata"].get("annotations") or {}), **metadata.get("annotations", {})}
        job["metadata"]["annotations"] = changed
        return web.json_response(job)

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
            return web.json_response({"code": 404, "message": "not found"}, status=404)
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
    app = web.Application()
    for method in ("GET", "PATCH"):
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


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"
