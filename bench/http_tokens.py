"""What a token costs the HTTP process: python -m bench.http_tokens [--streams N] [--tokens N] [--period SECONDS]

The engine is a stand-in that brings every stream a token each period, so that no model's time is in the figures. Where
the HTTP process keeps up, every token is an event of its own; faster than that, tokens share events.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from oi.runtime.engine_settings import receive
from oi.runtime.messages import Abort, Ready, Shutdown, Stats, StepDone, Submit, Token
from oi.runtime.wire import pack, to_engine_reader

PERIOD = "BENCH_PERIOD"
SETTLE_SECONDS = 0.7
"""After the requests are sent: for their prompts to be done with."""


def engine(connection: socket.socket, gpu: bool) -> int:
    """Speaks the engine's protocol: what comes back is the prompt's own tokens."""
    period = float(os.environ[PERIOD])
    if receive(connection) is None:
        return 0
    reader = to_engine_reader()
    connection.sendall(pack(Ready(8192, 4096, 4096, 64, 16)))
    live: dict[int, Submit] = {}
    made: dict[int, int] = {}
    steps = generated = 0
    due = time.monotonic()
    while True:
        if select.select([connection], [], [], max(0.0, due - time.monotonic()) if live else None)[0]:
            for message in reader.feed(connection.recv(1 << 20)):
                if isinstance(message, Shutdown):
                    return 0
                if isinstance(message, Submit):
                    live[message.id], made[message.id] = message, 0
                if isinstance(message, Abort):
                    for id in message.ids:
                        live.pop(id, None)
        if not live or time.monotonic() < due:
            continue
        tokens = []
        for submit in list(live.values()):
            made[submit.id] += 1
            last = made[submit.id] == submit.max_tokens
            token = submit.prompt[made[submit.id] * 7 % len(submit.prompt)]
            tokens.append(Token(submit.id, token, "length" if last else None))
            if last:
                del live[submit.id]
        steps, generated = steps + 1, generated + len(tokens)
        connection.sendall(pack(StepDone(tokens, Stats(steps, len(live), 0, 0, 0, 64, 0, 0, 0, generated, 0, period))))
        due = max(due + period, time.monotonic())


class Client(asyncio.Protocol):
    """Sends one request and counts what comes."""

    def __init__(self, request: bytes, done: asyncio.Future[tuple[int, int]]) -> None:
        self._request, self._done = request, done
        self._events = self._bytes = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._events += data.count(b"data: ")
        self._bytes += len(data)
        self._tail = (self._tail + data)[-32:]
        if b"[DONE]" in self._tail and not self._done.done():
            self._done.set_result((self._events, self._bytes))


async def load(port: int, process: psutil.Process, streams: int, tokens: int) -> str:
    loop = asyncio.get_running_loop()
    waiting = []
    for i in range(streams):
        text = f"Once upon a time there were {i} in the garden, who said hello to everyone."
        messages = [{"role": "user", "content": text}]
        fields = {"messages": messages, "stream": True, "max_tokens": tokens, "ignore_eos": True}
        body = json.dumps(fields).encode()
        request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        done: asyncio.Future[tuple[int, int]] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(functools.partial(Client, request, done), "127.0.0.1", port)
    began = time.perf_counter()
    await asyncio.sleep(SETTLE_SECONDS)
    before, settled = process.cpu_times(), time.perf_counter()
    counts = await asyncio.gather(*waiting)
    after, ended = process.cpu_times(), time.perf_counter()
    total = streams * tokens
    measured = total * (ended - settled) / (ended - began)
    seconds = after.user + after.system - before.user - before.system
    events, size = (sum(values) for values in zip(*counts, strict=True))
    return (
        f"{total / (ended - began):.0f} tokens/s, {seconds / measured * 1e6:.1f} µs of the process a token: at most "
        f"{measured / seconds:.0f} tokens/s; {events / total:.2f} events a token, {size / events:.0f} bytes an event"
    )


def serve() -> int:
    """oi-run with this file as its engine."""
    import oi.runtime.cli
    import oi.runtime.compile_once
    from oi.runtime.engine_child import spawn

    oi.runtime.cli.spawn = functools.partial(spawn, run=engine)
    oi.runtime.compile_once.ensure_artifact = lambda *_, **__: Path("none")
    return oi.runtime.cli.main(["--http", "--port", "0", "--log-level", "warning"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=250, help="of each stream")
    parser.add_argument("--period", type=float, default=0.02, help="seconds between tokens")
    a = parser.parse_args()
    env = {**os.environ, PERIOD: str(a.period)}
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        port = int(ready.split("/v1")[0].rsplit(":", 1)[1])
        time.sleep(1)
        print(asyncio.run(load(port, psutil.Process(server.pid), a.streams, a.tokens)))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            sys.exit(serve())
        case _:
            sys.exit(main())
