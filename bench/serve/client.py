"""One request, as a user's client sends it and reads its answer, streamed or whole."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from bench.serve.sse import DONE, EventParser

__all__ = ["Record", "ask", "open_session"]


@dataclass(slots=True)
class Record:
    """What came of a request. Times are `time.perf_counter()`, which all processes of a machine share."""

    due: float
    """When it was to be sent."""
    sent: float
    chunks: list[float] = field(default_factory=list)
    """When each event with a choice came. An engine may put several tokens into one; an answer not streamed is one."""
    ended: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    """None where the engine does not say."""
    token_ids: list[int] = field(default_factory=list)
    """Of the answer, where they were asked for."""
    failure: str | None = None
    """Its kind: `connection`, `http 429`, `timeout`, `cut`, `malformed`, `error event`, `wrong length`."""
    message: str = ""


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _CachedTokens | None = None


class _Choice(msgspec.Struct):
    token_ids: list[int] | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_HEADERS = {"Content-Type": "application/json"}


class _Failed(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def open_session() -> aiohttp.ClientSession:
    """Without limits of its own; connections are kept, as users' clients do."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=None)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


async def ask(
    session: aiohttp.ClientSession, url: str, body: bytes, *, due: float, output: int, timeout: float
) -> Record:
    """Send `body` to the completions endpoint at `url` and read the answer; never raises for what the server does.

    `output` is how many tokens must come, `timeout` in seconds is for the whole of it.
    """
    record = Record(due=due, sent=time.perf_counter())
    try:
        async with asyncio.timeout(timeout):
            await _read(session, url, body, record)
        if not record.chunks:
            raise _Failed("malformed", "no event had a choice")
        if record.completion_tokens != output:
            raise _Failed("wrong length", f"{record.completion_tokens} tokens came, not {output}")
    except TimeoutError:
        record.failure, record.message = "timeout", f"not finished after {timeout:g} s"
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as e:
        record.failure, record.message = "cut", str(e)
    except (aiohttp.ClientError, OSError) as e:
        record.failure, record.message = "connection", str(e)
    except msgspec.MsgspecError as e:
        record.failure, record.message = "malformed", str(e)
    except _Failed as e:
        record.failure, record.message = e.kind, str(e)
    record.ended = time.perf_counter()
    return record


async def _read(session: aiohttp.ClientSession, url: str, body: bytes, record: Record) -> None:
    async with session.post(url, data=body, headers=_HEADERS) as response:
        if response.status != 200:
            raise _Failed(f"http {response.status}", (await response.text())[:300])
        if response.content_type == "application/json":
            answer = await response.read()
            _take(_decode(answer), time.perf_counter(), record)
            return
        events = EventParser()
        done = False
        async for data in response.content.iter_any():
            now = time.perf_counter()
            for event in events.feed(data):
                done = done or event == DONE
                if not done:
                    _take(_decode(event), now, record)
        if not done:
            raise _Failed("cut", "the stream ended without [DONE]")


def _take(event: _Event, now: float, record: Record) -> None:
    if event.error is not None:
        raise _Failed("error event", str(event.error)[:300])
    if event.choices:
        record.chunks.append(now)
    for choice in event.choices:
        record.token_ids += choice.token_ids or ()
    if (usage := event.usage) is not None:
        record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            record.cached_tokens = usage.prompt_tokens_details.cached_tokens
