"""token[r] = inverse_cdf(top_p(top_k(min_p(softmax(edit(logits[r]) / temperature[r])))), uniform[r]). Two launches.

sample_chunks   edits, then of every row and CHUNK columns: best i64 [R, C] (as in greedy) and
                sums f32 [R, C] = Σ exp((z - the chunk's maximum) / temperature)
sample          one program a row: cut and draw (steps 2–6 of ir/ops/sampling.py)

Operands as in ir/ops/sampling.py; logits f32 [R, V] are edited in place and restored bit by bit from `original`
f32 [E] before the second launch ends.

Every cut keeps the tokens above a threshold, so there is no sorting: a histogram of distances from the maximum
bounds what can be kept, those candidates (if at most CANDIDATES) are gathered in token order, and each threshold is
found exactly by bisection over the order-preserving bits of the logits. Too many candidates: the same steps read the
row itself. Sums run in a fixed order, so that a row gives the same token every time.

    candidates f32 [R, CANDIDATES], candidate_tokens i32 [R, CANDIDATES]     scratch
Floor: 4·R·V bytes; a truncated row is read three times, from L2 where the batch fits.
"""

import triton
import triton.language as tl

from oi.codegen.cuda.kernels.greedy import best_column, ordered_bits, ordered_float, pack_best

LOG2E = tl.constexpr(1.4426950408889634)
BINS = tl.constexpr(2048)
PER_NAT = tl.constexpr(32)  # bins for each factor of e; the last bin takes all beyond 64 nats


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
    CHUNK: tl.constexpr,
    PDL: tl.constexpr,
):
    EDITS: tl.constexpr = 128
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    row_ptr = logits_ptr + row * V
    first = tl.load(edit_starts_ptr + row)
    end = first + tl.load(edit_lens_ptr + row)
    for start in range(first, end, EDITS):
        edit = start + tl.arange(0, EDITS)
        token = tl.load(edit_tokens_ptr + edit, mask=edit < end, other=-1)
        own = (token >= chunk * CHUNK) & (token < (chunk + 1) * CHUNK)
        z = tl.load(row_ptr + token, mask=own)
        tl.store(original_ptr + edit, z, mask=own)
        scale = tl.load(edit_scale_ptr + edit, mask=own, other=1.0)
        z = tl.where(z > 0, z / scale, z * scale) + tl.load(edit_add_ptr + edit, mask=own, other=0.0)
        tl.store(row_ptr + token, z, mask=own)
    tl.debug_barrier()

    column = chunk * CHUNK + tl.arange(0, CHUNK)
    z = tl.load(row_ptr + column, mask=column < V, other=float("-inf"))
    maximum = tl.max(z)
    base = tl.where(maximum == float("-inf"), 0.0, maximum)
    temperature = tl.load(temperature_ptr + row)
    rate = LOG2E / tl.where(temperature > 0, temperature, 1.0)
    place = row * tl.num_programs(1) + chunk
    tl.store(best_ptr + place, tl.max(pack_best(z, column)))
    tl.store(sums_ptr + place, tl.sum(tl.exp2((z - base) * rate)))


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
    low = low.to(tl.int64)
    high = high.to(tl.int64)
    while low + 1 < high:
        middle = (low + high) >> 1
        if _measure(source_ptr, length, middle, maximum, rate, min_p, COUNT, BLOCK) >= least:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def _histogram(row_ptr, maximum, nats, V: tl.constexpr, BLOCK: tl.constexpr):
    """How many of a row's values lie in each bin of distance below the maximum."""
    counts = tl.zeros([BINS], tl.int32)
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(row_ptr + i, mask=i < V, other=float("-inf"))
        counts += tl.histogram(_bin(z, maximum, nats), BINS, mask=i < V)
    return counts


@triton.jit
def _bin(z, maximum, nats):
    return tl.minimum((maximum - z) * (nats * PER_NAT), BINS - 1).to(tl.int32)


@triton.jit
def _last_bin(counts, total, top_k, top_p, min_p):
    """No kept value, and none that a cut must weigh to be made, lies in a bin after this one."""
    bins = tl.arange(0, BINS)
    last = BINS - 1
    if min_p > 0:
        last = tl.minimum(last, (-tl.log(min_p) * PER_NAT).to(tl.int32) + 1)
    if top_k > 0:
        last = tl.minimum(last, tl.sum((tl.cumsum(counts) < top_k).to(tl.int32)))
    if (min_p <= 0) & (top_k <= 0):
        # Each bin weighs at least its count at its far edge. The slack covers rounding.
        least = tl.cumsum(counts * tl.exp2((bins + 1) * (-LOG2E / PER_NAT)))
        last = tl.minimum(last, tl.sum((least < top_p * total * 1.0001).to(tl.int32)))
    return last


@triton.jit
def _gather(
    row_ptr, candidates_ptr, tokens_ptr, maximum, nats, last_bin, V: tl.constexpr, BLOCK: tl.constexpr
):
    """Copy the values of bins up to `last_bin`, in token order."""
    gathered = 0
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(row_ptr + i, mask=i < V, other=float("-inf"))
        kept = (i < V) & (_bin(z, maximum, nats) <= last_bin)
        count = tl.sum(kept.to(tl.int32))
        if count > 0:
            place = gathered + tl.cumsum(kept.to(tl.int32)) - 1
            tl.store(candidates_ptr + place, z, mask=kept)
            tl.store(tokens_ptr + place, i, mask=kept)
        gathered += count


@triton.jit
def _draw(source_ptr, length, least_bits, goal, maximum, rate, min_p, BLOCK: tl.constexpr):
    """The first kept place whose running weight exceeds `goal`; where rounding leaves none, the last kept place."""
    NOWHERE: tl.constexpr = 2**31 - 1
    found = NOWHERE
    last = 0
    before = 0.0
    start = 0
    while (start < length) & (found == NOWHERE):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(source_ptr + i, mask=i < length, other=float("-inf"))
        weight = tl.exp2((z - maximum) * rate)
        kept = (i < length) & (weight >= min_p) & (ordered_bits(z) >= least_bits) & (weight > 0)
        weight = tl.where(kept, weight, 0.0)
        sum = tl.sum(weight)
        if before + sum > goal:
            running = before + tl.cumsum(weight)
            found = tl.min(tl.where(kept & (running > goal), i, NOWHERE))
        last = tl.maximum(last, tl.max(tl.where(kept, i, 0)))
        before += sum
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
    candidates_ptr,
    candidate_tokens_ptr,
    V: tl.constexpr,
    C: tl.constexpr,
    C_BLOCK: tl.constexpr,
    CANDIDATES: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    EDITS: tl.constexpr = 128
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * V
    chunk = tl.arange(0, C_BLOCK)
    best = tl.load(best_ptr + row * C + chunk, mask=chunk < C, other=-(2**63))
    highest = tl.max(best)
    temperature = tl.load(temperature_ptr + row)
    if temperature <= 0:
        tl.store(token_ptr + row, best_column(highest))
    else:
        top_k = tl.load(top_k_ptr + row)
        top_p = tl.load(top_p_ptr + row)
        min_p = tl.load(min_p_ptr + row)
        highest_bits = (highest >> 32).to(tl.int32)
        maximum = ordered_float(highest_bits)
        nats = 1.0 / temperature
        rate = nats * LOG2E
        maxima = ordered_float((best >> 32).to(tl.int32))
        sums = tl.load(sums_ptr + row * C + chunk, mask=chunk < C, other=0.0)
        total = tl.sum(tl.where(sums > 0, sums * tl.exp2((maxima - maximum) * rate), 0.0))

        source_ptr = row_ptr
        length = V
        low = ordered_bits(tl.full([], float("-inf"), tl.float32))
        if (top_k > 0) | (top_p < 1) | (min_p > 0):
            counts = _histogram(row_ptr, maximum, nats, V, BLOCK)
            last_bin = _last_bin(counts, total, top_k, top_p, min_p)
            count = tl.sum(tl.where(tl.arange(0, BINS) <= last_bin, counts, 0))
            if count <= CANDIDATES:
                source_ptr = candidates_ptr + row * CANDIDATES
                _gather(
                    row_ptr,
                    source_ptr,
                    candidate_tokens_ptr + row * CANDIDATES,
                    maximum,
                    nats,
                    last_bin,
                    V,
                    BLOCK,
                )
                tl.debug_barrier()
                length = count
            if last_bin < BINS - 1:
                low = ordered_bits(maximum - (last_bin + 2) * temperature / PER_NAT)

        least_bits = low.to(tl.int64)
        high = highest_bits.to(tl.int64) + 1
        if top_k > 0:
            if _measure(source_ptr, length, least_bits, maximum, rate, min_p, True, BLOCK) > top_k:
                least_bits = _bisect(source_ptr, length, least_bits, high, top_k, maximum, rate, min_p, True, BLOCK)
        kept = total
        if (top_k > 0) | (min_p > 0):
            kept = _measure(source_ptr, length, least_bits, maximum, rate, min_p, False, BLOCK)
        if top_p < 1:
            goal = top_p * kept
            least_bits = _bisect(source_ptr, length, least_bits, high, goal, maximum, rate, min_p, False, BLOCK)
            kept = _measure(source_ptr, length, least_bits, maximum, rate, min_p, False, BLOCK)
        goal = tl.load(uniform_ptr + row) * kept
        place = _draw(source_ptr, length, least_bits, goal, maximum, rate, min_p, BLOCK)
        if length < V:
            place = tl.load(candidate_tokens_ptr + row * CANDIDATES + place)
        tl.store(token_ptr + row, place)

    tl.debug_barrier()
    first = tl.load(edit_starts_ptr + row)
    end = first + tl.load(edit_lens_ptr + row)
    for start in range(first, end, EDITS):
        edit = start + tl.arange(0, EDITS)
        token = tl.load(edit_tokens_ptr + edit, mask=edit < end, other=0)
        tl.store(row_ptr + token, tl.load(original_ptr + edit, mask=edit < end), mask=edit < end)
