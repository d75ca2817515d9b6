"""The fast library's reading of a checkpoint's tokenizer."""

from pathlib import Path

from oi.runtime.bpe import FastBpe, load_fast


def fast_of(folder: Path) -> FastBpe:
    fast = load_fast(folder / "tokenizer.json")
    assert fast is not None
    return fast
