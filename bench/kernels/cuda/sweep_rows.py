"""Check and time the row kernels and the sampling kernels on this machine's GPU.

python bench/kernels/cuda/sweep_rows.py rows|sampling [results.json]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3] / "tests/kernels/cuda")]
import rows
import sampling_case as sc
from sweep_attention import graph_us

BF16 = torch.bfloat16


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def row_kernels() -> list[dict]:
    out = []
    width, layers = 2560, 36
    for tokens in (1, 64, 256, 8192):
        x, residual = (torch.randn(tokens, width, dtype=BF16, device="cuda") for _ in range(2))
        weight = torch.randn(width, dtype=BF16, device="cuda")
        z, y = torch.full_like(x, float("nan")), torch.full_like(x, float("nan"))
        rows.rms_norm(x, weight, y)
        e1 = error(y, rows.rms_norm_reference(x, weight))
        rows.add_rms_norm(x, residual, weight, z, y)
        e2 = error(z, x.double() + residual.double()), error(y, rows.rms_norm_reference(x + residual, weight))
        for warps in (4, 8):
            us = graph_us(lambda i: rows.rms_norm(x, weight, y, True, warps), 72)
            out.append(dict(kernel="rms_norm", tokens=tokens, warps=warps, error=e1, us=us, gbs=4e-3 * tokens * width / us))
            us = graph_us(lambda i: rows.add_rms_norm(x, residual, weight, z, y, True, warps), 72)
            out.append(dict(kernel="add_rms_norm", tokens=tokens, warps=warps, error=e2, us=us, gbs=8e-3 * tokens * width / us))
        table = torch.randn(151936, width, dtype=BF16, device="cuda")
        ids = torch.randint(0, 151936, (tokens,), dtype=torch.int32, device="cuda")
        y.fill_(float("nan"))
        rows.embedding(ids, table, y)
        right = bool((y == table[ids.long()]).all())
        out.append(dict(kernel="embedding", tokens=tokens, right=right, us=graph_us(lambda i: rows.embedding(ids, table, y, True), 36)))
        pick = torch.randint(0, tokens, (min(tokens, 256),), dtype=torch.int32, device="cuda")
        some = torch.full((len(pick), width), float("nan"), dtype=BF16, device="cuda")
        rows.select_rows(x, pick, some)
        right = bool((some == x[pick.long()]).all())
        out.append(dict(kernel="select_rows", tokens=tokens, right=right, us=graph_us(lambda i: rows.select_rows(x, pick, some, True), 36)))
        positions = torch.randint(0, 40960, (tokens,), dtype=torch.int32, device="cuda")
        inv_freq = 1.0 / 1e6 ** (torch.arange(0, 128, 2, device="cuda", dtype=torch.float32) / 128)
        angles = torch.full((tokens, 128), float("nan"), device="cuda")
        rows.rope_angles(positions, inv_freq, angles, 1.25)
        angle = (positions.float()[:, None] * inv_freq).double()
        e = float((angles.double() - 1.25 * torch.cat((angle.cos(), angle.sin()), 1)).abs().max())
        out.append(dict(kernel="rope_angles", tokens=tokens, max_error=e, us=graph_us(lambda i: rows.rope_angles(positions, inv_freq, angles, 1.0, True), 36)))

        qkv = torch.randn(tokens, 48 * 128, dtype=BF16, device="cuda")
        qw, kw = (torch.randn(128, dtype=BF16, device="cuda") for _ in range(2))
        pages = -(-tokens // 16) + 2
        kv = torch.full((pages, layers, 2, 8, 16, 128), float("nan"), dtype=BF16, device="cuda")
        slots = torch.randperm(pages * 16, device="cuda")[:tokens].to(torch.int32)
        slots[tokens // 2] = -1
        q = torch.full((tokens, 32, 128), float("nan"), dtype=BF16, device="cuda")
        for per, warps in ((1, 1), (1, 2), (4, 4), (8, 4)):
            kv.fill_(float("nan"))
            q.fill_(float("nan"))
            rows.qkv_norm_rope_write(qkv, qw, kw, angles, slots, kv, q, 7, False, per, warps)
            heads = qkv.view(tokens, 48, 128)
            e = [error(q, rows.rope_reference(rows.rms_norm_reference(heads[:, :32], qw), angles))]
            live = slots >= 0
            page, offset = slots[live].long() // 16, slots[live].long() % 16
            if live.any():
                k = rows.rope_reference(rows.rms_norm_reference(heads[live, 32:40], kw), angles[live])
                e += [error(kv[page, 7, 0, :, offset], k), error(kv[page, 7, 1, :, offset], heads[live, 40:].double())]
            written = int((~kv.isnan()).sum())
            us = graph_us(lambda i: rows.qkv_norm_rope_write(qkv, qw, kw, angles, slots, kv, q, i, True, per, warps), 36)
            out.append(
                dict(kernel="qkv_norm_rope_write", tokens=tokens, per=per, warps=warps, error=e,
                     exact=written == int(live.sum()) * 2 * 8 * 128, us=us, gbs=4e-3 * tokens * 6144 / us)
            )  # fmt: skip
    return out


def sampling() -> list[dict]:
    out = []
    vocabulary = 151936
    rng = np.random.default_rng()
    for count in (1, 8, 64, 256):
        logits = torch.randn(count, vocabulary, device="cuda") * 2.5
        logits[:, :60] += 6
        if count > 1:
            logits[1, 77] = logits[1, 9000] = logits[1].max() + 1
            logits[-1] = torch.round(logits[-1])
        floor = 4 * count * vocabulary / 3.11e6
        right = bool((sc.launch_greedy(logits) == logits.argmax(1)).all())
        for chunk in (2048, 4096, 8192):
            us = graph_us(lambda i: sc.launch_greedy(logits, chunk, True), 8)
            out.append(dict(kernel="greedy", rows=count, chunk=chunk, right=right, us=us, of_floor=floor / us))
        token = torch.randint(0, vocabulary, (count,), dtype=torch.int32, device="cuda")
        chosen, top_tokens, top = sc.launch_log_probs(logits, token)
        lp = logits[:64].double().log_softmax(-1)
        best = lp.sort(dim=-1, descending=True, stable=True)
        e = float((top[:64] - best.values[:, :20]).abs().max()), float((chosen[:64] - lp.gather(1, token[:64, None].long())[:, 0]).abs().max())
        right = bool((top_tokens[:64] == best.indices[:, :20]).all())
        us = graph_us(lambda i: sc.launch_log_probs(logits, token, pdl=True), 8)
        out.append(dict(kernel="log_probs", rows=count, right=right, error=e, us=us, of_floor=floor / us))
        settings = sc.random_settings(rng, count, vocabulary)
        sampler = sc.Sampler(logits, settings)
        before = logits.clone()
        first = sampler.run().clone()
        again = sampler.run().clone()
        wrong = sc.check_sample(logits.cpu().numpy()[:24], settings, first.cpu().numpy()[:24])
        out.append(dict(kernel="sample", rows=count, wrong=wrong, same=bool((first == again).all()), restored=bool((before == logits).all())))
        for name, (t, k, p, m) in {
            "greedy": (0.0, 0, 1.0, 0.0), "plain": (1.0, 0, 1.0, 0.0), "qwen": (0.6, 20, 0.95, 0.0), "top_p": (1.0, 0, 0.95, 0.0), "top_p_flat": (5.0, 0, 0.9, 0.0),
        }.items():  # fmt: skip
            fixed = sc.Settings([t] * count, [k] * count, [p] * count, [m] * count, list(rng.uniform(0, 0.99, count)), [[] for _ in range(count)])
            for warps, block in ((16, 8192), (16, 4096), (8, 4096)):
                sampler = sc.Sampler(logits, fixed, warps=warps, block=block)
                us = graph_us(lambda i: sampler.run(True), 4, 3)
                wrong = sc.check_sample(logits.cpu().numpy()[:2], fixed, sampler.token.cpu().numpy()[:2])
                out.append(dict(kernel="sample", rows=count, kind=name, warps=warps, block=block, us=us, of_floor=floor / us, wrong=wrong))
    return out


def main() -> None:
    result = {"rows": row_kernels, "sampling": sampling}[sys.argv[1]]()
    for row in result:
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
