"""Events made from a template are those that the encoder makes."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oi.runtime.http.events import PLACEHOLDER, TextEvent, event
from oi.runtime.http.responses import (
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatDelta,
    Completion,
    CompletionChoice,
)


def chat(text: str) -> msgspec.Struct:
    choice = ChatChunkChoice(index=3, delta=ChatDelta(content=text))
    return ChatCompletionChunk(id="chatcmpl-1", created=5, model='a "model"', choices=[choice], usage=None)


def completion(text: str) -> msgspec.Struct:
    return Completion(id="cmpl-1", created=5, model="m", choices=[CompletionChoice(index=0, text=text)])


@pytest.mark.parametrize("record", [chat, completion])
@given(text=st.text() | st.sampled_from(["\u2028", "\x00text\x00", '"\\\n', "\x7f"]))
def test_they_are_equal(record: Callable[[str], msgspec.Struct], text: str) -> None:
    assert TextEvent(record(PLACEHOLDER)).fill(text) == event(record(text))
