"""Buckets share one block: arrays are aligned, apart from each other, and where all graphs of a step expect them."""

from __future__ import annotations

import itertools

from oi.runtime.device.cuda.inputs import PER_ROW, InputBlock, Layout

TABLE = 1000


def check_apart(layout: Layout) -> None:
    spans = sorted((begin, begin + size) for begin, size in layout.arrays.values())
    assert all(begin % 16 == 0 for begin, _ in spans)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert spans[-1][1] <= layout.end


def test_layouts() -> None:
    block = InputBlock(tokens=33, sequences=7, table=TABLE)
    sample = block.sample(7)
    for layout in (block.forward(33), block.forward(1), block.decode(7), block.decode(1)):
        check_apart(layout)
        assert layout.arrays["page_table"] == (layout.end, 0)
        assert layout.end + TABLE <= sample.begin(PER_ROW[0]), "the largest table ends before what `sample` reads"
    check_apart(sample)
    assert sample.end <= block.words


def test_rows_are_at_one_place_for_all_buckets_of_tokens() -> None:
    block = InputBlock(tokens=33, sequences=7, table=TABLE)
    assert {block.forward(t).arrays["rows"] for t in (1, 20, 33)} == {block.rows.arrays["rows"]} == {(0, 7)}
