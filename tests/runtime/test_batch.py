"""The arrays of one step, by example; the engine's tests hold them to their meaning over random histories."""

from array import array

import numpy as np

from oi.runtime.batch import Scheduled, build_batch
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.sampling import uniform
from oi.runtime.sequence import Sequence

GREEDY = SamplingParams(temperature=0.0)


def _sequence(prompt: list[int], pages: list[int], computed: int, params: SamplingParams = GREEDY) -> Sequence:
    sequence = Sequence(Submit(1, prompt, params, 9))
    sequence.table.pages = array("i", pages)
    sequence.computed = computed
    return sequence


def test_a_mixture_of_decode_rows_and_chunks() -> None:
    decode = _sequence([1, 2, 3, 4, 5, 6], [7, 3, 5], computed=5)
    chunk = _sequence([10, 11, 12, 13, 14, 15, 16, 17], [7, 4, 9, 8], computed=2)  # shares page 7
    whole = _sequence([20, 21], [2], computed=0)
    batch = build_batch([Scheduled(decode, 1, True), Scheduled(chunk, 3, False), Scheduled(whole, 2, True)], 2)
    assert batch.tokens.tolist() == [6, 12, 13, 14, 20, 21]
    assert batch.positions.tolist() == [5, 2, 3, 4, 0, 1]
    assert batch.slots.tolist() == [11, 8, 9, 18, 4, 5]
    assert batch.query_starts.tolist() == [0, 1, 4]
    assert batch.query_lens.tolist() == [1, 3, 2]
    assert batch.context_lens.tolist() == [6, 5, 2]
    assert batch.page_table.tolist() == [[7, 3, 5, -1], [7, 4, 9, 8], [2, -1, -1, -1]]
    assert batch.rows.tolist() == [0, 5]
    assert batch.sampling is None
    assert not batch.want_logprobs


def test_a_pending_token_is_named_by_the_row_that_draws_it() -> None:
    first, second = _sequence([1, 2, 3], [0, 1], computed=3), _sequence([4, 5], [2, 3], computed=2)
    chunk = _sequence([6, 7, 8], [4, 5], computed=0)
    for sequence, row in ((first, 2), (second, 0)):
        sequence.length, sequence.row = sequence.length + 1, row
    batch = build_batch([Scheduled(first, 1, True), Scheduled(second, 1, True), Scheduled(chunk, 2, False)], 2)
    assert batch.tokens.tolist() == [-3, -1, 6, 7]
    assert batch.positions.tolist() == [3, 2, 0, 1]
    assert batch.context_lens.tolist() == [4, 3, 2]


def test_a_step_may_sample_no_row() -> None:
    batch = build_batch([Scheduled(_sequence([1, 2, 3], [0, 1], computed=0), 2, False)], 2)
    assert batch.rows.shape == (0,)
    assert batch.sampling is None


def test_sampling_inputs_are_those_of_the_sampled_rows_in_order() -> None:
    penal = SamplingParams(temperature=0.0, repetition_penalty=2.0, presence_penalty=0.5, logit_bias={9: -3.0})
    drawn = SamplingParams(temperature=0.5, top_k=4, top_p=0.75, min_p=0.25, seed=77)
    first, second, third = (_sequence([4, 4, 6], [i, i + 3], 2, p) for i, p in enumerate((penal, drawn, penal)))
    first.length += 1
    assert first.append(5) is None
    first.computed = 3
    third.computed = 0
    parts = [Scheduled(first, 1, True), Scheduled(third, 1, False), Scheduled(second, 1, True)]
    batch = build_batch(parts, 2)
    inputs = batch.sampling
    assert inputs is not None
    assert (inputs.edit_starts.tolist(), inputs.edit_lens.tolist()) == ([0, 4], [4, 0])
    edits = zip(inputs.edit_tokens.tolist(), inputs.edit_scale.tolist(), inputs.edit_add.tolist(), strict=True)
    assert sorted(edits) == [(4, 2.0, 0.0), (5, 2.0, -0.5), (6, 2.0, 0.0), (9, 1.0, -3.0)]
    assert inputs.temperature.tolist() == [0.0, 0.5]
    assert (inputs.top_k.tolist(), inputs.top_p.tolist(), inputs.min_p.tolist()) == ([0, 4], [1.0, 0.75], [0.0, 0.25])
    assert inputs.uniform.tolist() == uniform(np.array([0, 77], np.uint64), np.array([4, 3], np.int32)).tolist()
    for name in ("edit_starts", "edit_lens", "edit_tokens", "top_k"):
        assert getattr(inputs, name).dtype == np.int32, name
    for name in ("edit_scale", "edit_add", "temperature", "top_p", "min_p", "uniform"):
        assert getattr(inputs, name).dtype == np.float32, name


def test_a_temperature_too_small_to_divide_by_is_greedy() -> None:
    tiny = _sequence([1], [0], 0, SamplingParams(temperature=1e-9, seed=3))
    assert build_batch([Scheduled(tiny, 1, True)], 2).sampling is None


def test_log_probabilities_are_wanted_only_for_sampled_rows() -> None:
    sequence = Sequence(Submit(1, [1, 2, 3], GREEDY, 9, logprobs=0))
    sequence.table.pages = array("i", [0, 1])
    assert not build_batch([Scheduled(sequence, 2, False)], 2).want_logprobs
    assert build_batch([Scheduled(sequence, 3, True)], 2).want_logprobs
