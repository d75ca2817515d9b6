"""Events are found however the stream is cut and whatever its line ends are."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.serve.sse import DONE, EventParser

_STREAM = b': hello\n\ndata: {"a": 1}\n\nevent: x\ndata:two\ndata: lines\n\nid: 7\n\ndata: [DONE]\n\n'
_EVENTS = [b'{"a": 1}', b"two\nlines", DONE]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@given(cuts=st.lists(st.integers(0, len(_STREAM) + 20)))
def test_cuts_do_not_matter(line_end: bytes, cuts: list[int]) -> None:
    stream = _STREAM.replace(b"\n", line_end)
    parser = EventParser()
    edges = [0, *sorted(cuts), len(stream)]
    found = [event for a, b in pairwise(edges) for event in parser.feed(stream[a:b])]
    assert found == _EVENTS


def test_an_event_is_given_once_it_is_complete_and_not_before() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\ndata: b") == [b"a"]
    assert parser.feed(b"\n\n") == [b"b"]
