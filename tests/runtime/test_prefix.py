"""The prefix index beside a plain ordered dict, and chains of hashes beside those computed from nothing."""

from __future__ import annotations

import random
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import pytest
from numpy.typing import NDArray

from oi.runtime import prefix
from oi.runtime.prefix import Chains, PrefixIndex, root_hash

PAGE_SIZE = 4


def _plainly(root: bytes, tokens: array[int], num_pages: int) -> list[bytes]:
    chain = [root]
    for page in range(num_pages):
        content = tokens[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        chain.append(blake2b(chain[-1] + content.tobytes(), digest_size=16).digest())
    return chain[1:]


def test_what_is_remembered_of_chains_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that begin alike and part anywhere, extended at any page, while most of them are forgotten again."""
    monkeypatch.setattr(prefix, "_RUN", 3)
    monkeypatch.setattr(prefix, "_MOST_RUNS", 5)
    rng = random.Random()
    chains = Chains(PAGE_SIZE)
    stems = [rng.choices(range(1 << 31), k=20 * PAGE_SIZE) for _ in range(2)]
    for _ in range(500):
        stem = rng.choice(stems)[: rng.randrange(20 * PAGE_SIZE)]
        tokens = array("i", stem + rng.choices(range(3), k=rng.randrange(3 * PAGE_SIZE)))
        root, chain, full = root_hash(rng.choice("ab")), [], len(tokens) // PAGE_SIZE
        for num_pages in (*sorted(rng.choices(range(full + 1), k=rng.randrange(3))), full, 0):
            chains.extend(root, chain, tokens, num_pages)
        assert chain == _plainly(root, tokens, full)
        assert len(chains._runs) <= 5


class _Model:
    """The order of eviction as a list of pages, those first that go first."""

    def __init__(self) -> None:
        self.aged: OrderedDict[int, None] = OrderedDict()
        self.idle: OrderedDict[int, None] = OrderedDict()

    def unpark(self, page: int) -> None:
        self.aged.pop(page, None)
        self.idle.pop(page, None)

    def evict(self) -> int:
        return (self.aged or self.idle).popitem(last=False)[0]

    def age(self) -> int:
        page, _ = self.idle.popitem(last=False)
        self.aged[page] = None
        return page


def _some(rng: random.Random, pages: set[int]) -> list[int]:
    return rng.sample(sorted(pages), rng.randint(0, len(pages)))


def _named(found: tuple[NDArray[np.int32], list[bytes]]) -> list[tuple[int, bytes]]:
    pages, hashes = found
    return list(zip(pages.tolist(), hashes, strict=True))


def _hashes() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield number.to_bytes(16, "little")


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_pages_are_parked_aged_and_evicted_in_order_of_use(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(prefix, "_AT_ONCE", at_once)
    rng, fresh, pages = random.Random(), _hashes(), 12
    index, model = PrefixIndex(pages), _Model()
    hash_of: dict[int, bytes] = {}
    held: set[int] = set()
    for _ in range(3000):
        match rng.choice(["insert", "park", "unpark", "evict", "age"]):
            case "insert":
                new = _some(rng, set(range(pages)) - hash_of.keys())
                named = dict(zip(new, fresh, strict=False))
                index.insert(list(named.values()), list(named))
                hash_of |= named
                held |= named.keys()
            case "park":
                parked = _some(rng, held)
                index.park(np.array(parked, np.int32))
                model.idle.update(dict.fromkeys(parked))
                held -= set(parked)
            case "unpark":
                wanted = _some(rng, set(hash_of))
                assert index.count_idle(np.array(wanted, np.int32)) == len(set(wanted) - held)
                index.unpark(np.array(wanted, np.int32))
                for page in wanted:
                    model.unpark(page)
                held |= set(wanted)
            case "evict":
                evicted = [model.evict() for _ in range(rng.randint(0, index.num_idle))]
                assert _named(index.evict(len(evicted))) == [(page, hash_of.pop(page)) for page in evicted]
            case "age":
                aged = [model.age() for _ in range(rng.randint(0, index.num_idle - index.num_aged))]
                assert _named(index.age(len(aged))) == [(page, hash_of[page]) for page in aged]
        assert index.idle_pages() == [*model.aged, *model.idle]
        assert (index.num_aged, index.num_idle) == (len(model.aged), len(model.aged) + len(model.idle))
        assert index.find([*hash_of.values(), b"?"]) == [*hash_of, -1]
        index.check()


def test_a_hash_has_one_page_and_a_page_one_hash() -> None:
    index = PrefixIndex(4)
    index.insert([b"a"], [0])
    with pytest.raises(AssertionError):
        index.insert([b"a"], [1])
    index = PrefixIndex(4)
    index.insert([b"a"], [0])
    with pytest.raises(AssertionError):
        index.insert([b"b"], [0])
