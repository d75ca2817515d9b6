"""Device functions shared by greedy, log_probs and sample: floats as integers that sort, and a row's best values."""

import triton
import triton.language as tl

NONE = tl.constexpr(-(2**63))  # below every packed value


@triton.jit
def ordered_bits(z):
    """Integers that compare as the floats do; -0 equals 0."""
    bits = (z + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def ordered_float(bits):
    """The float of ordered_bits."""
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def pack_best(z, column):
    """Integers, all different, whose order is that of z, and among equal z the lowest column's is the highest."""
    return (ordered_bits(z).to(tl.int64) << 32) | (0xFFFFFFFF - column.to(tl.int64))


@triton.jit
def best_column(best):
    return (0xFFFFFFFF - (best & 0xFFFFFFFF)).to(tl.int32)


@triton.jit
def best_value(best):
    return ordered_float((best >> 32).to(tl.int32))


@triton.jit
def read_chunks(logits_ptr, row, chunk, V: tl.constexpr, CHUNK: tl.constexpr):
    """(values [CHUNKS, CHUNK], -inf behind the row; the best of each chunk, packed; its value, or 0 where that is -inf)

    The last is what exponents are taken from: it keeps them from being inf - inf.
    """
    column = chunk[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    z = tl.load(logits_ptr + row * V + column, mask=column < V, other=float("-inf"))
    best = tl.max(pack_best(z, column), axis=1)
    maximum = best_value(best)
    return z, best, tl.where(maximum == float("-inf"), 0.0, maximum)


@triton.jit
def kth_of_chunks(best_ptr, best, k, C: tl.constexpr):
    """The k-th largest of the C chunks' best, or NONE if there are fewer: the row's k-th largest is no smaller.

    `best` is what lies at best_ptr, padded with NONE.
    """
    AT_ONCE: tl.constexpr = 16
    rank = tl.zeros_like(best).to(tl.int32)
    for start in range(0, C, AT_ONCE):
        chunk = start + tl.arange(0, AT_ONCE)
        other = tl.load(best_ptr + chunk, mask=chunk < C, other=NONE)
        rank += tl.sum((other[None, :] > best[:, None]).to(tl.int32), axis=1)
    return tl.max(tl.where((rank == k - 1) & (best != NONE), best, NONE))


@triton.jit
def select_chunks(best, least, selected_ptr, C_BLOCK: tl.constexpr):
    """Write the numbers of the chunks whose best is at least `least`, rising; return how many."""
    selected = best >= least
    tl.store(selected_ptr + tl.cumsum(selected.to(tl.int32)) - 1, tl.arange(0, C_BLOCK), mask=selected)
    tl.debug_barrier()
    return tl.sum(selected.to(tl.int32))
