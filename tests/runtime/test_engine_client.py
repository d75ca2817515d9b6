import asyncio
import os
import socket
import sys
from array import array
from collections.abc import Awaitable, Callable

import pytest

from oi.runtime.engine_child import EngineChild, Process
from oi.runtime.engine_client import EngineClient
from oi.runtime.errors import EngineDead, OiError, RequestError
from oi.runtime.messages import (
    Abort,
    Failed,
    Fatal,
    FromEngine,
    Ready,
    SamplingParams,
    Shutdown,
    Stats,
    StepDone,
    Submit,
    Token,
)
from oi.runtime.wire import pack, to_engine_reader

STATS = Stats(1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0.0)


class Log:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.flushed: list[int] = []
        """How many tokens there were at each flush."""
        self.error: OiError | None = None

    def push(self, token: Token, now: float) -> None:
        self.tokens.append(token.token)

    def flush(self) -> None:
        self.flushed.append(len(self.tokens))

    def fail(self, error: OiError) -> None:
        self.error = error


class Far:
    """The engine's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reader = to_engine_reader()

    async def send(self, *messages: FromEngine) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(map(pack, messages)))
        await asyncio.sleep(0.01)

    async def receive(self) -> list[object]:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 20), 5)
        return list(self.reader.feed(data))


def with_client(scenario: Callable[[EngineClient, Far], Awaitable[None]], stall_seconds: float = 30.0) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        process = Process(os.posix_spawn(sys.executable, [sys.executable, "-c", "import sys; sys.exit(9)"], os.environ))
        client = EngineClient(EngineChild(process, ours), stall_seconds=stall_seconds)
        await client.connect()
        with theirs:
            await scenario(client, Far(theirs))
            await client.close()

    asyncio.run(run())


def submit(client: EngineClient, log: Log) -> int:
    message = Submit(client.next_id(), array("i", [1, 2]), SamplingParams(), 8)
    client.submit(message, log)
    return message.id


def test_tokens_reach_those_who_wait_for_them() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        seen: list[Stats] = []
        client.on_stats = seen.append
        logs = [Log(), Log()]
        ids = [submit(client, log) for log in logs]
        assert [m.id for m in await far.receive()] == ids
        await far.send(StepDone([Token(ids[0], 10), Token(ids[1], 20)], STATS))
        await far.send(StepDone([Token(ids[1], 21, "stop"), Token(999, 1)], STATS))
        assert [log.tokens for log in logs] == [[10], [20, 21]]
        assert client.in_flight == 1
        assert seen == [STATS, STATS]

    with_client(scenario)


def test_what_arrives_together_is_flushed_together() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        log, other = Log(), Log()
        first, second = submit(client, log), submit(client, other)
        await far.send(StepDone([Token(first, 1), Token(second, 2)], STATS), StepDone([Token(first, 3)], STATS))
        assert set(log.flushed) == {2}
        assert other.flushed == [1]

    with_client(scenario)


def test_only_what_runs_is_aborted() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        logs = [Log(), Log(), Log()]
        ids = [submit(client, log) for log in logs]
        await far.receive()
        await far.send(StepDone([Token(ids[0], 1, "length")], STATS))
        client.abort(ids[:2])
        assert await far.receive() == [Abort([ids[1]])]
        await far.send(StepDone([Token(ids[1], 5), Token(ids[2], 6)], STATS))
        assert [log.tokens for log in logs] == [[1], [], [6]]

    with_client(scenario)


def test_one_failure_leaves_the_others_alone() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        logs = [Log(), Log()]
        ids = [submit(client, log) for log in logs]
        await far.send(Failed(ids[0], "too long"))
        assert isinstance(logs[0].error, RequestError)
        assert logs[1].error is None

    with_client(scenario)


def test_death_fails_all_at_once_and_for_good() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        await far.send(Ready(8, 2, 16, 4, 2))
        assert client.alive
        log = Log()
        submit(client, log)
        far.sock.close()
        assert "code 9" in await asyncio.wait_for(client.died, 5)
        assert isinstance(log.error, EngineDead)
        assert not client.alive
        assert client.lost == 1
        with pytest.raises(EngineDead):
            submit(client, Log())

    with_client(scenario)


def test_the_last_words_are_the_reason() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        await far.send(Fatal("no such artifact"))
        far.sock.close()
        with pytest.raises(EngineDead, match="no such artifact"):
            await asyncio.wait_for(client.ready, 5)

    with_client(scenario)


def test_a_broken_stream_is_a_dead_engine() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        await asyncio.get_running_loop().sock_sendall(far.sock, b"\x01\x00\x00\x00\xc1")
        assert "not a known message" in await asyncio.wait_for(client.died, 5)

    with_client(scenario)


def test_silence_is_no_life() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        assert not client.alive  # not ready yet
        await far.send(Ready(8, 2, 16, 4, 2))
        assert client.alive
        await asyncio.sleep(0.3)
        assert not client.alive
        await far.send(StepDone([], STATS))
        assert client.alive

    with_client(scenario, stall_seconds=0.25)


def test_closing_is_not_dying() -> None:
    async def scenario(client: EngineClient, far: Far) -> None:
        await client.close()
        assert await far.receive() == [Shutdown()]
        far.sock.close()
        await asyncio.sleep(0.05)
        assert not client.died.done()

    with_client(scenario)
