"""The fast library gives the reference's ids, on everything that Unicode has."""

import random
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import make_checkpoint
from oi.runtime import bpe
from oi.runtime.bpe import SAMPLE, FastBpe, ReferenceBpe, load_fast
from tests import tiny_tokenizer

BUNDLED = make_checkpoint.BUNDLED
POINTS = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
ADDED = [*make_checkpoint.ADDED, "<|im_", "end|>", "<think"]
HARD = ["'S", "'ſ", "'ll", "'LL", " ", "\t", "\r", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\x85", "\x00", "\x1c"]
HARD += [
    "e\u0301",
    "A\u030a\u0323",
    "ᄒ\u1161\u11ab",
    "각",
    "\u0344",
    "ﬃ",
    "½",
    "Ⅷ",
    "١٢",
    "１",
    "\u200d",
    "\ufe0f",
    "🇩🇪",
]
HARD += ["👩‍👩‍👧‍👦", "🏽", "\ufeff", "\ufffd", "\U0010ffff"]
PIECES = (
    st.sampled_from([*HARD, *ADDED])
    | st.text()
    | st.builds(str.__mul__, st.sampled_from([*HARD, "a", "Z", "7", "!", "中"]), st.integers(1, 3000))
)
TEXTS = st.lists(PIECES, max_size=10).map("".join)


@pytest.fixture(scope="module", params=["bundled", "Qwen3's size", "test"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    match request.param:
        case "bundled":
            folder = BUNDLED
        case "test":
            tiny_tokenizer.write(folder)
        case _:
            make_checkpoint._write_tokenizer(BUNDLED, folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def reference(path: Path) -> ReferenceBpe:
    return ReferenceBpe(path)


@pytest.fixture(scope="module")
def fast(path: Path) -> FastBpe:
    return FastBpe(path)


def test_every_character_that_unicode_assigns(reference: ReferenceBpe, fast: FastBpe, path: Path) -> None:
    """With one tokenizer; some of them with the others, whose splitting is the same. Of the unassigned, some."""
    assigned = [c for c in POINTS if unicodedata.category(c) not in ("Cn", "Co")]
    chosen = assigned if path.parent == BUNDLED else random.sample(assigned, 10_000)
    chosen = chosen + random.sample(POINTS, 10_000)
    for start in range(0, len(chosen), 1024):
        text = "".join(f"{c} a{c}" for c in chosen[start : start + 1024])
        assert fast.encode([text]) == reference.encode([text]), ascii(chosen[start : start + 1024])


def test_every_combining_character(reference: ReferenceBpe, fast: FastBpe) -> None:
    """Normalization puts them in order, and composes them with what is before."""
    marks = [c for c in POINTS if unicodedata.combining(c)]
    bases = ["a", "e", "Å", "क", "ᄀ", "が", " ", "\n", "1"]
    texts = [random.choice(bases) + "".join(random.choices(marks, k=random.randint(1, 4))) for _ in range(5000)]
    for text, expected, found in zip(texts, reference.encode(texts), fast.encode(texts), strict=True):
        assert found == expected, ascii(text)


@settings(deadline=None)
@given(text=TEXTS)
def test_any_text(reference: ReferenceBpe, fast: FastBpe, text: str) -> None:
    assert fast.encode([text]) == reference.encode([text])


@pytest.mark.parametrize("length", [1 << 14, 1 << 17])
@pytest.mark.parametrize("unit", ["a", " ", "\n", "7", "!?", "é", "e\u0301", "中", "👍🏽", SAMPLE])
def test_long_runs(reference: ReferenceBpe, fast: FastBpe, unit: str, length: int) -> None:
    """Beyond the lengths from which the library lets go of the interpreter, or uses other threads."""
    text = unit * (length // len(unit))
    assert fast.encode([text]) == reference.encode([text])


def test_every_token_is_named_alike(reference: ReferenceBpe, fast: FastBpe) -> None:
    assert all(fast.token(id) == reference.token(id) for id in range(153_000))


def test_half_a_surrogate_pair_is_an_error(reference: ReferenceBpe, fast: FastBpe) -> None:
    with pytest.raises(TypeError):
        reference.encode(["a\ud800b"])
    with pytest.raises(UnicodeEncodeError):
        fast.encode(["a\ud800b"])


def test_there_need_be_no_fast_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_fast(path), FastBpe)
    assert load_fast(path.with_name("none.json")) is None
    monkeypatch.setitem(sys.modules, "fastokens._native", None)
    assert load_fast(path) is None


def test_the_sample_is_composed_by_normalization() -> None:
    assert unicodedata.normalize("NFC", bpe.SAMPLE) != bpe.SAMPLE
