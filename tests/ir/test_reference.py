"""The reference semantics against torch's formulas in float64, and fused ops against the plain ones."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from oi.ir import ops
from oi.ir.op import OPS, Op
from oi.ir.reference import REFERENCE, Array
from oi.ir.types import DType

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
B = 16


@pytest.fixture(params=range(5))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


def run(op: Op, *operands: Array) -> Any:
    """The op's results; the only one by itself. Operands must come back as they were."""
    before = [operand.copy() for operand in operands]
    results = REFERENCE[type(op)](op, *operands)
    for operand, old in zip(operands, before, strict=True):
        np.testing.assert_array_equal(operand, old)
    return results[0] if len(results) == 1 else results


def close(found: Array, expected: Any, dtype: Any) -> None:
    expected = np.asarray(expected)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def f64(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(array).double() for array in arrays]


def test_every_op_has_a_reference() -> None:
    assert set(REFERENCE) | {ops.Constant} == set(OPS.values())


def test_elementwise(rng: np.random.Generator, dtype: Any) -> None:
    x, y = rng.normal(size=(2, 7, 3, 5)).astype(dtype) * 20
    close(run(ops.Add(), x, y), x + y, dtype)
    close(run(ops.Mul(), x, y), x * y, dtype)
    close(run(ops.Silu(), x), functional.silu(*f64(x)), dtype)


def test_movement(rng: np.random.Generator, dtype: Any) -> None:
    x = rng.normal(size=(7, 12)).astype(dtype)
    rows = rng.integers(0, 7, 4).astype(np.int32)
    close(run(ops.Reshape((3, 4)), x), x.reshape(7, 3, 4), dtype)
    close(run(ops.SliceColumns(2, 5), x), x[:, 2:7], dtype)
    close(run(ops.SelectRows(), x, rows), np.stack([x[row] for row in rows]), dtype)
    close(run(ops.Embedding(DType.F32), rows, x), np.stack([x[row] for row in rows]), dtype)


def test_linear(rng: np.random.Generator, dtype: Any) -> None:
    m, n, k = rng.integers(1, 40, 3)
    x, w, gate, up = (rng.normal(size=shape).astype(dtype) for shape in ((m, k), (n, k), (n, k), (n, k)))
    X, W, G, U = f64(x, w, gate, up)
    close(run(ops.Linear(DType.F32), x, w), X @ W.T, dtype)
    close(run(ops.LinearConcat(), x, w, gate[:1], up), torch.cat([X @ W.T, X @ G[:1].T, X @ U.T], 1), dtype)
    close(run(ops.SwigluLinear(), x, gate, up), functional.silu(X @ G.T) * (X @ U.T), dtype)


@pytest.mark.parametrize("heads", [(), (3,)])
def test_norms(rng: np.random.Generator, dtype: Any, heads: tuple[int, ...]) -> None:
    eps = 10.0 ** rng.integers(-6, 0)
    x, residual = rng.normal(size=(2, 5, *heads, 24)).astype(dtype)
    weight = rng.normal(size=24).astype(dtype)
    X, Residual, W = f64(x, residual, weight)
    close(run(ops.RmsNorm(eps), x, weight), functional.rms_norm(X, (24,), W, eps), dtype)
    z, y = run(ops.AddRmsNorm(eps), x, residual, weight)
    close(z, X + Residual, dtype)
    close(y, functional.rms_norm(X + Residual, (24,), W, eps), dtype)


def rope_tables(rng: np.random.Generator, tokens: int, dim: int, dtype: Any) -> tuple[Array, Array, Array]:
    positions = rng.integers(0, 50, tokens).astype(np.int32)
    inv_freq = (1 / 100 ** (np.arange(dim // 2) / dim * 2)).astype(dtype)
    return positions, inv_freq, run(ops.RopeAngles(1.25), positions, inv_freq)


def test_rope_is_a_complex_rotation(rng: np.random.Generator, dtype: Any) -> None:
    positions, inv_freq, angles = rope_tables(rng, 6, 10, dtype)
    x = rng.normal(size=(6, 3, 10)).astype(dtype)
    P, F, X = f64(positions, inv_freq, x)
    turn = torch.polar(torch.full((6, 1, 5), 1.25).double(), (P[:, None] * F)[:, None, :])
    rotated = torch.complex(X[..., :5], X[..., 5:]) * turn
    close(run(ops.Rope(), x, angles), torch.cat([rotated.real, rotated.imag], -1), dtype)


def test_kv_write(rng: np.random.Generator, dtype: Any) -> None:
    kv = rng.normal(size=(4, 3, 2, 2, B, 8)).astype(dtype)
    k, v = rng.normal(size=(2, 5, 2, 8)).astype(dtype)
    slots = rng.permutation(4 * B)[:5].astype(np.int32)
    slots[2] = -1
    expected = kv.copy()
    for t, slot in enumerate(slots):
        if slot >= 0:
            expected[slot // B, 1, 0, :, slot % B, :] = k[t]
            expected[slot // B, 1, 1, :, slot % B, :] = v[t]
    close(run(ops.KvWrite(1), k, v, slots, kv), expected, dtype)


def test_attention_of_a_ragged_mixture(rng: np.random.Generator, dtype: Any) -> None:
    """Decode rows, chunks, an absent sequence, a shared page and a gap between rows, against torch's own attention."""
    query_lens = np.array([1, rng.integers(1, 20), 0, 3], np.int32)
    context_lens = np.array([rng.integers(1, 60), query_lens[1] + rng.integers(0, 40), 0, 3], np.int32)
    query_starts = np.array([0, 2, 0, 2 + query_lens[1]], np.int32)
    tokens = query_starts[3] + 3 + 2
    page_table = rng.permutation(20)[:16].reshape(4, 4).astype(np.int32)
    page_table[1, 0] = page_table[0, 0]
    q_heads, kv_heads, dim, scale = 6, 2, 8, 0.3
    q = rng.normal(size=(tokens, q_heads, dim)).astype(dtype)
    kv = rng.normal(size=(20, 2, 2, kv_heads, B, dim)).astype(dtype)

    y = run(ops.Attention(1, scale), q, kv, query_starts, query_lens, context_lens, page_table)

    owned = np.zeros(tokens, bool)
    for start, queries, context, pages in zip(query_starts, query_lens, context_lens, page_table, strict=True):
        if queries == 0:
            continue
        rows = slice(start, start + queries)
        owned[rows] = True
        cache = kv[pages, 1].transpose(1, 2, 0, 3, 4).reshape(2, kv_heads, 4 * B, dim)[:, :, :context]
        Q, K, V = f64(q[rows].transpose(1, 0, 2), *cache)
        mask = torch.ones(queries, context).tril(context - queries).bool()
        expected = functional.scaled_dot_product_attention(Q, K, V, attn_mask=mask, scale=scale, enable_gqa=True)
        close(y[rows], expected.transpose(0, 1), dtype)
    assert np.isnan(y[~owned]).all()
    assert not owned.all()


def test_qkv_norm_rope_write_is_its_plain_ops(rng: np.random.Generator, dtype: Any) -> None:
    q_heads, kv_heads, dim, tokens, eps = 6, 2, 8, 5, 1e-3
    _, _, angles = rope_tables(rng, tokens, dim, dtype)
    qkv = rng.normal(size=(tokens, (q_heads + 2 * kv_heads) * dim)).astype(dtype)
    q_weight, k_weight = rng.normal(size=(2, dim)).astype(dtype)
    kv = rng.normal(size=(4, 3, 2, kv_heads, B, dim)).astype(dtype)
    slots = rng.permutation(4 * B)[:tokens].astype(np.int32)
    slots[3] = -1

    def heads(start: int, count: int) -> Array:
        columns = run(ops.SliceColumns(start * dim, count * dim), qkv)
        return np.asarray(run(ops.Reshape((count, dim)), columns))

    q = run(ops.Rope(), run(ops.RmsNorm(eps), heads(0, q_heads), q_weight), angles)
    k = run(ops.Rope(), run(ops.RmsNorm(eps), heads(q_heads, kv_heads), k_weight), angles)
    written = run(ops.KvWrite(2), k, heads(q_heads + kv_heads, kv_heads), slots, kv)

    fused_q, fused_kv = run(ops.QkvNormRopeWrite(q_heads, 2, eps), qkv, q_weight, k_weight, angles, slots, kv)
    close(fused_q, q, dtype)
    close(fused_kv, written, dtype)


def test_qkv_attention_is_its_two_ops(rng: np.random.Generator, dtype: Any) -> None:
    q_heads, kv_heads, dim, eps = 6, 2, 8, 1e-3
    lens = np.array([1, 3, 1], np.int32)
    context = np.array([2 * B, 7, 1], np.int32)
    starts = np.array([1, 2, 5], np.int32)
    pages = rng.permutation(6).reshape(3, 2).astype(np.int32)
    slots = np.full(7, -1, np.int32)
    for s in range(3):
        for i in range(lens[s]):
            position = context[s] - lens[s] + i
            slots[starts[s] + i] = pages[s, position // B] * B + position % B
    _, _, angles = rope_tables(rng, 7, dim, dtype)
    qkv = rng.normal(size=(7, (q_heads + 2 * kv_heads) * dim)).astype(dtype)
    q_weight, k_weight = rng.normal(size=(2, dim)).astype(dtype)
    kv = rng.normal(size=(6, 3, 2, kv_heads, B, dim)).astype(dtype)
    write = (qkv, q_weight, k_weight, angles, slots, kv)

    q, written = run(ops.QkvNormRopeWrite(q_heads, 2, eps), *write)
    expected = run(ops.Attention(2, 0.3), q, written, starts, lens, context, pages)
    y, fused_kv = run(ops.QkvAttention(q_heads, 2, eps, 0.3), *write, starts, lens, context, pages)
    owned = slots >= 0
    close(y[owned], expected[owned], dtype)
    close(fused_kv, written, dtype)


def test_greedy_takes_the_lowest_of_a_tie() -> None:
    logits = np.array([[0, 3, 1, 3], [-1, -2, -3, -4], [-np.inf, -np.inf, 5, 5]], np.float32)
    assert run(ops.Greedy(), logits).tolist() == [1, 0, 2]


def test_log_probs(rng: np.random.Generator, dtype: Any) -> None:
    logits = rng.normal(size=(4, 30)).astype(dtype) * 10
    logits[1, 7] = logits[1, 3] = logits[1].max() + 1
    token = rng.integers(0, 30, 4).astype(np.int32)
    chosen, tokens, top = run(ops.LogProbs(20), logits, token)
    expected = torch.log_softmax(*f64(logits), -1).numpy()
    close(chosen, expected[np.arange(4), token], dtype)
    order = np.lexsort((np.broadcast_to(np.arange(30), (4, 30)), -logits))[:, :20]
    np.testing.assert_array_equal(tokens, order)
    assert tokens[1, :2].tolist() == [3, 7]
    close(top, np.take_along_axis(expected, order, 1), dtype)
