from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from oi.runtime.bpe import FastBpe
from oi.runtime.errors import CheckpointError, RequestError
from oi.runtime.tokenizer import Tokenizer
from tests import tiny_tokenizer
from tests.runtime.fast import fast_of

WORDS = st.sampled_from(
    [*tiny_tokenizer.SPECIAL, *tiny_tokenizer.NOT_SPECIAL, "<|im_", "end|>", "é", "🙂", "\n\n", " "]
)
TEXTS = st.lists(WORDS | st.text(), max_size=12).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer.write(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module", params=["reference", "fast"])
def ours(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    tokenizer = Tokenizer(folder)
    if request.param == "fast":
        tokenizer.take_up(fast_of(folder))
        assert tokenizer.fast
    return tokenizer


@pytest.fixture(scope="module")
def theirs(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@given(text=TEXTS)
def test_encodes_like_the_library(ours: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids


@given(text=TEXTS)
def test_without_specials_no_control_token_comes_out(ours: Tokenizer, text: str) -> None:
    ids = ours.encode(text, specials=False)
    assert not any(map(ours.is_special, ids))
    assert ours.encode(ours.decode(ids), specials=False) == ids


@given(data=st.data())
def test_decodes_like_the_library(ours: Tokenizer, theirs: tokenizers.Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, theirs.get_vocab_size() + 20)))
    skip = data.draw(st.booleans())
    assert ours.decode(ids, skip_specials=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_all_bytes_have_a_token(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    singles = {ours.token_bytes(id) for id in range(theirs.get_vocab_size())}
    assert {bytes([b]) for b in range(256)} <= singles


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "<|im_start|>\udc80"])
def test_half_a_surrogate_pair_is_refused(ours: Tokenizer, text: str) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        ours.encode(text)


def test_the_change_of_library_is_not_seen(folder: Path) -> None:
    """Texts and tokens met before it, and after."""
    tokenizer = Tokenizer(folder)
    text = "hello <|im_end|> naïve café 日本語"
    before = tokenizer.encode(text), tokenizer.decode(range(530), skip_specials=False)
    tokenizer.take_up(fast_of(folder))
    assert tokenizer.fast
    assert (tokenizer.encode(text), tokenizer.decode(range(530), skip_specials=False)) == before


def test_a_library_that_differs_is_not_taken_up(folder: Path) -> None:
    class Other(FastBpe):
        def encode(self, texts: list[str]) -> list[list[int]]:
            return [ids[:-1] for ids in super().encode(texts)]

    tokenizer = Tokenizer(folder)
    tokenizer.take_up(Other(folder / "tokenizer.json"))
    assert not tokenizer.fast


def test_names_the_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path)


def test_refuses_a_tokenizer_that_is_not_byte_level(tmp_path: Path) -> None:
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="byte-level"):
        Tokenizer(tmp_path)
