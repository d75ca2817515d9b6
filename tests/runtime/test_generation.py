"""News reaches whoever reads it, once, whether a callback takes it or a task does."""

import asyncio
import random
from array import array

import pytest

from oi.runtime.engine_client import Sink
from oi.runtime.generation import Generation, Output, TextOptions
from oi.runtime.messages import SamplingParams, Submit, Token
from oi.runtime.tokenizer import Tokenizer
from tests import tiny_tokenizer


class Client:
    """The engine's near end, without an engine."""

    def __init__(self) -> None:
        self.sinks: dict[int, Sink] = {}
        self.aborted: list[int] = []

    def submit(self, message: Submit, sink: Sink) -> None:
        self.sinks[message.id] = sink

    def abort(self, ids: list[int]) -> None:
        self.aborted += ids

    def bring(self, *tokens: Token, now: float = 0.0) -> None:
        """A step."""
        for token in tokens:
            self.sinks[token.id].push(token, now)
        for token in tokens:
            self.sinks[token.id].flush()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(tiny_tokenizer.write(tmp_path_factory.mktemp("tokenizer")))


def outputs(tokenizer: Tokenizer, n: int, options: TextOptions | None = None) -> list[Output]:
    submits = [Submit(i, array("i", [1]), SamplingParams(), 100) for i in range(n)]
    return [Output(i, submit, tokenizer, options or TextOptions()) for i, submit in enumerate(submits)]


@pytest.mark.parametrize("seed", range(20))
def test_every_token_is_read_once(tokenizer: Tokenizer, seed: int) -> None:
    """By a callback that takes some news and leaves some, and by a task that may be late."""
    rng = random.Random(seed)
    client = Client()
    prompt = tokenizer.encode("Once upon a time, a naïve café — with 日本語 and émoji 🙂. ")
    texts = ["", ""]

    async def run() -> None:
        generation = Generation(client, outputs(tokenizer, 2))  # type: ignore[arg-type]

        def take(changed: list[Output]) -> None:
            for output in changed:
                texts[output.index] += output.take()[0]

        def reader() -> bool:
            willing = rng.random() < 0.6
            if willing:
                take([o for o in generation.outputs if o.has_news])
            return willing

        async def read() -> None:
            async for changed in generation.news():
                take(changed)
                generation.reader = reader
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)

        with generation:
            task = asyncio.create_task(read())
            for i, token in enumerate(prompt):
                finish = "length" if i == len(prompt) - 1 else None
                client.bring(*(Token(id, token, finish) for id in (0, 1)))
                if rng.random() < 0.7:
                    await asyncio.sleep(0)
            await asyncio.wait_for(task, 5)

    asyncio.run(run())
    assert texts == [tokenizer.decode(prompt)] * 2
    assert client.aborted == []


def test_the_end_is_left_to_the_task(tokenizer: Tokenizer) -> None:
    client = Client()

    async def run() -> None:
        generation = Generation(client, outputs(tokenizer, 1))  # type: ignore[arg-type]
        calls: list[bool] = []
        generation.reader = lambda: bool(calls.append(True)) or True
        with generation:
            client.bring(Token(0, 10))
            client.bring(Token(0, 11, "stop"))
            heard = [changed async for changed in generation.news()]
        assert len(calls) == len(heard) == 1

    asyncio.run(run())


def test_times_are_told_as_tokens_come(tokenizer: Tokenizer) -> None:
    client = Client()
    firsts: list[float] = []
    intervals: list[float] = []

    async def run() -> None:
        with Generation(client, outputs(tokenizer, 2), firsts.append, intervals.append):  # type: ignore[arg-type]
            client.bring(Token(0, 10), now=1.0)
            client.bring(Token(0, 11), Token(1, 12), now=1.5)
            client.bring(Token(0, 11), now=3.5)

    asyncio.run(run())
    assert (firsts, intervals) == ([1.0, 1.5], [0.5, 2.0])
    assert client.aborted == [0, 1]


def test_tokens_are_kept_where_asked_for_only(tokenizer: Tokenizer) -> None:
    for keep in (False, True):
        (output,) = outputs(tokenizer, 1, TextOptions(keep_tokens=keep))
        for id in tokenizer.encode("hello world"):
            output.add(Token(0, id))
        assert output.has_news
        text, placed = output.take()
        assert text == "hello world"
        assert bool(placed) == keep
        assert not output.has_news
        if keep:
            assert [p.offset for p in placed] == [
                len(tokenizer.decode([q.token.token for q in placed[:i]])) for i in range(len(placed))
            ]
