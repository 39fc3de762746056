"""The containers' logs, line by line as they are written, each line once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.cluster.reading import container_states
from airflow_provider_kitops.cluster.text import plain
from airflow_provider_kitops.triggers._connection import said_in
from airflow_provider_kitops.workload.mounts import WORK
from airflow_provider_kitops.workload.progress import WorkloadProgress, parse_progress

if TYPE_CHECKING:
    from airflow_provider_kitops.triggers._connection import ClusterConnection

log = logging.getLogger(__name__)

_CONNECT_SECONDS, _SILENCE_SECONDS = 30, 300  # after so long without a byte the line is asked for anew
_LINE_LIMIT = 16 * 1024  # characters; a longer line is shown in pieces
_PROGRESS_SECONDS = 10.0  # between two lines of progress
_AGAIN_SECONDS, _LONGEST_WAIT = 1.0, 30.0  # before a log is asked for again
_TRIES = 5  # with credentials that are refused
CLOCKS_APART = 60.0  # seconds that a node's clock may be before ours; what is read again for it is not written again

# All tasks that wait share one process: a container that writes more than so many lines in so long is cut short, but
# for its last lines. A long line counts for several.
_LINES, _LINES_SECONDS, _LINE_CHARACTERS = 10_000, 60.0, 250
_LAST_LINES = 200
_LINES_AT_ONCE = 200  # before others have their turn
_TAIL_SECONDS = 5.0  # for the last lines of a log that could not be read in time


class Logs:
    """Follows every container of a Job's pods.

    :param cluster: how it is reached.
    :param namespace: the pods' namespace.
    :param write: gets each line.
    :param since: lines up to then have been written before.
    """

    def __init__(
        self, cluster: ClusterConnection, namespace: str, write: Callable[[str], None], since: datetime | None = None
    ) -> None:
        self.cluster, self.namespace, self.since = cluster, namespace, since
        self._write = write
        #: The last line's time.
        self.until = since
        #: The last progress that a program told.
        self.progress: WorkloadProgress | None = None
        self._told, self._last = 0.0, ""
        self._pods: dict[str, dict[str, Any]] = {}
        self._following: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._bounded: dict[str, _Bounded] = {}

    def write(self, line: str) -> None:
        """Write a line."""
        self._write(plain(line))

    def see(self, pods: dict[str, dict[str, Any]]) -> None:
        """Follow what has begun to run."""
        self._pods = pods
        for name, pod in pods.items():
            for container, state in container_states(pod):
                if ("running" in state or "terminated" in state) and (name, container) not in self._following:
                    follow = self._follow(name, container)
                    self._following[name, container] = asyncio.create_task(follow)

    async def finish(self, seconds: float, *, running: bool = False) -> None:
        """Read what is left, but no longer than ``seconds``.

        :param running: whether containers may still run, so that no log is expected to come to its end.
        """
        tasks = list(self._following.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            await self.stop()
            if late and not running:
                self.write("(the rest of the log could not be read in time)")
                await asyncio.gather(*(self._tail(*key) for key, task in self._following.items() if task in late))
        self._tell(final=True)

    async def stop(self) -> None:
        """Stop reading."""
        for task in self._following.values():
            task.cancel()
        await asyncio.gather(*self._following.values(), return_exceptions=True)

    async def _follow(self, pod: str, container: str) -> None:
        try:
            await self._read(pod, container)
            if container == WORK:
                self._tell(final=True)  # ahead of what the next container says
        finally:
            self._bound(container).flush()

    async def _read(self, pod: str, container: str) -> None:
        from aiohttp import ClientError
        from kubernetes_asyncio.client import ApiException

        seen = self._seen[pod, container] = _Seen(self.since)
        wait, refused = _AGAIN_SECONDS, 0
        while True:
            ended = self._ended(pod, container)  # known before it is read: then all that it wrote is in the answer
            try:
                seen.again()
                async with aclosing(self._lines(pod, container, seen.last, follow=not ended)) as lines:
                    async for line, goes_on in lines:
                        if seen.new(line, goes_on=goes_on):
                            wait = _AGAIN_SECONDS
                            self._line(container, seen.text)
                            if seen.last and (self.until is None or seen.last > self.until):
                                self.until = seen.last
                if ended:
                    return
            except ApiException as error:
                if error.status == 404:
                    return  # the pod is gone, and with it whatever it had left to say
                # Credentials may have been renewed: those of 401 are read anew.
                refused = refused + 1 if error.status == 401 else 0
                if error.status == 403 or refused > _TRIES:
                    self.write(f"(the log of {container} may not be read: {error.reason})")
                    return
            except (ClientError, TimeoutError, OSError) as error:
                log.debug("The log of %s in %s was cut: %s", container, pod, error)
            except Exception as error:  # noqa: BLE001 - credentials that cannot be had now, for one
                log.warning("The log of %s in %s cannot be read: %s", container, pod, error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _tail(self, pod: str, container: str) -> None:
        """Read the last lines of a log that is too long, or too slow, to be read to its end."""
        seen, last = self._seen.get((pod, container), _Seen(self.since)), self._bound(container)
        seen.again()
        last.only_last()
        with suppress(Exception):  # that the rest is missing has been told
            async with asyncio.timeout(_TAIL_SECONDS):
                async with aclosing(self._lines(pod, container, None, follow=False, tail=_LAST_LINES)) as lines:
                    async for line, goes_on in lines:
                        if seen.new(line, goes_on=goes_on):
                            self._line(container, seen.text)
        last.flush()

    async def _lines(
        self, pod: str, container: str, since: datetime | None, *, follow: bool, tail: int | None = None
    ) -> AsyncGenerator[tuple[str, bool], None]:
        """The log's lines, each with whether it goes on with the one before: a long one comes in pieces."""
        from kubernetes_asyncio import client

        more: dict[str, Any] = {}
        if tail is not None:
            more["tail_lines"] = tail
        if since is not None:
            # By the node's clock, which need not be ours.
            begin = since - timedelta(seconds=CLOCKS_APART)
            more["since_seconds"] = max(1, int((datetime.now(UTC) - begin).total_seconds()))
        async with self.cluster.open() as connection:
            answer: Any = await client.CoreV1Api(connection).read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=follow,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
                **more,
            )
            if answer.status >= 400:
                raise client.ApiException(status=answer.status, reason=await said_in(answer))
            rest, goes_on = b"", False
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for number, line in enumerate(lines, 1):
                    yield line.decode(errors="replace"), goes_on
                    goes_on = False
                    if number % _LINES_AT_ONCE == 0:
                        await asyncio.sleep(0)
                if len(rest) > _LINE_LIMIT * 4:
                    piece, rest = _cut(rest)
                    yield piece.decode(errors="replace"), goes_on
                    goes_on = True
                await asyncio.sleep(0)  # the next chunk may be there already
            if rest:
                yield rest.decode(errors="replace"), goes_on

    def _ended(self, pod: str, container: str) -> bool:
        found = self._pods.get(pod)
        if found is None or found.get("deleted"):
            return True
        return "terminated" in dict(container_states(found)).get(container, {})

    def _line(self, container: str, text: str) -> None:
        # Programs that draw a bar write over the line again and again: its last state says it all.
        text = text.rstrip("\r").rpartition("\r")[2]
        progress = parse_progress(text)
        if progress is not None:
            self.progress = progress
            self._tell()
            return
        for begin in range(0, max(len(text), 1), _LINE_LIMIT):
            self._bound(container).line(f"[{container}] {text[begin : begin + _LINE_LIMIT]}")

    def _bound(self, container: str) -> _Bounded:
        if container not in self._bounded:
            self._bounded[container] = _Bounded(container, self.write)
        return self._bounded[container]

    def _tell(self, *, final: bool = False) -> None:
        if self.progress is None:
            return
        text, now = str(self.progress), time.monotonic()
        if (final and text != self._last) or (not final and now - self._told >= _PROGRESS_SECONDS):
            self._told, self._last = now, text
            self.write(f"[work] {text}")


class _Bounded:
    """The lines of one container: all, but of a flood the first and the last ones only.

    :param write: gets them.
    """

    def __init__(self, container: str, write: Callable[[str], None]) -> None:
        self._container, self._write = container, write
        self._begin, self._room = -_LINES_SECONDS, 0
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    def line(self, text: str) -> None:
        """Write a line, or hold it back."""
        now = time.monotonic()
        if not self._held and now - self._begin >= _LINES_SECONDS:
            self._begin, self._room = now, _LINES
        if self._room > 0:
            self._room -= 1 + len(text) // _LINE_CHARACTERS
            self._write(text)
            return
        if not self._held:  # whoever writes no more for now is to be seen to have
            left = self._begin + _LINES_SECONDS - now
            self._timer = asyncio.get_running_loop().call_later(max(left, 0.0), self.flush)
        self._held += 1
        self._last.append(text)

    def only_last(self) -> None:
        """From now on, hold all lines back until ``flush``."""
        self._begin, self._room = time.monotonic(), 0

    def flush(self) -> None:
        """Write the last lines that were held back, and how many there were before them."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not self._held:
            return
        left_out, last = self._held - len(self._last), list(self._last)
        self._held = 0
        self._last.clear()
        self._begin = -_LINES_SECONDS
        if left_out:
            self._write(f"({left_out} lines of {self._container} left out)")
        for each in last:
            self._write(each)


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """What there is of a line, without the beginning of a character at its end."""
    end = len(line)
    while end > len(line) - 4 and line[end - 1] & 0xC0 == 0x80:
        end -= 1
    if line[end - 1] >= 0xC0:
        end -= 1
    return line[:end], line[end:]


class _Seen:
    """Tells new lines from those that were read before a connection broke: by their times, to the nanosecond.

    :param since: what was written before then is not new.
    """

    def __init__(self, since: datetime | None) -> None:
        self.last = since
        self.text = ""
        self._stamp, self._same = "", 0  # the latest line's time, and how many lines had it
        self._until: tuple[datetime | None, str] = (since, "")
        self._skip = 0
        self._new = True

    def again(self) -> None:
        """The log is read anew: lines that were read may come again."""
        self._until, self._skip = (self.last, self._stamp), self._same

    def new(self, line: str, *, goes_on: bool = False) -> bool:
        """Whether the line is new; then ``text`` is what it says and ``last`` when it was written.

        :param goes_on: whether it goes on with the line before, and is as new.
        """
        stamp, _, text = line.partition(" ")
        when = None if goes_on else _time(stamp)
        if when is None:  # no time: a piece of a line, or what the node itself says
            self.text = line
            return self._new if goes_on else True
        self._new = self._is_new(when, stamp)
        if not self._new:
            return False
        self.text = text
        if self.last is None or when > self.last or (when == self.last and stamp > self._stamp):
            self.last, self._stamp, self._same = when, stamp, 1
        elif stamp == self._stamp:
            self._same += 1
        return True

    def _is_new(self, when: datetime, stamp: str) -> bool:
        time_until, stamp_until = self._until
        if time_until is None or when > time_until:
            return True
        if when < time_until or stamp < stamp_until:
            return False
        if stamp == stamp_until and self._skip:
            self._skip -= 1
            return False
        return True


def _time(stamp: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return when if when.tzinfo else None  # a number of eight digits is a date, but no time of the log's
