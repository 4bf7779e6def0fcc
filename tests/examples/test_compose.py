"""examples/compose: its files fit each other, nginx takes its own, and what they describe is started without docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
import yaml

from support.servers import HOST, Running, free_port, nginx, redis_server, serving

pytestmark = pytest.mark.xdist_group("compose")  # one team, of which the last test kills a member

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "examples" / "compose"
SERVICES = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))["services"]
NGINX = (COMPOSE / "nginx.conf").read_text(encoding="utf-8")
DOCKERFILE = (COMPOSE / "Dockerfile").read_text(encoding="utf-8")
WORKERS = [name for name in SERVICES if name.startswith("worker-")]
_, APP, *OPTIONS = SERVICES["worker-1"]["command"].split()
ENGINES = (ROOT / "examples" / "engines.py").read_text(encoding="utf-8")
TEXT = "".join(re.findall(r'"(.*)"', ENGINES.partition("TEXT = (")[2].partition("\n)")[0]))


def test_the_files_fit_each_other() -> None:
    assert re.findall(r"server (\S+):8000", NGINX) == WORKERS
    for name in WORKERS:
        service = SERVICES[name]
        assert service["environment"] == {"REDIS_URL": "redis://redis:6379"}
        assert service["build"]["dockerfile"] == (COMPOSE / "Dockerfile").relative_to(ROOT).as_posix()
        assert (COMPOSE / service["build"]["context"]).resolve() == ROOT
        assert OPTIONS[OPTIONS.index("--port") + 1] == "8000"
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
    (mounted,) = SERVICES["nginx"]["volumes"]
    assert (COMPOSE / mounted.partition(":")[0]).exists()
    assert SERVICES["nginx"]["ports"][0].endswith(":80")
    assert "listen 80;" in NGINX


def test_what_the_dockerfile_copies_exists() -> None:
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert [name for name in line.split() if not (ROOT / name).exists()] == []
    assert COMPOSE.joinpath(APP.partition(":")[0] + ".py").exists()


def docker_compose() -> list[str]:
    """The command, as a part of docker or by itself. No daemon is needed to look at a file."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not subprocess.run([*command, "version"], capture_output=True).returncode:
            return command
    pytest.skip("docker-compose is not installed: apt-get install docker-compose")


def test_docker_compose_takes_it() -> None:
    command = [*docker_compose(), "-f", str(COMPOSE / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Team:
    """Redis, the workers and nginx, as the files say, but all on this machine."""

    def __init__(self, stack: ExitStack) -> None:
        redis = stack.enter_context(redis_server())
        paths = [str(COMPOSE), str(COMPOSE.parent), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "REDIS_URL": redis.url}
        options = OPTIONS[OPTIONS.index("--timeout-graceful-shutdown") :]
        self.workers: list[Running] = [
            stack.enter_context(serving(APP, "uvicorn-h11", args=options, env=environment)) for _ in WORKERS
        ]
        port, config = free_port(), NGINX
        for name, worker in zip(WORKERS, self.workers, strict=True):
            config = config.replace(f"{name}:8000", f"{HOST}:{worker.port}")
        config = config.replace("listen 80;", f"listen {HOST}:{port};")
        stack.enter_context(nginx(free_port(), http=config.splitlines()))  # included there, as in its image
        self.url = f"http://{HOST}:{port}"

    def ask(self) -> str:
        key: str = httpx.post(f"{self.url}/answers", json={"question": "why"}, timeout=30).json()
        return f"{self.url}/answers/{key}"

    def who_was_asked(self) -> Running:
        return max(self.workers, key=lambda worker: worker.log.count("POST /answers"))


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with ExitStack() as stack:
        yield Team(stack)


@contextmanager
def events(url: str, after: str) -> Iterator[Iterator[httpx_sse.ServerSentEvent]]:
    with (
        httpx.Client(timeout=60) as client,
        httpx_sse.connect_sse(client, "GET", url, params={"after": after}) as source,
    ):
        yield source.iter_sse()


def read_on(url: str, after: str = "", most: int = 10**6) -> tuple[str, str, tuple[str, Any]]:
    """Read on behind an event, and leave after so many characters: the text, the last id, and the last event."""
    text, last = "", ("", None)
    with events(url, after) as read:
        for event in read:
            after, last = event.id or after, (event.event, json.loads(event.data))
            text += last[1]["text"] if event.event == "message" else ""
            if len(text) >= most:
                break
    return text, after, last


@pytest.mark.slow
def test_an_answer_is_stopped_by_whichever_worker_is_asked(team: Team) -> None:
    url = team.ask()
    text, after, _ = read_on(url, most=40)
    assert httpx.delete(url).json() is True
    rest, _, end = read_on(url, after)
    assert end == ("done", {"status": "cancelled"})
    assert text + rest != TEXT
    assert TEXT.startswith(text + rest)


@pytest.mark.slow
def test_a_killed_workers_answer_is_ended_by_the_other(team: Team) -> None:
    assert "new EventSource" in httpx.get(team.url).text
    url = team.ask()
    before, after, _ = read_on(url, most=40)
    team.who_was_asked().process.kill()
    rest, _, end = read_on(url, after)
    assert before + rest == TEXT
    assert end == ("done", {"status": "complete"})
    assert read_on(url)[0] == TEXT  # loaded again
