"""Frames survive any cutting of the stream; broken streams are refused."""

import itertools
from array import array

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    ToEngine,
    Token,
)
from oi.runtime.wire import MAX_FRAME_BYTES, WireError, from_engine_reader, pack, to_engine_reader

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
ids = st.integers(0, 2**63 - 1)
tokens = st.integers(0, 2**31 - 1)
sampling = st.builds(
    SamplingParams,
    temperature=finite,
    logit_bias=st.dictionaries(tokens, finite, max_size=3),
    seed=st.integers(0, 2**64 - 1),
)
to_engine = st.one_of(
    st.builds(
        Submit,
        id=ids,
        prompt=st.lists(tokens, max_size=40).map(lambda ids: array("i", ids)),
        sampling=sampling,
        max_tokens=tokens,
        salt=st.text(max_size=9),
    ),
    st.builds(Abort, ids=st.lists(ids, max_size=5)),
    st.builds(Shutdown),
)
a_token = st.builds(
    Token,
    id=ids,
    token=tokens,
    finish=st.sampled_from([None, "stop"]),
    logprob=st.none() | finite,
    top=st.none() | st.lists(st.tuples(tokens, finite), max_size=3),
    cached=st.none() | tokens,
)
from_engine = st.one_of(
    st.builds(StepDone, tokens=st.lists(a_token, max_size=4), stats=st.builds(Stats, *[tokens] * 11, finite)),
    st.builds(Failed, id=ids, message=st.text(max_size=20)),
    st.builds(Ready, *[tokens] * 5),
    st.builds(Fatal, message=st.text(max_size=20)),
)


def _cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(stream) + 1) for c in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@settings(deadline=None)
@given(st.lists(to_engine, max_size=5), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cut_of_the_stream_gives_the_same_messages_to_the_engine(messages: list[ToEngine], cuts: list[int]) -> None:
    reader = to_engine_reader()
    pieces = _cut(b"".join(map(pack, messages)), cuts)
    assert [m for piece in pieces for m in reader.feed(piece)] == messages


@settings(deadline=None)
@given(st.lists(from_engine, max_size=5), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cut_of_the_stream_gives_the_same_messages_from_the_engine(
    messages: list[FromEngine], cuts: list[int]
) -> None:
    reader = from_engine_reader()
    pieces = _cut(b"".join(map(pack, messages)), cuts)
    assert [m for piece in pieces for m in reader.feed(piece)] == messages


@pytest.mark.parametrize(
    "stream",
    [
        (MAX_FRAME_BYTES + 1).to_bytes(4, "little"),
        b"\x01\x00\x00\x00\xc1",
        pack(Failed(1, "from the wrong end")),
        (3).to_bytes(4, "little") + msgspec.msgpack.encode([1, 2]),
    ],
)
def test_a_broken_stream_is_refused(stream: bytes) -> None:
    with pytest.raises(WireError):
        to_engine_reader().feed(stream)
