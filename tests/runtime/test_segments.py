"""Conversations encoded with the cache have the ids that they have without."""

import random
import threading
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oi.runtime.segments import SegmentCache
from oi.runtime.tokenizer import Tokenizer
from tests import tiny_tokenizer
from tests.runtime.fast import fast_of

SPECIALS = st.sampled_from(tiny_tokenizer.SPECIAL)
EDGES = st.sampled_from(
    ["", " ", "\n", "\u0301", "e", "e\u0301", "'s", "\u1161", "ᄒ", "\u200d", "🙂", "<|im_", "end|>"]
)
SEGMENTS = st.builds(lambda a, b, c: a + b + c, EDGES, st.text(max_size=30), EDGES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer.write(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module", params=["reference", "fast"])
def warm(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    """It has seen all that the tests before have shown it."""
    tokenizer = Tokenizer(folder)
    if request.param == "fast":
        tokenizer.take_up(fast_of(folder))
        assert tokenizer.fast
    tokenizer._segments = SegmentCache(4000)
    return tokenizer


@settings(deadline=None)
@given(turns=st.lists(st.tuples(SEGMENTS, SPECIALS), min_size=1, max_size=8))
def test_each_turn_of_a_conversation(warm: Tokenizer, folder: Path, turns: list[tuple[str, str]]) -> None:
    """The library alone, with the whole text at once and with nothing remembered, is the standard."""
    import tokenizers

    text = ""
    for segment, special in turns:
        text += segment + special
        fresh = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert warm.encode(text).tolist() == fresh.encode(text, add_special_tokens=False).ids


def test_it_remembers_what_was_used_last_within_its_bound() -> None:
    cache = SegmentCache(10_000)
    for i in range(1000):
        cache.put(f"text {i}", array("i", [i] * 10))
        assert cache.get("text 0") == array("i", [0] * 10)
        assert sum(text.__sizeof__() + ids.__sizeof__() for text, ids in cache._ids.items()) <= 10_000
    assert cache.get("text 999") == array("i", [999] * 10)
    assert cache.get("text 500") is None
    assert len(cache._ids) > 20


def test_a_text_that_would_drive_out_all_others_is_not_kept() -> None:
    cache = SegmentCache(10_000)
    cache.put("x", array("i", [1]))
    cache.put("y" * 9000, array("i", [2]))
    assert cache.get("x") == array("i", [1])
    assert cache.get("y" * 9000) is None


def test_ids_given_out_are_not_those_remembered(warm: Tokenizer) -> None:
    text = "some text<|im_end|>some other"
    first = warm.encode(text)
    copy = first[:]
    del first[:]
    assert warm.encode(text) == copy
    alone = warm.encode("some text")
    alone.append(0)
    assert warm.encode("some text") == alone[:-1]


def test_threads_share_it() -> None:
    cache = SegmentCache(3000)
    wrong: list[str] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(3000):
            n = rng.randrange(60)
            found = cache.get(f"text {n}")
            if found not in (None, array("i", [n])):
                wrong.append(f"{n}: {found}")
            cache.put(f"text {n}", array("i", [n]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    actual = sum(text.__sizeof__() + ids.__sizeof__() + 128 for text, ids in cache._ids.items())
    assert cache._bytes == actual <= 3000
