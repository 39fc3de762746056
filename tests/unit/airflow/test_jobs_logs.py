"""The containers' logs: each line once, whatever happens to the connection, and readable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

from airflow_provider_kitops.triggers import _logs
from airflow_provider_kitops.triggers._connection import ClusterConnection
from airflow_provider_kitops.triggers._logs import Logs, _cut, _Seen
from airflow_provider_kitops.workload.progress import WorkloadProgress
from tests.fake_kubernetes import FakeKubernetes, fake_kubernetes


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_logs, "_AGAIN_SECONDS", 0.02)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def stamp(nanoseconds: int, zone: str = "Z") -> str:
    """A time as a kubelet writes it: always nine digits."""
    return f"2026-11-21T20:00:{nanoseconds // 10**9:02}.{nanoseconds % 10**9:09}{zone}"


def log_of(*texts: str, begin: int = 0, step: int = 10**6) -> bytes:
    return b"".join(f"{stamp(begin + at * step)} {text}\n".encode() for at, text in enumerate(texts))


def new_lines(seen: _Seen, *lines: str) -> list[str]:
    return [seen.text for line in lines if seen.new(line)]


class TestSeen:
    def test_lines_are_new_once(self) -> None:
        seen = _Seen(None)
        lines = [f"{stamp(at)} line {at}" for at in range(5)]
        assert new_lines(seen, *lines) == [f"line {at}" for at in range(5)]
        seen.again()
        assert new_lines(seen, *lines, f"{stamp(5)} line 5") == ["line 5"]

    def test_a_nanosecond_makes_a_difference(self) -> None:
        seen = _Seen(None)
        assert new_lines(seen, f"{stamp(1000)} a", f"{stamp(1001)} b") == ["a", "b"]
        seen.again()
        assert new_lines(seen, f"{stamp(1000)} a", f"{stamp(1001)} b", f"{stamp(1002)} c") == ["c"]

    def test_lines_of_one_time_are_different_lines(self) -> None:
        seen = _Seen(None)
        first = [f"{stamp(7)} {text}" for text in ("a", "a", "b")]
        assert new_lines(seen, *first) == ["a", "a", "b"]
        seen.again()
        assert new_lines(seen, *first, f"{stamp(7)} c") == ["c"]
        seen.again()
        assert new_lines(seen, *first, f"{stamp(7)} c", f"{stamp(8)} d") == ["d"]

    def test_a_clock_that_goes_back_loses_no_line(self) -> None:
        seen = _Seen(None)
        lines = [f"{stamp(at)} {at}" for at in (10**9, 2 * 10**9, 10**9 + 5, 3 * 10**9)]
        assert len(new_lines(seen, *lines)) == 4
        seen.again()
        assert new_lines(seen, *lines) == []

    def test_what_an_earlier_process_wrote_is_not_new(self) -> None:
        seen = _Seen(datetime(2026, 11, 21, 20, 0, 2, tzinfo=UTC))
        seen.again()
        lines = [f"{stamp(second * 10**9)} {second}" for second in (1, 2, 3)]
        assert new_lines(seen, *lines) == ["2", "3"]

    @pytest.mark.parametrize("zone", ["Z", "+00:00", "+02:00"])
    def test_a_node_has_a_time_zone(self, zone: str) -> None:
        seen = _Seen(None)
        assert new_lines(seen, f"{stamp(0, zone)} a", f"{stamp(1, zone)} b") == ["a", "b"]
        assert seen.last is not None
        assert seen.last.utcoffset() is not None

    @pytest.mark.parametrize("line", ["", "no time", "20261121 rows", "2026-11-21 is a day", "2026-11-21T20:00:00 x"])
    def test_what_has_no_time_is_shown_as_it_is(self, line: str) -> None:
        seen = _Seen(datetime(2026, 11, 21, tzinfo=UTC))
        assert new_lines(seen, f"{stamp(5)} a", line) == ["a", line]
        assert seen.last == datetime.fromisoformat(stamp(5))

    def test_a_piece_is_as_new_as_its_line(self) -> None:
        seen = _Seen(None)

        def read() -> list[str]:
            return [
                seen.text
                for line, goes_on in ((f"{stamp(1)} begin", False), (f"{stamp(0)} middle", True), ("end", True))
                if seen.new(line, goes_on=goes_on)
            ]

        assert read() == ["begin", f"{stamp(0)} middle", "end"]
        seen.again()
        assert read() == []


@pytest.mark.parametrize("text", ["a", "aé", "a€", "a😀", "é", "€é", "aéb"])
def test_a_line_is_cut_between_characters(text: str) -> None:
    line = text.encode()
    for end in range(1, len(line) + 1):
        piece, rest = _cut(line[:end])
        assert piece + rest == line[:end]
        assert text.startswith(piece.decode())
        assert len(rest) <= 4


def unconnected(write: Callable[[str], None]) -> Logs:
    return Logs(ClusterConnection(lambda: AsyncKubernetesHook(conn_id=None, config_dict={"x": 1})), "models", write)


class TestLine:
    def written(self, *texts: str) -> list[str]:
        lines: list[str] = []
        logs = unconnected(lines.append)
        for text in texts:
            logs._line("work", text)
        return lines

    def test_a_line_says_who_wrote_it(self) -> None:
        assert self.written("hello", "") == ["[work] hello", "[work] "]

    def test_a_long_line_is_written_in_pieces(self) -> None:
        text = "".join(chr(97 + at % 26) for at in range(40_000))
        pieces = self.written(text)
        assert len(pieces) == 3
        assert "".join(piece.removeprefix("[work] ") for piece in pieces) == text
        assert max(map(len, pieces)) <= 16 * 1024 + len("[work] ")

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (" 10%|#   \r 50%|##  \r100%|####", "100%|####"),
            (" 10%|#   \r 50%|##  \r", " 50%|##  "),
            ("\r", ""),
            ("plain\r", "plain"),
        ],
    )
    def test_of_a_bar_its_last_state_is_shown(self, text: str, shown: str) -> None:
        assert self.written(text) == [f"[work] {shown}"]

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("::group::Pre Execute", "\ufffdgroup::Pre Execute"),
            ("x ::endgroup::", "x \ufffdendgroup::"),
            (":::group::endgroup::", ":\ufffdgroup\ufffdendgroup::"),
            ("::gr\x1b[0moup::", "\ufffdgroup::"),
            ("std::group::by", "std\ufffdgroup::by"),
            ("std::group a::b", "std::group a::b"),
            ("a\x00b\x07\x9b2J\u202ec", "a\ufffdb\ufffd\ufffd2J\ufffdc"),
            ("\x1b]8;;http://x\x07link", "\ufffd]8;;http://x\ufffdlink"),
            ("\x1b[1;32mgreen\x1b[0m", "green"),
            ("\x1b[2Ja", "\ufffd[2Ja"),
            ("a\tb é€😀", "a\tb é€😀"),
        ],
    )
    def test_what_misleads_whoever_reads_it_is_replaced(self, text: str, shown: str) -> None:
        assert self.written(text) == [f"[work] {shown}"]

    def test_progress_is_told_now_and_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 1000.0
        monkeypatch.setattr(_logs.time, "monotonic", lambda: now)
        lines: list[str] = []
        logs = unconnected(lines.append)
        for step in range(25):
            logs._line("work", WorkloadProgress("train", step, 60).to_line())
            now += 1.0
        assert lines == ["[work] train 0/60", "[work] train 10/60", "[work] train 20/60"]
        assert logs.progress == WorkloadProgress("train", 24, 60)
        logs._tell(final=True)
        logs._tell(final=True)
        assert lines[3:] == ["[work] train 24/60"]

    def test_progress_behind_a_bar_is_progress(self) -> None:
        line = WorkloadProgress("train", 1, 2).to_line()
        assert self.written(f" 50%|##  \r{line}") == ["[work] train 1/2"]


def test_the_last_progress_is_told_when_the_program_has_ended() -> None:
    told = [WorkloadProgress("train", step, 2).to_line() for step in (1, 2)]

    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.logs["p", "work"] = log_of(*told)
        logs.see(pods_of(work="terminated"))
        while len(lines) < 2:
            await asyncio.sleep(0.01)
        fake.logs["p", "publish"] = log_of("published")
        logs.see(pods_of(work="terminated", publish="terminated"))
        await logs.finish(30)

    assert on_a_fake(test) == ["[work] train 1/2", "[work] train 2/2", "[publish] published"]


class TestFlood:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_logs, "_LINES", 1000)
        monkeypatch.setattr(_logs, "_LINES_SECONDS", 600.0)

    def test_of_a_flood_the_first_and_the_last_lines_are_written(self) -> None:
        told = WorkloadProgress("train", 1, 2)

        async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
            texts = [*map(str, range(30_000)), told.to_line(), "ValueError: this is why"]
            fake.logs["p", "work"] = log_of(*texts, step=1000)
            fake.logs["p", "fetch"] = log_of("fetched")
            logs.see(pods_of(fetch="terminated", work="terminated"))
            await logs.finish(30)
            assert logs.progress == told

        lines = on_a_fake(test)
        assert lines.count("[fetch] fetched") == lines.count("[work] train 1/2") == 1
        rest = [line for line in lines if line not in ("[fetch] fetched", "[work] train 1/2")]
        assert rest[:1000] == [f"[work] {number}" for number in range(1000)]
        assert rest[1000] == "(28801 lines of work left out)"
        assert rest[1001:] == [
            *(f"[work] {number}" for number in range(29_801, 30_000)),
            "[work] ValueError: this is why",
        ]

    def test_others_have_their_turn(self) -> None:
        turn, turns = 0, []

        async def others() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        async def run() -> None:
            async with fake_kubernetes() as fake:
                cluster = ClusterConnection(lambda: AsyncKubernetesHook(conn_id=None, config_dict=fake.kubeconfig))
                logs = Logs(cluster, fake.namespace, lambda line: turns.append(turn))
                fake.logs["p", "work"] = log_of(*map(str, range(20_000)))
                other = asyncio.create_task(others())
                logs.see(pods_of(work="terminated"))
                await logs.finish(30)
                other.cancel()

        asyncio.run(run())
        assert max(turns.count(each) for each in set(turns)) <= 2 * _logs._LINES_AT_ONCE

    def test_whoever_writes_no_more_is_seen_to_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_logs, "_LINES_SECONDS", 0.5)
        lines: list[str] = []

        async def run() -> None:
            logs = unconnected(lines.append)
            for number in range(2000):
                logs._line("work", str(number))
            assert len(lines) == 1000
            await asyncio.sleep(1)
            assert (len(lines), lines[-1]) == (1201, "[work] 1999")
            logs._line("work", "and on")
            assert lines[-1] == "[work] and on"

        asyncio.run(run())
        assert lines[1000] == "(800 lines of work left out)"

    def test_long_lines_are_a_flood_too(self) -> None:
        lines: list[str] = []

        async def run() -> None:
            logs = unconnected(lines.append)
            for _ in range(1000):
                logs._line("work", "x" * 10_000)
            await logs.stop()

        asyncio.run(run())
        assert sum(map(len, lines)) < 10**6

    def test_whoever_is_cancelled_writes_what_was_held_back(self) -> None:
        async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
            fake.logs["p", "work"] = log_of(*map(str, range(1500)))
            logs.see(pods_of(work="running"))
            while len(lines) < 1000:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            await logs.stop()
            await logs.stop()

        lines = on_a_fake(test)
        assert lines[1000:] == ["(300 lines of work left out)", *(f"[work] {number}" for number in range(1300, 1500))]

    def test_of_a_log_that_cannot_be_read_in_time_the_last_lines_are(self) -> None:
        async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
            fake.logs["p", "work"] = log_of(*map(str, range(500)))
            fake.status = lambda asked: None if "tailLines" in asked.query else 500
            logs.see(pods_of(work="terminated"))
            await logs.finish(0.3)

        lines = on_a_fake(test)
        told = "(the rest of the log could not be read in time)"
        assert lines == [told, *(f"[work] {number}" for number in range(300, 500))]


def pods_of(name: str = "p", **states: str) -> dict[str, Any]:
    statuses = [{"name": container, "state": {kind: {}}} for container, kind in states.items()]
    pod = {"metadata": {"name": name}, "status": {"containerStatuses": statuses}, "deleted": False}
    return {name: pod}


def on_a_fake(
    test: Callable[[FakeKubernetes, Logs, list[str]], Awaitable[None]], since: datetime | None = None
) -> list[str]:
    lines: list[str] = []

    async def run() -> None:
        async with fake_kubernetes() as fake:
            cluster = ClusterConnection(lambda: AsyncKubernetesHook(conn_id=None, config_dict=fake.kubeconfig))
            logs = Logs(cluster, fake.namespace, lines.append, since)
            try:
                await asyncio.wait_for(test(fake, logs, lines), 30)
            finally:
                await logs.stop()

    asyncio.run(run())
    return lines


def test_every_container_that_has_begun_is_followed() -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.logs = {("p", "fetch"): log_of("fetched"), ("p", "work"): log_of("working", "ended", begin=10**9)}
        logs.see(pods_of(fetch="terminated", work="waiting", publish="waiting"))
        await logs.finish(10)
        assert lines == ["[fetch] fetched"]
        logs.see(pods_of(fetch="terminated", work="terminated", publish="waiting"))
        await logs.finish(10)
        assert logs.until == datetime.fromisoformat(stamp(10**9 + 10**6))

    assert on_a_fake(test) == ["[fetch] fetched", "[work] working", "[work] ended"]


def test_each_line_is_written_once_however_often_the_connection_is_cut() -> None:
    texts = [f"line {at}: é€😀" for at in range(200)]

    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        log = fake.logs["p", "work"] = log_of(*texts, step=1)
        fake.cut_logs = [len(log) // 7 * part for part in range(1, 7)]
        logs.see(pods_of(work="running"))
        while fake.cut_logs:
            await asyncio.sleep(0.01)
        logs.see(pods_of(work="terminated"))
        await logs.finish(10)
        assert fake.count("log") >= 7
        assert all("sinceSeconds" in each.query for each in fake.asked[1:])
        assert all(int(each.query["sinceSeconds"]) >= _logs.CLOCKS_APART for each in fake.asked[1:])

    assert on_a_fake(test) == [f"[work] {text}" for text in texts]


def test_a_very_long_line_is_written_once_too() -> None:
    text = "".join(chr(0x20AC + at % 7) for at in range(100_000))

    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.logs["p", "work"] = log_of("before", text, "after", "more")
        logs.see(pods_of(work="running"))
        while len(lines) < 4 or lines[-1] != "[work] more":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # read again and again, for it is said to run
        logs.see(pods_of(work="terminated"))
        await logs.finish(10)
        assert fake.count("log") >= 2

    lines = on_a_fake(test)
    assert lines[0] == "[work] before"
    assert lines[-2:] == ["[work] after", "[work] more"]
    assert "".join(line.removeprefix("[work] ") for line in lines[1:-2]) == text


def test_lines_that_an_earlier_process_wrote_are_left_out() -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.logs["p", "work"] = log_of("one", "two", "three", step=10**9)
        logs.see(pods_of(work="terminated"))
        await logs.finish(10)

    assert on_a_fake(test, datetime.fromisoformat(stamp(1500 * 10**6))) == ["[work] three"]


def test_a_log_that_may_not_be_read_is_told_once() -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.status = lambda asked: 403
        for _ in range(3):
            logs.see(pods_of(work="running"))
        await logs.finish(10)

    assert on_a_fake(test) == ["(the log of work may not be read: log refused)"]


def test_what_forbids_a_log_is_told_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    account = "system:serviceaccount:airflow-of-the-team:airflow-of-the-team-triggerer"
    said = f'pods "{"fine-tune-" * 6}" is forbidden: User "{account}" cannot get resource "pods/log"'
    said += f' in API group "" in the namespace "{"models-" * 9}": no access'

    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        monkeypatch.setattr(fake, "message", said)
        fake.status = lambda asked: 403
        logs.see(pods_of(work="running"))
        await logs.finish(10)

    assert on_a_fake(test) == [f"(the log of work may not be read: {said})"]


def test_credentials_that_were_renewed_are_read_anew() -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.logs["p", "work"] = log_of("here")
        fake.token = "another"
        logs.see(pods_of(work="terminated"))
        await logs.finish(10)
        assert fake.count("log") == 2

    assert on_a_fake(test) == ["[work] here"]


def test_credentials_that_stay_refused_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_logs, "_LONGEST_WAIT", 0.02)

    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.status = lambda asked: 401
        logs.see(pods_of(work="running"))
        await logs.finish(10)

    (line,) = on_a_fake(test)
    assert line.startswith("(the log of work may not be read: ")


def test_the_log_of_a_pod_that_is_gone_ends() -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        logs.see(pods_of(work="running"))
        await logs.finish(10)
        assert fake.count("log") == 1

    assert on_a_fake(test) == []


@pytest.mark.parametrize("status", [400, 500, 503])
def test_a_log_that_cannot_be_had_now_is_asked_for_again(status: int) -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.logs["p", "work"] = log_of("here")
        fake.status = lambda asked: status if fake.count("log") < 3 else None
        logs.see(pods_of(work="terminated"))
        await logs.finish(10)

    assert on_a_fake(test) == ["[work] here"]


def test_the_rest_of_a_log_is_not_waited_for_without_end() -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.status = lambda asked: 500
        logs.see(pods_of(work="terminated"))
        await logs.finish(0.3)
        assert not any(task.get_coro().__qualname__ == "Logs._follow" for task in asyncio.all_tasks())  # type: ignore[union-attr]

    assert on_a_fake(test) == ["(the rest of the log could not be read in time)"]


def test_a_log_that_goes_on_is_left_without_a_word() -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        fake.logs["p", "work"] = log_of("here")
        logs.see(pods_of(work="running"))
        await logs.finish(0.3, running=True)

    assert on_a_fake(test) == ["[work] here"]


def test_credentials_that_cannot_be_had_now_end_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(fake: FakeKubernetes, logs: Logs, lines: list[str]) -> None:
        usual, failures = logs.cluster.hook.get_conn, iter(range(2))

        def get_conn() -> Any:
            if next(failures, None) is not None:
                raise RuntimeError("no token")
            return usual()

        monkeypatch.setattr(logs.cluster.hook, "get_conn", get_conn)
        fake.logs["p", "work"] = log_of("here")
        logs.see(pods_of(work="terminated"))
        await logs.finish(10)

    assert on_a_fake(test) == ["[work] here"]
