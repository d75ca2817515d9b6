"""token[r] = inverse_cdf(top_p(top_k(min_p(softmax(edit(logits[r]) / temperature[r])))), uniform[r]). Two launches.

sample_chunks   edits, then of CHUNKS chunks of CHUNK columns a program: best i64 [R, C] (packed as in ordered.py)
                and sums f32 [R, C] = Σ exp((z - the chunk's highest) / temperature)
sample          one program a row: cut and draw (steps 2–6 of ir/ops/sampling.py)

Operands as in ir/ops/sampling.py; logits f32 [R, V] are edited in place and restored bit by bit from `original`
f32 [E] before the second launch ends.

Every cut keeps the tokens above a threshold, so nothing is sorted. The chunks' best and sums bound what can be kept;
chunks that reach the bound are read again and their candidates gathered in token order. Up to RANKED of them are
cut by counting and weighing what is at least as large as each; more, by bisection over the order-preserving bits,
on the candidates if at most CANDIDATES, otherwise on the row itself. An uncut row reads one chunk again. Sums run in
a fixed order, so that a row gives the same token every time.

    selected i32 [R, C_BLOCK], candidates f32 [R, CANDIDATES], candidate_tokens i32 [R, CANDIDATES]     scratch
Floor: 4·R·V bytes.
"""

import triton
import triton.language as tl

from oi.codegen.cuda.kernels.ordered import (
    NONE,
    best_column,
    best_value,
    kth_of_chunks,
    ordered_bits,
    read_chunks,
    select_chunks,
)

LOG2E = tl.constexpr(1.4426950408889634)
NOWHERE = tl.constexpr(2**31 - 1)
EDITS = tl.constexpr(128)  # at once


@triton.jit
def sample_chunks(
    logits_ptr,
    edit_starts_ptr,
    edit_lens_ptr,
    edit_tokens_ptr,
    edit_scale_ptr,
    edit_add_ptr,
    temperature_ptr,
    best_ptr,
    sums_ptr,
    original_ptr,
    V: tl.constexpr,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * V
    first_column = tl.program_id(1) * (CHUNKS * CHUNK)
    first = tl.load(edit_starts_ptr + row)
    end = first + tl.load(edit_lens_ptr + row)
    for start in range(first, end, EDITS):
        edit = start + tl.arange(0, EDITS)
        token = tl.load(edit_tokens_ptr + edit, mask=edit < end, other=-1)
        own = (token >= first_column) & (token < first_column + CHUNKS * CHUNK)
        z = tl.load(row_ptr + token, mask=own)
        tl.store(original_ptr + edit, z, mask=own)
        scale = tl.load(edit_scale_ptr + edit, mask=own, other=1.0)
        z = tl.where(z > 0, z / scale, z * scale) + tl.load(edit_add_ptr + edit, mask=own, other=0.0)
        tl.store(row_ptr + token, z, mask=own)
    tl.debug_barrier()

    chunk = tl.program_id(1) * CHUNKS + tl.arange(0, CHUNKS)
    z, best, base = read_chunks(logits_ptr, row, chunk, V, CHUNK)
    temperature = tl.load(temperature_ptr + row)
    rate = LOG2E / tl.where(temperature > 0, temperature, 1.0)
    tl.store(best_ptr + row * C + chunk, best, mask=chunk < C)
    tl.store(sums_ptr + row * C + chunk, tl.sum(tl.exp2((z - base[:, None]) * rate), axis=1), mask=chunk < C)


@triton.jit
def _bound(best_ptr, best, total, maximum, temperature, top_k, top_p, min_p, V: tl.constexpr, C: tl.constexpr):
    """A packed value that no kept token lies below, and none that a cut must weigh to be made."""
    least = tl.full([], NONE, tl.int64)
    # In logits below the maximum; the slack covers rounding.
    if min_p > 0:
        z = maximum + temperature * (tl.log(min_p) - 1e-3)
        least = ordered_bits(z).to(tl.int64) << 32
    if (top_k > 0) & (top_k <= C):
        least = tl.maximum(least, kth_of_chunks(best_ptr, best, top_k, C))
    if (top_k <= 0) & (min_p <= 0):
        # Tokens each lighter than (1 - top_p) / V of all weigh less than 1 - top_p together.
        z = maximum + temperature * (tl.log((1 - top_p) * total / V) - 1e-3)
        least = ordered_bits(z).to(tl.int64) << 32
    return least


@triton.jit
def _gather(
    row_ptr,
    best,
    least,
    selected_ptr,
    candidates_ptr,
    tokens_ptr,
    V: tl.constexpr,
    C_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    CANDIDATES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copy the values from `least` on in token order, as far as they fit; return how many there are.

    Whole ties are taken, though their packed values differ: the cuts keep all equal values or none.
    """
    least = (least >> 32) << 32
    length = select_chunks(best, least, selected_ptr, C_BLOCK) * CHUNK
    count = 0
    start = 0
    while (start < length) & (count <= CANDIDATES):
        i = start + tl.arange(0, BLOCK)
        column = tl.load(selected_ptr + i // CHUNK, mask=i < length, other=0) * CHUNK + i % CHUNK
        z = tl.load(row_ptr + column, mask=(i < length) & (column < V), other=float("-inf"))
        kept = (i < length) & (column < V) & (ordered_bits(z) >= (least >> 32))
        place = count + tl.cumsum(kept.to(tl.int32)) - 1
        tl.store(candidates_ptr + place, z, mask=kept & (place < CANDIDATES))
        tl.store(tokens_ptr + place, column, mask=kept & (place < CANDIDATES))
        count += tl.sum(kept.to(tl.int32))
        start += BLOCK
    tl.debug_barrier()
    return count


@triton.jit
def _cut_by_rank(candidates_ptr, count, total, top_k, top_p, min_p, uniform, maximum, rate, RANKED: tl.constexpr):
    """Place of the drawn token among at most RANKED candidates. `total`: of the row, candidates or not."""
    AT_ONCE: tl.constexpr = 16
    i = tl.arange(0, RANKED)
    z = tl.load(candidates_ptr + i, mask=i < count, other=float("-inf"))
    weight = tl.exp2((z - maximum) * rate)
    kept = (i < count) & (weight >= min_p)
    as_many = tl.zeros([RANKED], tl.float32)  # values at least as large
    as_heavy = tl.zeros([RANKED], tl.float32)  # their weight
    for start in range(0, count, AT_ONCE):
        j = start + tl.arange(0, AT_ONCE)
        other = tl.load(candidates_ptr + j, mask=j < count, other=float("-inf"))
        other_weight = tl.exp2((other - maximum) * rate)
        counts = (other[None, :] >= z[:, None]) & ((j < count) & (other_weight >= min_p))[None, :]
        as_many += tl.sum(tl.where(counts, 1.0, 0.0), axis=1)
        as_heavy += tl.sum(tl.where(counts, other_weight[None, :], 0.0), axis=1)
    if top_k > 0:
        kept = kept & (z >= tl.max(tl.where(kept & (as_many >= top_k), z, float("-inf"))))
    if top_p < 1:
        if (top_k > 0) | (min_p > 0):
            total = tl.sum(tl.where(kept, weight, 0.0))
        kept = kept & (z >= tl.max(tl.where(kept & (as_heavy >= top_p * total), z, float("-inf"))))
    weight = tl.where(kept, weight, 0.0)
    found = tl.min(tl.where(kept & (tl.cumsum(weight) > uniform * tl.sum(weight)), i, NOWHERE))
    return tl.where(found == NOWHERE, tl.max(tl.where(weight > 0, i, 0)), found)


@triton.jit
def _measure(source_ptr, length, least_bits, maximum, rate, min_p, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Weight (or COUNT) of the source's values whose bits are at least `least_bits` and whose weight min_p keeps."""
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, length, BLOCK):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(source_ptr + i, mask=i < length, other=float("-inf"))
        weight = tl.exp2((z - maximum) * rate)
        kept = (i < length) & (weight >= min_p) & (ordered_bits(z) >= least_bits)
        total += tl.where(kept, 1.0 if COUNT else weight, 0.0)
    return tl.sum(total)


@triton.jit
def _bisect(source_ptr, length, low, high, least, maximum, rate, min_p, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The largest bits in [low, high) whose measure is at least `least`; that of `low` is."""
    while low + 1 < high:
        middle = (low + high) >> 1
        if _measure(source_ptr, length, middle, maximum, rate, min_p, COUNT, BLOCK) >= least:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def _cut_by_bisection(
    source_ptr, length, total, low, high, top_k, top_p, min_p, uniform, maximum, rate, BLOCK: tl.constexpr
):
    """Place of the drawn token in the source, whose kept values have bits in [low, high). `total`: of the row."""
    if top_k > 0:  # noqa: SIM102 - `and` would measure anyway
        if _measure(source_ptr, length, low, maximum, rate, min_p, True, BLOCK) > top_k:
            low = _bisect(source_ptr, length, low, high, top_k, maximum, rate, min_p, True, BLOCK)
    if top_p < 1:
        if (top_k > 0) | (min_p > 0):
            total = _measure(source_ptr, length, low, maximum, rate, min_p, False, BLOCK)
        low = _bisect(source_ptr, length, low, high, top_p * total, maximum, rate, min_p, False, BLOCK)
    goal = uniform * _measure(source_ptr, length, low, maximum, rate, min_p, False, BLOCK)
    return _draw(source_ptr, 0, length, low, goal, maximum, rate, min_p, BLOCK)


@triton.jit
def _draw(source_ptr, begin, end, least_bits, goal, maximum, rate, min_p, BLOCK: tl.constexpr):
    """The first kept place whose running weight exceeds `goal`; where rounding leaves none, the last kept place."""
    found = tl.full([], NOWHERE, tl.int32)
    start = tl.full([], 0, tl.int32) + begin
    last = start
    before = tl.full([], 0.0, tl.float32)
    while (start < end) & (found == NOWHERE):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(source_ptr + i, mask=i < end, other=float("-inf"))
        weight = tl.exp2((z - maximum) * rate)
        kept = (i < end) & (weight >= min_p) & (ordered_bits(z) >= least_bits) & (weight > 0)
        weight = tl.where(kept, weight, 0.0)
        found = tl.min(tl.where(kept & (before + tl.cumsum(weight) > goal), i, NOWHERE))
        last = tl.maximum(last, tl.max(tl.where(kept, i, 0)))
        before += tl.sum(weight)
        start += BLOCK
    return tl.where(found == NOWHERE, last, found)


@triton.jit
def sample(
    logits_ptr,
    edit_starts_ptr,
    edit_lens_ptr,
    edit_tokens_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    uniform_ptr,
    token_ptr,
    best_ptr,
    sums_ptr,
    original_ptr,
    selected_ptr,
    candidates_ptr,
    candidate_tokens_ptr,
    V: tl.constexpr,
    C: tl.constexpr,
    C_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    RANKED: tl.constexpr,
    CANDIDATES: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * V
    chunk = tl.arange(0, C_BLOCK)
    best = tl.load(best_ptr + row * C + chunk, mask=chunk < C, other=NONE)
    highest = tl.max(best)
    temperature = tl.load(temperature_ptr + row)
    if temperature <= 0:
        tl.store(token_ptr + row, best_column(highest))
    else:
        top_k = tl.load(top_k_ptr + row)
        top_p = tl.load(top_p_ptr + row)
        min_p = tl.load(min_p_ptr + row)
        uniform = tl.load(uniform_ptr + row)
        maximum = best_value(highest)
        rate = LOG2E / temperature
        sums = tl.load(sums_ptr + row * C + chunk, mask=chunk < C, other=0.0)
        masses = tl.where(sums > 0, sums * tl.exp2((best_value(best) - maximum) * rate), 0.0)
        if (top_k > 0) | (top_p < 1) | (min_p > 0):
            total = tl.sum(masses)
            least = _bound(best_ptr + row * C, best, total, maximum, temperature, top_k, top_p, min_p, V, C)
            list_ptr = candidates_ptr + row * CANDIDATES
            tokens_ptr = candidate_tokens_ptr + row * CANDIDATES
            count = _gather(
                row_ptr, best, least, selected_ptr + row * C_BLOCK, list_ptr, tokens_ptr,
                V, C_BLOCK, CHUNK, CANDIDATES, BLOCK,
            )  # fmt: skip
            if count <= RANKED:
                place = _cut_by_rank(list_ptr, count, total, top_k, top_p, min_p, uniform, maximum, rate, RANKED)
                place = tl.load(tokens_ptr + place)
            else:
                source_ptr = row_ptr
                length = tl.full([], V, tl.int32)
                if count <= CANDIDATES:
                    source_ptr = list_ptr
                    length = count
                high = (highest >> 32) + 1
                place = _cut_by_bisection(
                    source_ptr, length, total, least >> 32, high, top_k, top_p, min_p, uniform, maximum, rate, BLOCK
                )
                if count <= CANDIDATES:
                    place = tl.load(tokens_ptr + place)
        else:
            running = tl.cumsum(masses)
            goal = uniform * tl.sum(masses)
            hit = tl.min(tl.where((running > goal) & (masses > 0), chunk, NOWHERE))
            hit = tl.where(hit == NOWHERE, tl.max(tl.where(masses > 0, chunk, 0)), hit)
            goal -= tl.sum(tl.where(chunk < hit, masses, 0.0))
            start = hit * CHUNK
            place = _draw(row_ptr, start, tl.minimum(start + CHUNK, V), NONE >> 32, goal, maximum, rate, 0.0, CHUNK)
        tl.store(token_ptr + row, place)

    tl.debug_barrier()
    first = tl.load(edit_starts_ptr + row)
    end = first + tl.load(edit_lens_ptr + row)
    for start in range(first, end, EDITS):
        edit = start + tl.arange(0, EDITS)
        token = tl.load(edit_tokens_ptr + edit, mask=edit < end, other=0)
        tl.store(row_ptr + token, tl.load(original_ptr + edit, mask=edit < end), mask=edit < end)
