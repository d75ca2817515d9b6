"""Random histories of an engine, and what each request of them must bring, whatever runs beside it."""

from __future__ import annotations

from hypothesis import strategies as st

from oi.runtime.geometry import Geometry
from oi.runtime.messages import SamplingParams, StepDone, Submit, Token
from tests.runtime.fake_runner import expected_tokens

__all__ = ["VOCAB", "Client", "check_stream", "geometry", "history"]

VOCAB = 7

token = st.integers(0, VOCAB - 1)
sampling = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.0, 0.7]),
    top_p=st.sampled_from([1.0, 0.9]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2]),
    logit_bias=st.dictionaries(token, st.just(2.0), max_size=2),
    seed=st.integers(0, 2**64 - 1),
)
geometry = st.builds(
    Geometry,
    max_model_len=st.just(24),
    max_num_seqs=st.integers(1, 5),
    max_step_tokens=st.integers(1, 11),
    max_edits=st.sampled_from([VOCAB, 3 * VOCAB]),
    pages=st.integers(8, 24),
    page_size=st.integers(1, 4),
    vocab_size=st.just(VOCAB),
)


@st.composite
def request(draw: st.DrawFn, id_: int) -> Submit:
    """Prompts begin alike often, so that prefixes are shared."""
    stem = [1, 2, 3, 1, 2, 3, 1, 2][: draw(st.integers(0, 8))]
    prompt = stem + draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    return Submit(
        id_,
        prompt,
        draw(sampling),
        draw(st.integers(1, 24 - len(prompt))),
        stop_token_ids=draw(st.lists(token, max_size=1)),
        logprobs=draw(st.sampled_from([None, None, 0, 3])),
        salt=draw(st.sampled_from(["", "", "b"])),
    )


@st.composite
def history(draw: st.DrawFn) -> list[Submit | int | None]:
    """Arrivals, aborts (an id) and steps (None) in any order."""
    events: list[Submit | int | None] = []
    for id_ in range(1, draw(st.integers(1, 9)) + 1):
        events.append(draw(request(id_)))
        events.extend([None] * draw(st.integers(0, 5)))
        if draw(st.integers(0, 5)) == 0:
            events.append(draw(st.integers(1, id_)))
    return events


def whole(request: Submit) -> tuple[list[int], str]:
    """What the request must bring when nobody aborts it."""
    tokens = expected_tokens(request.prompt, request.sampling, request.max_tokens, VOCAB)
    ends = [i for i, t in enumerate(tokens) if t in request.stop_token_ids]
    return (tokens[: ends[0] + 1], "stop") if ends else (tokens, "length")


class Client:
    """Collects what an engine sends."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[Token]] = {}

    def take(self, done: StepDone) -> None:
        ids = [t.id for t in done.tokens]
        assert len(set(ids)) == len(ids), "one token a sequence a step"
        for t in done.tokens:
            self.tokens.setdefault(t.id, []).append(t)


def check_stream(request: Submit, got: list[Token], aborted: bool) -> None:
    tokens, finish = whole(request)
    found = [t.token for t in got]
    assert found == tokens[: len(found)] if aborted else found == tokens
    assert all(t.finish is None for t in got[:-1])
    if not aborted or found == tokens:
        assert got[-1].finish == finish
    assert [t.cached is not None for t in got] == [i == 0 for i in range(len(got))]
    for t in got:
        assert t.logprob == (None if request.logprobs is None else -t.token)
        assert t.top == (None if request.logprobs is None else [(i, -i) for i in range(request.logprobs)])
