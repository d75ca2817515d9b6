"""to[i] = source[i]: a step's inputs on their way to the GPU, and its results on their way back.

i32 [words] each; one of the two lies in page-locked memory of the host, which the GPU reads and writes over the bus.
Multiprocessors copy, not the copy engines: those are busy for milliseconds with KV pages that leave or come back, and
a step would wait behind them. Grid: words / BLOCK. Floor: a round trip over the bus.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["words"])
def copy_words(to_ptr, source_ptr, words, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < words
    tl.store(to_ptr + at, tl.load(source_ptr + at, mask=inside), mask=inside)
