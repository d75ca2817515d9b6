"""A server to measure: one of our own that is started here, or any that runs already."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil

__all__ = ["OwnServer", "Served", "first_token", "get", "pid_of", "served"]

_POLL_SECONDS = 0.01
_STOP_SECONDS = 40


class Served(msgspec.Struct, frozen=True):
    """What a server says about itself."""

    model: str
    engine: str
    max_model_len: int | None
    pool_tokens: int | None
    """What its device's KV cache holds, where `/metrics` says it as vLLM does."""


class OwnServer:
    """`oi-run --http` with `arguments`, on a free port."""

    def __init__(self, arguments: list[str]) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        command = [sys.executable, "-m", "oi.runtime.cli", "--http", "--port", str(port), *arguments]
        self.started = time.perf_counter()
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self.pid = self._process.pid

    def wait_ready(self) -> float:
        """Seconds from its start until /health answered 200, asked each 10 ms. Raises SystemExit if it ends before."""
        asked = time.perf_counter()
        while not _healthy(self.url):
            self.check()
            asked += _POLL_SECONDS
            time.sleep(max(0.0, asked - time.perf_counter()))
        return time.perf_counter() - self.started

    def check(self) -> None:
        """Raises SystemExit with the end of its log, without the lines of requests, if it has ended."""
        if self._process.poll() is not None:
            self._log.seek(0)
            end = b"".join(line for line in self._log if b" INFO " not in line)[-2000:].decode(errors="replace")
            raise SystemExit(f"oi-run ended with code {self._process.returncode}:\n{end}")

    def __enter__(self) -> OwnServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def served(url: str) -> Served:
    """Raises SystemExit where `url` is no OpenAI-compatible server."""
    try:
        status, text = get(url, "/v1/models")
        first: dict[str, Any] = msgspec.json.decode(text)["data"][0]
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, KeyError, IndexError, TypeError) as e:
        raise SystemExit(
            f"{url} does not list its model at /v1/models ({e!r}); is it an OpenAI-compatible server?"
        ) from e
    if status != 200:
        raise SystemExit(f"{url}/v1/models answered {status}; is it an OpenAI-compatible server?")
    length = first.get("max_model_len") or (first.get("meta") or {}).get("n_ctx_train")
    return Served(first["id"], first.get("owned_by", "unknown"), length, _pool_tokens(url))


def first_token(url: str, body: bytes) -> float:
    """`time.perf_counter()` at the first event of the stream."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    line = response.readline()
    at = time.perf_counter()
    if response.status != 200 or not line.startswith(b"data:"):
        raise SystemExit(f"the first request was answered {response.status}: {(line + response.read())[:500]!r}")
    response.read()
    connection.close()
    return at


def get(url: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def pid_of(url: str) -> int | None:
    """The process that listens at `url`, where it runs on this host and we may see it."""
    port = urlsplit(url).port
    try:
        found = {
            c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port
        }
    except psutil.AccessDenied:
        return None
    return min((pid for pid in found if pid), default=None) if urlsplit(url).hostname in _HERE else None


_HERE = {"127.0.0.1", "localhost", "::1"}


def _healthy(url: str) -> bool:
    try:
        return get(url, "/health")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _pool_tokens(url: str) -> int | None:
    status, text = get(url, "/metrics")
    found = re.search(r"^\w+:cache_config_info\{(.*)\}", text.decode(errors="replace"), re.MULTILINE)
    if status != 200 or found is None:
        return None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
    try:
        return int(labels["num_gpu_blocks"]) * int(labels["block_size"])
    except (KeyError, ValueError):
        return None


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
