"""Generations over several real workers and a real Redis, any of which may be killed. Nothing of it is silent."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.readers import TEXT
from support.servers import Running, redis_server, serving

pytestmark = pytest.mark.xdist_group("workers")  # one team, of which some tests kill a member

LEASE = 1.0  # of those that die
LONG_LEASE = 4.0  # of those that shall not, on a busy machine either
BUSY = 3.0  # seconds that a busy machine may add
COMPLETE = ("done", {"status": "complete"})


def lost(reason: str) -> tuple[str, dict[str, Any]]:
    return "error", {"status": "lost", "reason": reason, "retryable": True}


@contextmanager
def worker(redis_url: str, asked: Path, **settings: float) -> Iterator[Running]:
    env = {"REDIS_URL": redis_url, "ASKED": str(asked), "LEASE": str(LEASE)}
    env |= {name: str(value) for name, value in settings.items()}
    with serving("support.generation_app:app", args=["--timeout-graceful-shutdown", "1"], env=env) as running:
        yield running


class Team:
    """Redis, two workers that live as long as this module, and one that is easily had besides."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.asked_file = folder / "asked"
        self.asked_file.touch()
        self._again: subprocess.Popen[bytes] | None = None
        self.redis = stack.enter_context(redis_server())
        stack.callback(self.kill_redis)
        self.plain = stack.enter_context(worker(self.redis.url, self.asked_file, LEASE=LONG_LEASE, GRACE=2))
        self.heir = stack.enter_context(worker(self.redis.url, self.asked_file, LEASE=LONG_LEASE, TAKE_OVER=1))

    def kill_redis(self) -> None:
        process = self._again or self.redis.process
        process.kill()
        process.wait()

    def start_redis_again(self) -> None:
        """On the same port, and empty."""
        self._again = subprocess.Popen(self.redis.process.args, stdout=subprocess.DEVNULL)

    @property
    def asked(self) -> int:
        return len(self.asked_file.read_text())

    def victim(self, **settings: float) -> Any:
        return worker(self.redis.url, self.asked_file, **settings)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with ExitStack() as stack:
        yield Team(tmp_path_factory.mktemp("team"), stack)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        yield client


async def start(http: httpx.AsyncClient, at: Running, delay: float = 0.02) -> str:
    response = await http.post(f"{at.url}/answers", params={"delay": delay})
    key: str = response.raise_for_status().json()
    return key


class Browser:
    """An EventSource that is told which worker the proxy has chosen for it."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self._http, self._key = http, key
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self.heartbeats = 0
        self.status = 0

    @property
    def text(self) -> str:
        return "".join(data["text"] for name, data in self.events if name == "message")

    @property
    def over(self) -> bool:
        return bool(self.events) and self.events[-1][0] in ("done", "error")

    async def read(self, at: Running, *, until: int = 10**9) -> Browser:
        """Until so many events are here in all, or the connection ends."""
        headers = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
        try:
            async with self._http.stream("GET", f"{at.url}/answers/{self._key}", headers=headers) as response:
                self.status = response.status_code
                event: dict[str, str] = {}
                async for line in response.aiter_lines():
                    if line.startswith(":"):
                        self.heartbeats += 1
                    elif line:
                        name, _, value = line.partition(": ")
                        event[name] = value
                    elif "data" in event:
                        self.events.append((event.get("event", "message"), json.loads(event["data"])))
                        self.ids.append(event["id"])
                        event = {}
                        if len(self.events) >= until:
                            break
        except httpx.TransportError:
            pass  # it was cut off
        return self

    async def has(self, events: int) -> None:
        """Wait for so many, while somebody reads."""
        async with asyncio.timeout(30):
            while len(self.events) < events:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def exact(self) -> bool:
        numbers = [int(each.split(".")[1]) for each in self.ids]
        return self.text == TEXT and self.events[-1] == COMPLETE and numbers == list(range(1, len(numbers) + 1))


def begin(coroutine: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(coroutine)


async def within(seconds: float, reading: asyncio.Future[Any]) -> Any:
    return await asyncio.wait_for(reading, seconds)


async def logged(at: Running, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in at.log:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# Healthy


async def test_fourteen_forced_reconnects_over_two_workers(team: Team, http: httpx.AsyncClient) -> None:
    asked = team.asked
    key = await start(http, team.plain)
    browser, connections = Browser(http, key), 0
    while not browser.over:
        at = (team.heir, team.plain)[connections % 2]
        await browser.read(at, until=7 * (connections + 1) if connections < 14 else 10**9)
        connections += 1
    assert connections == 15
    assert browser.exact()
    assert team.asked == asked + 1
    for at in (team.plain, team.heir):
        assert (await browser.read(at)).status == 204
        assert (await Browser(http, key).read(at)).exact()
    assert team.asked == asked + 1


async def test_thirty_at_once_with_two_readers_each(team: Team, http: httpx.AsyncClient) -> None:
    keys = await asyncio.gather(*(start(http, (team.plain, team.heir)[n % 2]) for n in range(30)))
    browsers = await asyncio.gather(*(Browser(http, key).read(at) for key in keys for at in (team.plain, team.heir)))
    assert [browser.exact() for browser in browsers] == [True] * 60


async def test_answer_is_stopped_from_another_worker(team: Team, http: httpx.AsyncClient) -> None:
    key = await start(http, team.plain)
    reading = begin(Browser(http, key).read(team.heir))
    await asyncio.sleep(0.3)
    assert (await http.delete(f"{team.heir.url}/answers/{key}")).json() is True
    browser = await within(10, reading)
    assert browser.events[-1] == ("done", {"status": "cancelled"})
    assert TEXT.startswith(browser.text)
    assert browser.text != TEXT


# A worker dies


async def test_killed_worker_is_noticed_and_replaced(team: Team, http: httpx.AsyncClient) -> None:
    with team.victim() as victim:
        told, continued = [Browser(http, await start(http, victim, 0.05)) for _ in range(2)]
        reading = begin(told.read(team.plain)), begin(continued.read(team.heir))
        cut_off = await Browser(http, told._key).read(victim, until=5)
        for browser in (told, continued):
            await browser.has(20)
        victim.process.kill()
    await within(LEASE + 1 + BUSY, reading[0])
    assert told.events[-1] == lost("worker_lost")
    assert TEXT.startswith(told.text)
    await cut_off.read(team.plain)
    assert (cut_off.text, cut_off.events[-1]) == (told.text, told.events[-1])
    await within(20, reading[1])
    assert ("recovery", {"attempt": 2, "reason": "worker_lost"}) in continued.events
    assert continued.exact()


async def test_terminated_worker_finishes_in_its_time(team: Team, http: httpx.AsyncClient) -> None:
    with team.victim(SHUTDOWN=20) as victim:
        key = await start(http, victim, 0.04)  # 4 s
        there, elsewhere = Browser(http, key), Browser(http, key)
        reading = begin(there.read(victim)), begin(elsewhere.read(team.plain))
        await there.has(10)
        victim.process.terminate()
        await within(10, reading[0])
        assert not there.over  # cut off without a word, so that it comes back
        await there.read(team.plain)
        await reading[1]
        assert there.exact()
        assert elsewhere.exact()
        assert await asyncio.to_thread(victim.process.wait, 10) in (0, -signal.SIGTERM)


async def test_terminated_worker_hands_its_answer_on(team: Team, http: httpx.AsyncClient) -> None:
    with team.victim(SHUTDOWN=0.2, TAKE_OVER=1, LEASE=60) as victim:
        browser = Browser(http, await start(http, victim, 0.2))
        reading = begin(browser.read(team.heir))
        await browser.has(10)
        victim.process.terminate()
        await within(20, reading)  # the lease is over before its time
    assert browser.exact()
    assert ("recovery", {"attempt": 2, "reason": "worker_lost"}) in browser.events


async def test_terminated_worker_without_successor_states_the_end(team: Team, http: httpx.AsyncClient) -> None:
    with team.victim(SHUTDOWN=0.2) as victim:
        browser = Browser(http, await start(http, victim, 0.2))
        reading = begin(browser.read(team.plain))
        await browser.has(10)
        victim.process.terminate()
        await within(10, reading)
    assert browser.events[-1] == ("error", {"status": "interrupted", "reason": "server", "retryable": True})
    assert TEXT.startswith(browser.text)


async def test_frozen_worker_is_taken_over_and_fenced_off(team: Team, http: httpx.AsyncClient) -> None:
    with team.victim() as victim:
        key = await start(http, victim)
        browser = Browser(http, key)
        reading = begin(browser.read(team.heir))
        await browser.has(20)
        victim.process.send_signal(signal.SIGSTOP)
        before = len(browser.events)
        await browser.has(before + 10)  # somebody else goes on
        victim.process.send_signal(signal.SIGCONT)
        await logged(victim, "went on elsewhere")
        await within(20, reading)
        assert browser.exact()
        assert (await Browser(http, key).read(victim)).exact()


# Redis dies


async def test_redis_is_killed_and_comes_back_empty(team: Team, http: httpx.AsyncClient) -> None:
    asked = team.asked
    key = await start(http, team.heir, 0.04)
    browsers = [Browser(http, key) for _ in range(3)]
    reading = [begin(browser.read(at)) for browser, at in zip(browsers, (team.heir, team.plain), strict=False)]
    await browsers[2].read(team.plain, until=20)
    try:
        team.kill_redis()
        reading.append(begin(browsers[2].read(team.plain)))  # comes back while there is none
        await asyncio.sleep(LEASE + 0.3)  # less than the grace of 2 s, after which a reader is told
        assert not any(each.done() for each in reading)
    finally:
        team.start_redis_again()
    await asyncio.gather(*reading)
    assert [browser.exact() for browser in browsers] == [True] * 3
    assert (await Browser(http, key).read(team.plain)).exact()
    assert team.asked == asked + 1
    assert (await Browser(http, await start(http, team.plain, 0)).read(team.heir)).exact()


async def test_redis_is_gone_for_good(team: Team, http: httpx.AsyncClient) -> None:
    """A reader on the worker that writes gets the whole answer; one elsewhere is told after the grace."""
    key = await start(http, team.heir, 0.06)
    there, elsewhere = Browser(http, key), Browser(http, key)
    reading = begin(there.read(team.heir)), begin(elsewhere.read(team.plain))
    await elsewhere.has(20)
    heartbeats = elsewhere.heartbeats
    try:
        team.kill_redis()
        await within(2 + 1 + BUSY, reading[1])  # the grace
        assert (await http.post(f"{team.plain.url}/answers")).status_code == 500
        await within(20, reading[0])
    finally:
        team.start_redis_again()
    assert elsewhere.events[-1] == lost("store_unreachable")
    assert elsewhere.heartbeats >= heartbeats + 3
    assert TEXT.startswith(elsewhere.text)
    assert there.exact()
