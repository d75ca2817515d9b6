"""An engine that speaks the wire protocol and has no model: it answers a prompt with the prompt's own tokens.

Greedy sequences begin at the prompt's first token, others at
`seed` modulo its length; after one round comes the first stop token, or without any the next round. A request's
`cache_salt` asks for trouble: `crash`, `fail`, `stall`, `slow=SECONDS` a token, `crash_after=TOKENS`.
The number of sequences aborted is told as `preemptions`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from dataclasses import dataclass, field

from oi.runtime.engine_settings import EngineSettings, receive
from oi.runtime.messages import Abort, Failed, Fatal, Ready, Shutdown, Stats, StepDone, Submit, Token
from oi.runtime.wire import pack, to_engine_reader

VOCAB, PAGES, PAGE_SIZE = 512, 64, 16
HEARTBEAT = 0.2
SLOW = float(os.environ.get("FAKE_ENGINE_SLOW", "0"))


@dataclass
class Running:
    submit: Submit
    made: int = 0
    due: float = 0.0
    cached: int = 0
    trouble: dict[str, float] = field(default_factory=dict)


class FakeEngine:
    def __init__(self, connection: socket.socket, settings: EngineSettings) -> None:
        self.connection = connection
        self.reader = to_engine_reader()
        self.max_running = settings.max_num_seqs or 8
        self.max_model_len = settings.max_model_len or 256
        self.waiting: list[Running] = []
        self.running: dict[int, Running] = {}
        self.seen: set[tuple[str, tuple[int, ...]]] = set()
        self.steps = self.queries = self.hits = self.prompts = self.generated = self.aborted = 0

    def send(self, message: object) -> None:
        self.connection.sendall(pack(message))  # type: ignore[arg-type]

    def run(self) -> int:
        if os.environ.get("FAKE_ENGINE") == "fatal":
            self.send(Fatal("the fake engine was told not to start"))
            return 3
        time.sleep(float(os.environ.get("FAKE_ENGINE_START", "0")))
        self.send(Ready(self.max_model_len, self.max_running, VOCAB, PAGES, PAGE_SIZE))
        spoke = 0.0
        while True:
            if self.receive():
                return 0
            tokens = self.step()
            if tokens or time.monotonic() - spoke > HEARTBEAT:
                self.send(StepDone(tokens, self.stats()))
                spoke = time.monotonic()

    def receive(self) -> bool:
        """Whether to leave."""
        busy = any(r.due <= time.monotonic() for r in self.running.values())
        if not select.select([self.connection], [], [], 0 if busy else 0.005)[0]:
            return False
        data = self.connection.recv(1 << 20)
        if not data:
            return True
        for message in self.reader.feed(data):
            match message:
                case Shutdown():
                    return True
                case Submit():
                    self.submit(message)
                case Abort(ids):
                    for id in ids:
                        self.aborted += self.running.pop(id, None) is not None
                        self.aborted += len([w for w in self.waiting if w.submit.id == id])
                        self.waiting = [w for w in self.waiting if w.submit.id != id]
        return False

    def submit(self, submit: Submit) -> None:
        name, _, value = submit.salt.partition("=")
        if name == "fail":
            self.send(Failed(submit.id, "the fake engine cannot run this"))
            return
        if name == "crash":
            os._exit(7)
        if name == "stall":
            time.sleep(float(value))
        trouble = {name: float(value)} if name in ("slow", "crash_after") else {}
        self.waiting.append(Running(submit, trouble=trouble))

    def step(self) -> list[Token]:
        while self.waiting and len(self.running) < self.max_running:
            self.admit(self.waiting.pop(0))
        now = time.monotonic()
        due = [r for r in self.running.values() if r.due <= now]
        self.steps += 1
        return [self.next_token(r) for r in due]

    def admit(self, r: Running) -> None:
        prompt = r.submit.prompt
        key = (r.submit.salt, tuple(prompt))
        r.cached = (len(prompt) - 1) // PAGE_SIZE * PAGE_SIZE if key in self.seen else 0
        self.seen.add(key)
        self.queries += len(prompt)
        self.hits += r.cached
        self.prompts += len(prompt) - r.cached
        self.running[r.submit.id] = r

    def next_token(self, r: Running) -> Token:
        if r.trouble.get("crash_after") == r.made and r.made:
            os._exit(7)
        submit, prompt, stops = r.submit, r.submit.prompt, r.submit.stop_token_ids
        start = submit.sampling.seed % len(prompt) if submit.sampling.temperature > 0 else 0
        token = prompt[(start + r.made) % len(prompt)]
        finish = None
        if token in stops or (r.made == len(prompt) and stops):
            token, finish = (token if token in stops else stops[0]), "stop"
        r.made += 1
        r.due = time.monotonic() + r.trouble.get("slow", SLOW)
        self.generated += 1
        if finish is None and r.made == submit.max_tokens:
            finish = "length"
        if finish:
            del self.running[submit.id]
        logprobs = submit.logprobs is not None
        top = [((token + i) % VOCAB, -0.5 - i) for i in range(submit.logprobs or 0)] if logprobs else None
        return Token(
            submit.id,
            token,
            finish=finish,  # type: ignore[arg-type]
            logprob=-0.5 if logprobs else None,
            top=top,
            cached=r.cached if r.made == 1 else None,
        )

    def stats(self) -> Stats:
        return Stats(
            steps=self.steps,
            running=len(self.running),
            waiting=len(self.waiting),
            pages_used=min(PAGES, len(self.running)),
            pages_cached=0,
            pages_total=PAGES,
            prefix_queries=self.queries,
            prefix_hits=self.hits,
            prompt_tokens=self.prompts,
            generated_tokens=self.generated,
            preemptions=self.aborted,
            step_seconds=0.001,
        )


def main(connection: socket.socket, gpu: bool) -> int:
    """As engine_process.main."""
    settings = receive(connection)
    if settings is None:
        return 0
    with connection, contextlib.suppress(ConnectionError):
        return FakeEngine(connection, settings).run()
    return 0
