"""The engine's process as its parent sees it: over a socket, with a runner that needs no artifact."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from oi.runtime.channel import Channel, ChannelClosed
from oi.runtime.engine_settings import EngineSettings, send
from oi.runtime.messages import Abort, Failed, Fatal, FromEngine, Ready, SamplingParams, Shutdown, StepDone, Submit
from oi.runtime.wire import from_engine_reader, pack
from tests.runtime.fake_runner import expected_tokens

VOCAB = 50
FAKE = f"""
import socket
import sys
import oi.runtime.step as step
from oi.runtime.geometry import Geometry
from oi.runtime.engine_process import main
from tests.runtime.fake_runner import FakeRunner

class Runner(FakeRunner):
    def start(self, batch):
        if (batch.tokens[0], batch.positions[0]) == (13, 0):
            raise RuntimeError("kernel failed")
        return super().start(batch)

step.open_runner = lambda settings: Runner(Geometry(4000, 4, 32, 64, 4000, 4, {VOCAB}))
sys.exit(main(socket.socket(fileno=int(sys.argv[1]))))
"""
FAKE_TIER = f"""
import socket
import sys
from threading import Timer
import oi.runtime.step as step
from random import Random
from oi.runtime.copies import Landed
from oi.runtime.device.landings import Landings
from oi.runtime.geometry import Geometry
from oi.runtime.engine_process import main
from tests.runtime.fake_copies import FakeCopies
from tests.runtime.fake_runner import FakeRunner

class Slow(FakeCopies):
    landings = Landings()

    def start(self, copy, after):
        super().start(copy, after)
        Timer(0.0 if copy.to_host else {{seconds}}, self.land, [self._flying[copy]]).start()

    def land(self, flying):
        if flying.steps > self._runner.computed:
            return Timer(0.01, self.land, [flying]).start()
        self.finish(flying)
        self.landings.tell(Landed(flying.copy, True, 0.1))

    def poke(self): ...
    def fileno(self): return self.landings.fileno()
    def landed(self):
        taken = self.landings.take()
        for copy, _, _ in taken:
            del self._flying[copy]
        return taken

step.open_runner = lambda settings: FakeRunner(Geometry(40, 4, 40, 64, 12, 4, {VOCAB}), True, Slow(99, Random(), 0, 99))
sys.exit(main(socket.socket(fileno=int(sys.argv[1]))))
"""
REAL = """
import socket, sys
from oi.runtime.engine_process import main
sys.exit(main(socket.socket(fileno=int(sys.argv[1]))))
"""
SETTINGS = EngineSettings(artifact="/nowhere", checkpoint="/nowhere")
GREEDY = SamplingParams(temperature=0.0)
ROOT = Path(__file__).parents[2]


class Child:
    """An engine process and the parent's end of its socket."""

    def __init__(self, *command: str, configured: bool = True) -> None:
        self.socket, theirs = socket.socketpair()
        arguments = [sys.executable, *command, str(theirs.fileno())]
        self.process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], cwd=ROOT, stderr=subprocess.PIPE)
        theirs.close()
        self.socket.settimeout(30)
        if configured:
            send(self.socket, SETTINGS)
        self._reader = from_engine_reader()
        self._arrived: list[FromEngine] = []

    def send(self, *messages: Submit | Abort | Shutdown) -> None:
        self.socket.sendall(b"".join(map(pack, messages)))

    def receive(self) -> FromEngine:
        while not self._arrived:
            data = self.socket.recv(1 << 16)
            assert data, "the engine closed its end"
            self._arrived += self._reader.feed(data)
        return self._arrived.pop(0)

    def tokens(self, id_: int) -> list[int]:
        """All tokens of a sequence, up to its last."""
        found = []
        while True:
            message = self.receive()
            assert isinstance(message, StepDone), message
            for token in message.tokens:
                if token.id == id_:
                    found.append(token.token)
                    if token.finish is not None:
                        return found

    def wait(self) -> int:
        return self.process.wait(timeout=30)


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(*command: str, configured: bool = True) -> Child:
        children.append(Child(*command, configured=configured))
        return children[-1]

    yield start
    for child in children:
        with suppress(OSError):
            child.socket.close()
        child.process.kill()
        child.process.communicate()


@pytest.fixture
def child(start: Callable[..., Child]) -> Child:
    child = start("-c", FAKE)
    assert child.receive() == Ready(4000, 4, VOCAB, 4000, 4)
    return child


def test_it_generates_what_was_submitted_and_refuses_what_cannot_run(child: Child) -> None:
    child.send(Submit(1, array("i", [1, 2, 3]), GREEDY, 8), Submit(2, array("i", [VOCAB]), GREEDY, 8))
    refused = child.receive()
    assert isinstance(refused, Failed)
    assert refused.id == 2
    assert "49" in refused.message
    assert child.tokens(1) == expected_tokens([1, 2, 3], GREEDY, 8, VOCAB)


def test_when_idle_it_gives_a_sign_of_life(child: Child) -> None:
    for _ in range(2):
        message = child.receive()
        assert isinstance(message, StepDone)
        assert message.tokens == []
        assert message.stats.pages_total == 4000


def test_an_abort_stops_a_sequence_while_others_go_on(child: Child) -> None:
    child.send(Submit(1, array("i", [1]), GREEDY, 3000), Submit(2, array("i", [2]), GREEDY, 30), Abort([1, 99]))
    assert child.tokens(2) == expected_tokens([2], GREEDY, 30, VOCAB)
    message = child.receive()
    assert isinstance(message, StepDone)
    assert (message.stats.running, message.stats.pages_used) == (0, 0)


def test_a_message_is_served_while_all_that_runs_waits_for_a_copy(start: Callable[..., Child]) -> None:
    child, prompt = start("-c", FAKE_TIER.format(seconds=1.0)), list(range(17))
    assert isinstance(child.receive(), Ready)
    child.send(Submit(1, array("i", prompt), GREEDY, 1))
    child.tokens(1)
    child.send(Submit(2, array("i", range(10, 46)), GREEDY, 4))  # takes two of its pages
    child.tokens(2)
    child.send(Submit(3, array("i", prompt), GREEDY, 1))  # to be restored
    time.sleep(0.2)
    child.send(Submit(4, array("i", [1, 2]), GREEDY, 3))
    assert child.tokens(4) == expected_tokens([1, 2], GREEDY, 3, VOCAB)
    assert child.tokens(3) == expected_tokens(prompt, GREEDY, 1, VOCAB)
    message = child.receive()
    assert isinstance(message, StepDone)
    assert (message.stats.prefix_hits, message.stats.host_hits) == (8, 8)


def test_it_leaves_when_told_to(child: Child) -> None:
    child.send(Submit(1, array("i", [1]), GREEDY, 3000), Shutdown())
    assert child.wait() == 0


def test_it_leaves_when_its_parent_is_gone_even_in_the_middle_of_work(child: Child) -> None:
    child.send(Submit(1, array("i", [1]), GREEDY, 3000))
    child.receive()
    child.socket.close()
    assert child.wait() == 0


def test_sigint_is_ignored_and_sigterm_lets_it_finish(child: Child) -> None:
    child.send(Submit(1, array("i", [1]), GREEDY, 100))
    child.receive()
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)
    assert child.tokens(1)[-1] == expected_tokens([1], GREEDY, 100, VOCAB)[-1]
    assert child.wait() == 0


def test_a_failing_step_is_told_before_it_dies(child: Child) -> None:
    child.send(Submit(1, array("i", [13]), GREEDY, 1))
    message = child.receive()
    assert message == Fatal("RuntimeError: kernel failed")
    assert child.wait() == 1


def test_a_start_that_fails_is_told_with_its_mend(start: Callable[..., Child]) -> None:
    child = start("-c", REAL)
    message = child.receive()
    assert isinstance(message, Fatal)
    assert "no artifact at /nowhere" in message.message
    assert "oi-compile" in message.message
    assert child.wait() == 1


def test_it_leaves_when_it_is_never_told_what_to_serve(start: Callable[..., Child]) -> None:
    child = start("-c", REAL, configured=False)
    child.socket.sendall(b"\x09\0")  # not even the whole length
    child.socket.close()
    assert child.wait() == 0
    assert child.process.stderr is not None
    assert child.process.stderr.read() == b""


def test_a_slow_reader_never_blocks_the_engine_and_gets_everything_in_order() -> None:
    parent, ours = socket.socketpair()
    channel = Channel(ours)
    sent = [Failed(i, "x" * 10_000) for i in range(200)]
    for message in sent:
        channel.send(message)  # 2 MB, far more than the kernel buffers
    reader, got = from_engine_reader(), []
    parent.setblocking(False)
    while len(got) < len(sent):
        with suppress(BlockingIOError):
            got += reader.feed(parent.recv(1 << 16))
        channel.receive(0)
    assert got == sent
    parent.close()
    with pytest.raises(ChannelClosed):
        channel.receive(1)
    ours.close()
