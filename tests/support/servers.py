"""Real servers for tests: each on a free port of 127.0.0.1, in a process group of its own that is gone at the end.

    with serving("support.doctor_apps:asgi", "uvicorn-h11") as app, nginx(app.port) as proxy:
        httpx.get(proxy.url + "/stream")

The modules of `tests/` can be imported by the servers. What is not installed skips the test, and fails it in CI.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

HOST = "127.0.0.1"
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
PACKAGES = {
    "nginx": "apt-get install nginx-light",
    "redis-server": "apt-get install redis-server",
    "chromium": "apt-get install chromium",
    "chromedriver": "apt-get install chromium-driver",
}

Command = Callable[[str, int], list[str]]


def python(module: str, *options: str) -> Command:
    """The servers that are Python modules; `{app}` and `{port}` are filled in."""
    return lambda app, port: [
        *(sys.executable, "-m", module),
        *(option.format(app=app, port=port, host=HOST) for option in options),
    ]


def gunicorn(worker: str, *options: str) -> Command:
    return python("gunicorn", "--worker-class", worker, "--bind", "{host}:{port}", *options, "{app}")


SERVERS: dict[str, tuple[list[str], Command]] = {
    "uvicorn-h11": (
        ["uvicorn"],
        python("uvicorn", "{app}", "--host", "{host}", "--port", "{port}", "--http", "h11"),
    ),
    "uvicorn-httptools": (
        ["uvicorn", "httptools"],
        python("uvicorn", "{app}", "--host", "{host}", "--port", "{port}", "--http", "httptools"),
    ),
    "hypercorn": (["hypercorn"], python("hypercorn", "--bind", "{host}:{port}", "{app}")),
    "granian": (
        ["granian"],
        python("granian", "--interface", "asgi", "--host", "{host}", "--port", "{port}", "{app}"),
    ),
    "gunicorn-uvicorn": (["gunicorn", "uvicorn_worker"], gunicorn("uvicorn_worker.UvicornWorker")),
    "gunicorn-asgi": (["gunicorn"], gunicorn("asgi")),
    "gunicorn-sync": (["gunicorn"], gunicorn("sync")),
    "gunicorn-gthread": (["gunicorn"], gunicorn("gthread", "--threads", "4")),
    "flask": (["flask"], python("flask", "--app", "{app}", "run", "--host", "{host}", "--port", "{port}")),
}

PLAIN_SERVERS = tuple(SERVERS)  # without those of the recipes' frameworks, which their tests add

# The command line, told to heed Ctrl+C: what a shell has started in the background ignores it.
HEEDING_COMMAND = [
    sys.executable,
    "-c",
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('llama_index_resilient_stream', run_name='__main__')",
]


@dataclass
class Running:
    """A server that accepts connections."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """All that it wrote so far, stdout and stderr."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def terminate(self, number: int = signal.SIGTERM, *, wait: float | None = None) -> None:
        """Send it a signal - to the main process, as a supervisor does - and wait so many seconds for its end."""
        self.process.send_signal(number)
        if wait is not None:
            self.process.wait(wait)


def require(*names: str) -> None:
    """Each a program or a module. Where one is missing the test is skipped by name; in CI it fails."""
    for name in names:
        if shutil.which(name, path=SYSTEM_PATH) or importlib.util.find_spec(name.replace("-", "_")):
            continue
        message = f"{name} is not installed: {PACKAGES.get(name, f'pip install {name}')}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@contextmanager
def serving(
    app: str, server: str = "uvicorn-h11", *, args: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """An ASGI app (for `gunicorn-sync`, `gunicorn-gthread` and `flask` a WSGI app), by its import string.

    `flask` takes a `Flask` only: it would call any other function to be given one.
    """
    needed, command = SERVERS[server]
    require(*needed)
    with (
        tempfile.TemporaryDirectory(prefix="serving-") as folder,
        _started(lambda port: [*command(app, port), *args], Path(folder), env=env) as running,
    ):
        yield running


@contextmanager
def nginx(
    upstream_port: int, *location: str, server: Sequence[str] = (), http: Sequence[str] = ()
) -> Iterator[Running]:
    """nginx as it comes, in front of a port. `location`, `server` and `http` are further lines for those blocks.

    >>> with nginx(8000, "proxy_http_version 1.1;", 'proxy_set_header Connection "";') as proxy: ...
    """
    require("nginx")
    with tempfile.TemporaryDirectory(prefix="nginx-") as folder:

        def command(port: int) -> list[str]:
            config = Path(folder, "nginx.conf")
            config.write_text(_nginx_config(folder, port, upstream_port, location, server, http), encoding="utf-8")
            program = shutil.which("nginx", path=SYSTEM_PATH) or "nginx"
            return [program, "-p", folder, "-c", str(config)]

        with _started(command, Path(folder)) as running:
            yield running


def _nginx_config(
    folder: str, port: int, upstream: int, location: Sequence[str], server: Sequence[str], http: Sequence[str]
) -> str:
    # As root its workers would be another user, who may not write to the folder.
    user = f"user {getpass.getuser()} {_group()};\n" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr info;\n"
        "events { worker_connections 512; }\n"
        f"http {{\n{temporary}  access_log off;\n  default_type text/plain;\n{_lines(http, 2)}"
        f"  server {{\n    listen {HOST}:{port};\n{_lines(server, 4)}"
        f"    location / {{\n      proxy_pass http://{HOST}:{upstream};\n{_lines(location, 6)}    }}\n  }}\n}}\n"
    )


def _group() -> str:
    import grp  # there is none on Windows, where this module can be imported

    return grp.getgrgid(os.getgid()).gr_name


def _lines(lines: Sequence[str], indent: int) -> str:
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


@contextmanager
def redis_server(*args: str) -> Iterator[Running]:
    """A Redis that keeps nothing on disk. `url` is what redis-py's `from_url` takes."""
    require("redis-server")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        program = shutil.which("redis-server", path=SYSTEM_PATH) or "redis-server"
        options = ["--bind", HOST, "--save", "", "--appendonly", "no", "--dir", folder, *args]
        with _started(lambda port: [program, "--port", str(port), *options], Path(folder)) as running:
            running.scheme = "redis"
            yield running


@contextmanager
def prometheus(target_port: int) -> Iterator[Running]:
    """A Prometheus that asks a port for its metrics, four times a second. Where it is missing CI skips, too."""
    program = shutil.which("prometheus", path=SYSTEM_PATH)
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        config = Path(folder, "prometheus.yml")
        job = f"job_name: app, static_configs: [{{targets: ['{HOST}:{target_port}']}}]"
        pace = "scrape_interval: 250ms, scrape_timeout: 250ms"
        config.write_text(f"scrape_configs: [{{{job}, {pace}}}]", encoding="utf-8")
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", "--log.level=warn"]
        with _started(lambda port: [program, *options, f"--web.listen-address={HOST}:{port}"], Path(folder)) as running:
            yield running


@contextmanager
def _started(
    command: Callable[[int], list[str]], folder: Path, *, env: Mapping[str, str] | None = None, tries: int = 3
) -> Iterator[Running]:
    running = _start(command, folder, env)
    while not _accepts(running):
        tries -= 1
        taken = "in use" in running.log  # somebody else was given the same free port
        _kill(running)
        if tries == 0 or not taken:
            raise RuntimeError(f"{running.process.args!r} did not start:\n{running.log}")
        running = _start(command, folder, env)
    try:
        yield running
    finally:
        _kill(running)


def _start(command: Callable[[int], list[str]], folder: Path, env: Mapping[str, str] | None) -> Running:
    port = free_port()
    here = str(Path(__file__).parent.parent)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,  # whatever they leave lying about goes with it
            env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "HOME": str(folder), **(env or {})},
            start_new_session=True,
        )
    return Running(port, process, log)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _accepts(running: Running, patience: float = 90.0) -> bool:
    """Importing LlamaIndex takes two seconds, Gradio five, and on a busy machine many more."""
    until = time.monotonic() + patience
    while time.monotonic() < until and running.process.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, running.port), timeout=1.0):
            return running.process.poll() is None
        time.sleep(0.02)
    return False


def _kill(running: Running) -> None:
    """The whole group, workers too. It is asked politely first, and not long: a test may have left a stream open."""
    if running.process.poll() is None:
        running.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(0.5)
    with suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
