"""Clients that leave, engines that die, signals, keys and queues."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import openai
import pytest

from tests.http.server_process import RUN_FAKE, ServerProcess

SLOW = {"prompt": "hello world", "max_tokens": 200, "ignore_eos": True, "cache_salt": "slow=0.02"}


def open_request(server: ServerProcess, body: dict[str, Any]) -> socket.socket:
    """A completion request on its way, its answer not read."""
    url = urlparse(server.url)
    data = json.dumps(body).encode()
    connection = socket.create_connection((url.hostname, url.port), timeout=10)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def read_all(connection: socket.socket) -> str:
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data.decode()


def client_of(server: ServerProcess, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0)


@pytest.fixture
def own_server(checkpoint: Path) -> Iterator[ServerProcess]:
    """One that the test may break."""
    with ServerProcess("--model", str(checkpoint)) as server:
        yield server


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_aborted(server: ServerProcess, stream: bool) -> None:
    aborted = server.metric("num_preemptions_total")
    connection = open_request(server, {**SLOW, "stream": stream, "n": 2})
    server.wait_metric("num_requests_running", 2)
    connection.close()
    server.wait_metric("num_requests_running", 0)
    assert server.metric("num_preemptions_total") == aborted + 2


def test_a_stop_string_ends_the_engines_work(server: ServerProcess) -> None:
    aborted = server.metric("num_preemptions_total")
    status, answer = server.post("/v1/completions", {**SLOW, "temperature": 0, "stop": "wor"})
    assert status == 200
    assert answer["choices"][0]["text"] == "hello "
    server.wait_metric("num_preemptions_total", aborted + 1)


def test_a_client_that_does_not_read_holds_up_nobody(server: ServerProcess) -> None:
    body = {"prompt": "hello world", "max_tokens": 200, "ignore_eos": True, "logprobs": 20, "stream": True, "n": 8}
    lazy = [open_request(server, body) for _ in range(8)]
    started = time.monotonic()
    assert server.post("/v1/completions", {"prompt": "hello", "max_tokens": 4})[0] == 200
    assert time.monotonic() - started < 5
    for connection in lazy:
        text = read_all_until(connection, "data: [DONE]")
        assert text.count('"finish_reason":"length"') == 8
        connection.close()


@pytest.mark.parametrize("logprobs", [None, 20])
@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_a_slow_client_is_told_everything_in_order(server: ServerProcess, pause: float, logprobs: int | None) -> None:
    """Written at once while the connection takes it, by the request's task when it does not."""
    body = {"prompt": "hello world", "max_tokens": 200, "ignore_eos": True, "temperature": 0, "n": 8}
    _, whole = server.post("/v1/completions", body)
    url = urlparse(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((url.hostname, url.port))
    data = json.dumps({**body, "stream": True, "logprobs": logprobs}).encode()
    connection.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
        time.sleep(pause)
    head, _, stream = received.decode().partition("\r\n\r\n")
    assert "chunked" not in head.lower()  # HTTP/1.0 knows of no chunks
    *events, end, rest = stream.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    texts = [""] * 8
    for event in events:
        (choice,) = json.loads(event.removeprefix("data: "))["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]


def read_all_until(connection: socket.socket, end: str) -> str:
    data = b""
    while end.encode() not in data:
        piece = connection.recv(1 << 16)
        assert piece
        data += piece
    return data.decode()


def test_health_is_503_until_the_model_is_there(checkpoint: Path) -> None:
    with _loading(checkpoint, seconds=3.0) as (port, _):
        seen = [_wait_health(port, 503), _wait_health(port, 200)]
    assert [code for _, code in seen] == ["loading", None]


def test_sigterm_while_loading(checkpoint: Path) -> None:
    with _loading(checkpoint, seconds=5.0) as (port, process):
        _wait_health(port, 503)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@contextlib.contextmanager
def _loading(checkpoint: Path, seconds: float) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server whose engine takes its time, and the port where it will be."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen(
        [*RUN_FAKE, "--http", "--port", str(port), "--model", str(checkpoint)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "FAKE_ENGINE_START": str(seconds)},
    )
    try:
        yield port, process
    finally:
        process.kill()
        process.wait()


def _wait_health(port: int, wanted: int) -> tuple[int, str | None]:
    """The first answer of this status, with its error code."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                found, code = answer.status, None
        except urllib.error.HTTPError as e:
            found, code = e.code, json.loads(e.read())["error"]["code"]
        except urllib.error.URLError:
            found = 0
        if found == wanted:
            return found, code
        time.sleep(0.02)
    raise AssertionError(f"/health never was {wanted}")


def test_the_engines_death_is_told_at_once(own_server: ServerProcess) -> None:
    plain = open_request(own_server, SLOW)
    streamed = open_request(own_server, {**SLOW, "stream": True})
    own_server.wait_metric("num_requests_running", 2)
    with client_of(own_server) as client, pytest.raises(openai.InternalServerError) as e:
        client.completions.create(model="echo", prompt="x", extra_body={"cache_salt": "crash"})
    assert e.value.code == "engine_dead"
    assert "HTTP/1.1 500" in read_all(plain)
    text = read_all(streamed)
    assert "HTTP/1.1 200" in text
    assert '"code":"engine_dead"' in text
    assert "[DONE]" not in text
    assert own_server.wait() == 1
    assert "ended with code 7" in "".join(own_server.log)


def test_a_stream_that_breaks_raises_in_the_client(own_server: ServerProcess) -> None:
    with client_of(own_server) as client:
        stream = client.completions.create(
            model="echo", prompt="hello world", max_tokens=50, stream=True, extra_body={"cache_salt": "crash_after=2"}
        )
        with pytest.raises(openai.APIError, match="engine"):
            list(stream)
    assert own_server.wait() == 1


def test_sigterm_lets_requests_finish(own_server: ServerProcess) -> None:
    body = {**SLOW, "max_tokens": 40, "stream": True}
    connection = open_request(own_server, body)
    own_server.wait_metric("num_requests_running", 1)
    own_server.signal(signal.SIGTERM)
    time.sleep(0.2)
    url = urlparse(own_server.url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url.hostname, url.port), timeout=5)
    text = read_all(connection)
    assert text.count('"finish_reason":"length"') == 1
    assert "[DONE]" in text
    assert own_server.wait() == 0


def test_requests_on_open_connections_are_turned_away_while_draining(own_server: ServerProcess) -> None:
    busy = open_request(own_server, {**SLOW, "max_tokens": 50})
    url = urlparse(own_server.url)
    idle = socket.create_connection((url.hostname, url.port), timeout=5)
    idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in idle.recv(4096)
    own_server.wait_metric("num_requests_running", 1)
    own_server.signal(signal.SIGTERM)
    time.sleep(0.2)
    idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert "draining" in read_all(idle)
    assert "HTTP/1.1 200" in read_all(busy)
    assert own_server.wait() == 0


def test_a_second_signal_ends_it_at_once(own_server: ServerProcess) -> None:
    busy = open_request(own_server, SLOW)
    own_server.wait_metric("num_requests_running", 1)
    own_server.signal(signal.SIGTERM)
    time.sleep(0.2)
    own_server.signal(signal.SIGTERM)
    assert own_server.wait(2) == 128 + signal.SIGTERM
    busy.close()


def test_the_key_is_asked_for(checkpoint: Path) -> None:
    with ServerProcess("--model", str(checkpoint), "--api-key", "sesame") as server:
        assert server.get("/health")[0] == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            assert server.get(path)[0] == 401, path
            assert server.get(path, {"Authorization": "Bearer wrong"})[0] == 401
            assert server.get(path, {"Authorization": "Bearer sesame"})[0] != 401
        with client_of(server, "wrong") as client, pytest.raises(openai.AuthenticationError, match="Bearer KEY"):
            client.models.list()
        with client_of(server, "sesame") as client:
            assert client.models.list().data
        assert "sesame" not in "".join(server.log)


def test_too_many_requests(checkpoint: Path) -> None:
    with ServerProcess("--model", str(checkpoint), "--max-num-seqs", "2", "--max-queue", "3") as server:
        held = [open_request(server, {**SLOW, "max_tokens": 100}) for _ in range(5)]
        server.wait_metric("num_requests_waiting", 3)
        with client_of(server) as client, pytest.raises(openai.RateLimitError, match="later") as e:
            client.completions.create(model="echo", prompt="x")
        assert e.value.response.headers["Retry-After"] == "1"
        held.pop().close()
        server.wait_metric("num_requests_waiting", 2)
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1, "cache_salt": "a"})[0] == 200
        for connection in held:
            connection.close()
        server.wait_metric("num_requests_running", 0)


def test_pipelined_and_split_requests(server: ServerProcess) -> None:
    """HTTP as it comes off the wire, not as a library writes it."""
    url = urlparse(server.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=10)
    body = b'{"prompt":"hello","max_tokens":2}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    for byte in head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body):
        connection.sendall(bytes([byte]))
    assert "HTTP/1.1 200" in read_all(connection)
