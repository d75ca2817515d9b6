"""oi-run without a server: one generation, or a conversation, in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from oi.runtime.chat_template import load_chat_template
from oi.runtime.engine_child import EngineChild
from oi.runtime.engine_client import EngineClient
from oi.runtime.errors import CheckpointError, RequestError
from oi.runtime.generation import Generation, Output, TextOptions
from oi.runtime.generation_config import GenerationConfig
from oi.runtime.messages import SamplingParams, Submit, TokenIds
from oi.runtime.tokenizer import Tokenizer

__all__ = ["run"]


def run(
    child: EngineChild, checkpoint: Path, prompt: str | None, max_tokens: int | None, temperature: float | None
) -> int:
    """Continue `prompt`, or hold a conversation where it is None; the exit code. Raises OiError."""
    return asyncio.run(_run(child, checkpoint, prompt, max_tokens, temperature))


async def _run(
    child: EngineChild, checkpoint: Path, prompt: str | None, max_tokens: int | None, temperature: float | None
) -> int:
    client = EngineClient(child)
    try:
        await client.connect()
        terminal = _Terminal(client, checkpoint, max_tokens, temperature)
        if prompt is None:
            return await _converse(terminal, checkpoint)
        finished = await terminal.answer(terminal.tokenizer.encode(_unicode(prompt)))
        return 0 if finished is not None else 130
    finally:
        await client.close()


class _Terminal:
    def __init__(
        self, client: EngineClient, checkpoint: Path, max_tokens: int | None, temperature: float | None
    ) -> None:
        self.tokenizer = Tokenizer(checkpoint)
        self._client = client
        self._max_tokens = max_tokens
        defaults = GenerationConfig.load(checkpoint, self.tokenizer.special_ids)
        given = {} if temperature is None else {"temperature": temperature}
        sampling: dict[str, Any] = defaults.sampling | given
        self._sampling = SamplingParams(**sampling)
        self._eos_ids = list(defaults.eos_ids)

    async def answer(self, prompt: TokenIds) -> str | None:
        """Print it as it comes; None where Ctrl-C ended it. Raises OiError."""
        ready = await self._client.ready
        room = ready.max_model_len - len(prompt)
        if not prompt or room < 1:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens; give 1 to {ready.max_model_len - 1} of them, as this model's "
                f"context is {ready.max_model_len}"
            )
        submit = Submit(
            id=self._client.next_id(),
            prompt=prompt,
            sampling=msgspec.structs.replace(self._sampling, seed=random.getrandbits(63)),
            max_tokens=min(room, self._max_tokens or room),
            stop_token_ids=self._eos_ids,
        )
        output = Output(0, submit, self.tokenizer, TextOptions())
        printing = asyncio.ensure_future(_print(Generation(self._client, [output])))
        with _on_interrupt(printing):
            try:
                return await printing
            except asyncio.CancelledError:
                return None
            finally:
                print(flush=True)


async def _print(generation: Generation) -> str:
    whole = []
    with generation:
        async for outputs in generation.news():
            for output in outputs:
                text, _ = output.take()
                whole.append(text)
                print(text, end="", flush=True)
    return "".join(whole)


@contextlib.contextmanager
def _on_interrupt(task: asyncio.Future[str]) -> Iterator[None]:
    """Ctrl-C ends the task, not the program."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)


async def _converse(terminal: _Terminal, checkpoint: Path) -> int:
    template = load_chat_template(checkpoint, terminal.tokenizer)
    if template is None:
        raise CheckpointError(f"{checkpoint} has no chat template; give a prompt instead of --chat")
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives input() its editing and history
    print("oi: /exit or Ctrl-D leaves, Ctrl-C stops an answer", file=sys.stderr)
    messages: list[dict[str, str]] = []
    while (line := _ask()) is not None:
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line})
        try:
            answer = await terminal.answer(template.encode(messages))
        except RequestError as e:
            print(f"oi: {e}", file=sys.stderr)
            answer = None
        if answer is None:
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer})
    return 0


def _ask() -> str | None:
    """A line, or None to leave. It blocks the event loop, which has nothing to do meanwhile."""
    try:
        line = _unicode(input("> "))
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print()
        return ""
    return None if line.strip() == "/exit" else line


def _unicode(text: str) -> str:
    """Bytes that are not UTF-8 (the terminal gives them as surrogates) become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
