from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from oi.codegen.arena import ALIGNMENT, Span, aligned, assign_offsets

STEPS = 12


@st.composite
def spans(draw: st.DrawFn) -> Span:
    first = draw(st.integers(0, STEPS - 1))
    return Span(draw(st.integers(0, 1000)), first, draw(st.integers(first, STEPS - 1)))


@settings(deadline=None)
@given(st.lists(spans(), max_size=25))
def test_no_two_that_live_at_once_overlap(spans: list[Span]) -> None:
    offsets, total = assign_offsets(spans)
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    assert all(offset + span.bytes <= total for offset, span in zip(offsets, spans, strict=True))
    for step in range(STEPS):
        live = [(o, o + s.bytes) for o, s in zip(offsets, spans, strict=True) if s.first <= step <= s.last and s.bytes]
        live.sort()
        assert all(stop <= begin for (_, stop), (begin, _) in pairwise(live))


@settings(deadline=None)
@given(st.lists(spans(), max_size=25))
def test_needs_no_more_than_all_apart_and_no_less_than_the_fullest_step(spans: list[Span]) -> None:
    _, total = assign_offsets(spans)
    fullest = max((sum(aligned(s.bytes) for s in spans if s.first <= t <= s.last) for t in range(STEPS)), default=0)
    assert fullest <= total <= sum(aligned(s.bytes) for s in spans)


def test_best_fit_takes_the_smallest_gap() -> None:
    """The first and third buffer die and leave gaps of 640 and 512 bytes; the last one fits both."""
    fixed = [Span(640, 0, 1), Span(576, 0, 9), Span(512, 0, 1), Span(448, 0, 9), Span(256, 2, 9)]
    offsets, total = assign_offsets(fixed)
    assert total == 640 + 576 + 512 + 448
    assert offsets[4] == offsets[2]
