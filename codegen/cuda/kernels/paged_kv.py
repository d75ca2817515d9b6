"""Device functions of attention_decode and attention_prefill: keys and values of a paged cache, through pointers."""

import triton
import triton.language as tl


@triton.jit
def find_pages(pages_ptr, position, context_len, B: tl.constexpr):
    """The page of each position, page 0 behind the context. To be called a block ahead of load_block.

    Otherwise every copy would wait for its address.
    """
    return tl.load(pages_ptr + position // B, mask=position < context_len, other=0)


@triton.jit
def load_block(
    head_kv_ptr, page, position, context_len, L: tl.constexpr, K: tl.constexpr, B: tl.constexpr, D: tl.constexpr
):
    """k, v [BLOCK, D] of one head; zeros behind the context."""
    d = tl.arange(0, D)
    inside = (position < context_len)[:, None]
    line = head_kv_ptr + page.to(tl.int64) * (L * 2 * K * B * D) + (position % B) * D
    k = tl.load(line[:, None] + d[None, :], mask=inside, other=0.0)
    v = tl.load(line[:, None] + (K * B * D) + d[None, :], mask=inside, other=0.0)
    return k, v
