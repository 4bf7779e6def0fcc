"""Many answers and readers over one Redis: few connections, nobody refused, no living worker taken for dead."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import redis as synchronous
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from llama_index_resilient_stream import ConfigurationError
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.serve.redis import RedisStore
from llama_index_resilient_stream.serve.store import StoreUnreachableError, Ticket
from support.generations import Source, Tab, kill, tab
from support.readers import TEXT
from support.servers import SYSTEM_PATH, Running, redis_server

FEW = 4  # connections of two workers: one for writing and one for reading each


@pytest.fixture(scope="module")
def small_redis() -> Iterator[Running]:
    """Lets 60 clients in, as small plans of managed ones do; Redis keeps 32 more for itself."""
    with redis_server("--maxclients", "60") as running:
        yield running


def paced(pieces: int, seconds: float) -> Callable[[], AsyncIterator[str]]:
    async def say() -> AsyncIterator[str]:
        for number in range(pieces):
            await asyncio.sleep(seconds)
            yield f"{number:05d} "

    return say


def text_of(pieces: int) -> str:
    return "".join(f"{number:05d} " for number in range(pieces))


class Team:
    """Two workers over one Redis, who would take over from each other."""

    def __init__(self, make_store: Callable[[], RedisStore], **terms: Any) -> None:
        self.taken: list[str] = []
        self.here, self.there = (
            Generations(make_store(), take_over=self._take_over, shutdown=5, **terms) for _ in range(2)
        )

    def _take_over(self, ticket: Ticket, text: str) -> Any:
        self.taken.append(ticket.id)
        return paced(1, 0)()

    async def aclose(self) -> None:
        await asyncio.gather(self.here.aclose(), self.there.aclose())


@asynccontextmanager
async def connections(url: str) -> AsyncIterator[list[int]]:
    """How many there were, but the one that counts, look by look."""
    seen: list[int] = []

    async def look() -> None:
        async with redis.from_url(url) as client:
            while True:
                seen.append(len(await client.client_list()) - 1)
                await asyncio.sleep(0.1)

    looking = asyncio.ensure_future(look())
    yield seen
    looking.cancel()


_lent: list[Any] = []


def lent(client: Any) -> Any:
    """A client of the application's own, which it closes."""
    _lent.append(client)
    return client


@pytest.fixture(autouse=True)
async def closing() -> AsyncIterator[None]:
    yield
    while _lent:
        await _lent.pop().aclose()


def waiting_pool(url: str) -> redis.Redis:
    return redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(url, max_connections=2))


STORES: dict[str, Callable[[str], RedisStore]] = {
    "url": RedisStore,
    "client of one's own": lambda url: RedisStore(lent(redis.from_url(url))),
    "pool of two": lambda url: RedisStore(lent(redis.from_url(url, max_connections=2))),
    "pool of one": lambda url: RedisStore(lent(redis.from_url(url, max_connections=1))),
    "pool that waits": lambda url: RedisStore(lent(waiting_pool(url))),
}


async def many_answers(team: Team, answers: int, pieces: int, seconds: float) -> list[Tab]:
    """Each has a reader on its worker, and every third one elsewhere too."""
    keys = await asyncio.gather(*(team.here.start(paced(pieces, seconds)) for _ in range(answers)))
    readers = [tab(team.here, key) for key in keys] + [tab(team.there, key) for key in keys[::3]]
    return list(await asyncio.gather(*(reader.read(seconds=120) for reader in readers)))


@pytest.mark.parametrize("kind", STORES)
async def test_many_answers_take_few_connections(small_redis: Running, kind: str) -> None:
    team = Team(lambda: STORES[kind](small_redis.url))
    async with connections(small_redis.url) as seen:
        readers = await many_answers(team, 60, 20, 0.03)
    assert all(reader.exact(text_of(20)) for reader in readers)
    assert team.taken == []
    assert max(seen) <= FEW
    await team.aclose()


async def test_readers_of_one_answer_share_their_waiting(small_redis: Running) -> None:
    team = Team(lambda: STORES["url"](small_redis.url), lease=1.5)
    async with connections(small_redis.url) as seen, redis.from_url(small_redis.url) as client:
        key = await team.here.start(paced(40, 0.05))
        before = (await client.info("stats"))["total_commands_processed"]
        readers = [tab(home, key) for home in (team.here, team.there) for _ in range(100)]
        await asyncio.gather(*(reader.read() for reader in readers))
        asked = (await client.info("stats"))["total_commands_processed"] - before
    assert all(reader.exact(text_of(40)) for reader in readers)
    assert team.taken == []
    assert max(seen) <= FEW
    assert asked < 40 * 40  # what scripts call counts as well; a read for each reader and piece would be 4,000 alone
    await team.aclose()


async def test_an_application_that_has_taken_its_pool_is_waited_for(small_redis: Running) -> None:
    client = lent(redis.from_url(small_redis.url, max_connections=2))
    home = Generations(RedisStore(client), shutdown=0)
    blocking = [asyncio.ensure_future(client.blpop("nothing", timeout=1)) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert (await tab(home, await home.start(Source())).read()).exact()
    await asyncio.gather(*blocking)
    await home.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["url", "client of one's own"])
async def test_130_answers_with_a_reader_each(small_redis: Running, kind: str) -> None:
    team = Team(lambda: STORES[kind](small_redis.url))
    readers = await many_answers(team, 130, 200, 0.05)
    assert all(reader.exact(text_of(200)) for reader in readers)
    assert team.taken == []
    assert max(reader.silence for reader in readers) < 2
    await team.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["url", "client of one's own"])
@pytest.mark.parametrize("where", ["here", "there"])
async def test_300_readers_of_one_answer(small_redis: Running, kind: str, where: str) -> None:
    team = Team(lambda: STORES[kind](small_redis.url), lease=1.5)
    key = await team.here.start(paced(200, 0.05))
    readers = [tab(getattr(team, where), key) for _ in range(300)]
    await asyncio.gather(*(reader.read(seconds=120) for reader in readers))
    assert all(reader.exact(text_of(200)) for reader in readers)
    assert team.taken == []
    assert max(reader.silence for reader in readers) < 2
    await team.aclose()


# A cluster


@contextmanager
def node() -> Iterator[Running]:
    """Of a cluster, whose nodes talk to each other on a port that is 10,000 higher: not every free one will do."""
    for _ in range(9):
        with suppress(RuntimeError):
            with redis_server("--cluster-enabled", "yes") as running:
                yield running
            return
    raise RuntimeError("no port is low enough")


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[str]]:
    """The URLs of three nodes, which share the slots."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(node()) for _ in range(3)]
        program = shutil.which("redis-cli", path=SYSTEM_PATH) or "redis-cli"
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        command = [program, "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        yield [node.url for node in nodes]


async def test_a_cluster(cluster: list[str]) -> None:
    team = Team(lambda: RedisStore(lent(RedisCluster.from_url(cluster[0]))), lease=1.0)
    async with team.here.lifespan():
        assert all(reader.exact(text_of(20)) for reader in await many_answers(team, 20, 20, 0.03))
        source = Source(open_to=5)
        key = await team.here.start(source)
        reader = tab(team.there, key)
        await reader.read(5)
        assert await team.there.stop(key)
        assert (await reader.read()).end == ("done", {"status": "cancelled"})
        assert team.taken == []
        key = await team.here.start(Source(open_to=5))
        reader = await tab(team.there, key).read(5)
        await kill(team.here)
        assert (await reader.read()).text == TEXT[:45] + "00000 "
        assert team.taken == [key]
    await team.there.aclose()


# What is wrong from the beginning


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[str]:
    with redis_server("--requirepass", "right") as running:
        yield running.url.removeprefix("redis://")


@pytest.mark.parametrize("url", ["http://localhost:6379", "localhost:6379", "redis://localhost:port", ""])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r'RedisStore\("redis://localhost:6379/0"\)'):
        RedisStore(url)


@pytest.mark.parametrize(
    "client", [synchronous.Redis(), synchronous.ConnectionPool(), None, 6379, synchronous.Redis.from_url("redis://x")]
)
def test_a_client_that_is_none(client: Any) -> None:
    with pytest.raises(ConfigurationError, match="an asynchronous client"):
        RedisStore(client)


async def refused(url: str) -> str:
    """At the start of the application."""
    with pytest.raises(ConfigurationError) as caught:
        async with Generations(RedisStore(url)).lifespan():
            pass
    return str(caught.value)


@pytest.mark.parametrize("login", ["", ":wrong@", "somebody:right@"])
async def test_a_password_that_is_wrong(locked_redis: str, login: str) -> None:
    told = await refused(f"redis://{login}{locked_redis}")
    assert "the user, the password" in told
    assert "wrong" not in told
    assert "right" not in told
    async with Generations(RedisStore(f"redis://:right@{locked_redis}")).lifespan():
        pass


async def test_a_database_that_there_is_not(small_redis: Running) -> None:
    assert "the number of the database" in await refused(f"{small_redis.url}/99")


async def test_a_cluster_without_a_client_for_clusters(cluster: list[str]) -> None:
    for url in cluster:
        assert "RedisStore(redis.asyncio.cluster.RedisCluster.from_url(url))" in await refused(url)


async def test_a_redis_that_is_not_there_is_named_at_the_start() -> None:
    with pytest.raises(StoreUnreachableError, match=r"127\.0\.0\.1:1\.") as caught:
        async with Generations(RedisStore("redis://:secret@127.0.0.1:1/0")).lifespan():
            pass
    assert "secret" not in str(caught.value)


async def test_two_prefixes_do_not_see_each_other(small_redis: Running) -> None:
    one, other = (Generations(RedisStore(small_redis.url, prefix=name), shutdown=0, lease=0.2) for name in "ab")
    key = await one.start(Source())
    assert (await tab(one, key).read()).exact()
    assert (await tab(other, key).read()).end[1]["status"] == "expired"
    await one.aclose()
    await other.aclose()
