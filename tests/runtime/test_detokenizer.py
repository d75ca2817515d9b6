import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oi.runtime.detokenizer import Detokenizer, StopMatcher
from oi.runtime.tokenizer import Tokenizer
from tests import tiny_tokenizer

STOPS = st.lists(st.text("aab", min_size=1, max_size=5), max_size=4)
PIECES = st.lists(st.text("aabc", max_size=4), max_size=12)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(tiny_tokenizer.write(tmp_path_factory.mktemp("tokenizer")))


@given(ids=st.lists(st.integers(0, 530)), skip=st.booleans())
def test_pieces_joined_are_the_decoded_text(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    detokenizer = Detokenizer(tokenizer, skip_specials=skip)
    pieces = [detokenizer.push(id) for id in ids]
    assert "".join(pieces) + detokenizer.flush() == tokenizer.decode(ids, skip_specials=skip)


@given(text=st.text())
def test_valid_text_never_shows_a_replacement_character(tokenizer: Tokenizer, text: str) -> None:
    bytewise = {tokenizer.token_bytes(id): id for id in range(256)}
    detokenizer = Detokenizer(tokenizer)
    shown = ""
    for byte in text.encode():
        shown += detokenizer.push(bytewise[bytes([byte])])
        assert text.startswith(shown)
    assert shown == text
    assert detokenizer.flush() == ""


def _cut(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """The definition, without increments: the first end of any stop, the longest of those."""
    for end in range(1, len(text) + 1):
        ending = [s for s in stops if text[:end].endswith(s)]
        if ending:
            stop = max(ending, key=len)
            return text[:end] if include else text[: end - len(stop)], stop
    return text, None


@given(pieces=PIECES, stops=STOPS, include=st.booleans())
@example(pieces=["abcd"], stops=["bc"], include=False)
def test_text_ends_at_the_first_stop_however_it_is_cut(pieces: list[str], stops: list[str], include: bool) -> None:
    matcher = StopMatcher(stops, include_stop=include)
    shown, stopped = "", None
    for piece in pieces:
        new, stopped = matcher.push(piece)
        shown += new
        if stopped is not None:
            break
    else:
        shown += matcher.flush()
    assert (shown, stopped) == _cut("".join(pieces), stops, include)


@given(pieces=PIECES, stops=STOPS)
def test_holds_back_what_may_begin_a_stop_and_no_more(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    text = shown = ""
    for piece in pieces:
        text += piece
        new, stopped = matcher.push(piece)
        if stopped is not None:
            return
        shown += new
        begins = [n for n in range(len(text) + 1) for s in stops if s.startswith(text[len(text) - n :])]
        assert len(text) - len(shown) == max(begins, default=0)
