"""How far a CUDA artifact's log-probabilities are from Hugging Face's float32, beside Hugging Face's own bf16.

    python -m bench.accuracy CHECKPOINT --artifact DIR [--long 16500] [--json bench/results/h100/accuracy.json]

Teacher-forced on random tokens, in every way the engine computes: one sequence whole; decode steps at each bucket's
size and one beyond (padded); chunks mixed with decode rows; a prefix computed by another sequence; a context past
16 k. All of it twice: two runs must agree bit for bit. Fails where our error is more than 1.25 × Hugging Face's bf16's.

    error     |log p(v) - log p_f32(v)| over the vocabulary at every compared position: mean and 99th percentile
    regret    log p_f32(its best) - log p_f32(our best): what following our argmax costs, mean and largest
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from bench.batches import Pages, Part, Tokens, make_batch
from bench.environment import describe
from oi.runtime.artifact import open_artifact
from oi.runtime.cuda_library import CudaLibrary
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.step import open_runner

ALLOWED = 1.25
COMPARED = 400
"""Positions of a scenario, drawn at random where there are more."""
SHORT = 256
"""Sequences that the decode buckets draw from."""

Found = dict[tuple[int, int], list[torch.Tensor]]
"""(sequence's number, position) → logits f32 [V] on the host, one for each time they were computed."""


class Ours:
    """Runs parts of sequences on a runner and keeps the logits of every row."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.page_size = runner.geometry.page_size
        self.pages = Pages(runner.geometry.pages, self.page_size)
        self.found: Found = {}
        self.numbers: dict[int, int] = {}

    def begin(self, number: int, tokens: NDArray[np.int32], shared: Sequence[int] = ()) -> Tokens:
        sequence = self.pages.sequence(tokens, shared)
        self.numbers[id(sequence)] = number
        return sequence

    def step(self, parts: list[Part]) -> None:
        batch, asked = make_batch(parts, self.page_size)
        self.runner.finish(self.runner.start(batch))
        if asked:
            logits = torch.from_numpy(np.array(self.runner.logits(len(asked))))
            for row, (sequence, position) in zip(logits, asked, strict=True):
                self.found.setdefault((self.numbers[id(sequence)], position), []).append(row)

    def chunks(self, sequence: Tokens, upto: int, size: int, wanted: frozenset[int] = frozenset()) -> None:
        while sequence.computed < upto:
            self.step([Part(sequence, min(size, upto - sequence.computed), wanted)])


def watched(length: int, every: int = 16) -> frozenset[int]:
    return frozenset([*range(every - 1, length, every), *range(length - 4, length)])


def run_ours(
    ours: Ours, prompts: list[NDArray[np.int32]], buckets: Iterable[int], most: int
) -> dict[str, set[tuple[int, int]]]:
    """Every scenario; returns which logits each of them compared. Prompts: SHORT short ones, three, the long one."""
    seen: dict[str, set[tuple[int, int]]] = {}

    def done(name: str) -> None:
        seen[name] = {key for key, rows in ours.found.items() if len(rows) > counts.get(key, 0)}

    def count() -> dict[tuple[int, int], int]:
        return {key: len(rows) for key, rows in ours.found.items()}

    a, b, c = SHORT, SHORT + 1, SHORT + 2
    counts = count()
    whole = ours.begin(a, prompts[a])
    ours.step([Part(whole, len(whole), watched(len(whole)))])
    done("whole")

    counts = count()
    shared = ours.begin(a, prompts[a], whole.pages[: (len(whole) - 1) // ours.page_size // 2])
    ours.step([Part(shared, len(shared) - shared.computed, watched(len(shared)))])
    done("cached prefix")

    counts = count()
    first, second, third = (ours.begin(n, prompts[n]) for n in (a, b, c))
    rng = np.random.default_rng(0)
    while any(s.computed < len(s) for s in (first, second, third)):
        parts = []
        for sequence, usual in ((first, 97), (second, 1), (third, 33)):
            left = len(sequence) - sequence.computed
            size = min(
                left, usual if sequence is second and sequence.computed > 64 else int(rng.integers(1, 2 * usual + 40))
            )
            if size:
                parts.append(Part(sequence, size, watched(len(sequence))))
        ours.step(parts)
    done("mixed, chunked")

    counts = count()
    for bucket in buckets:
        for batch in (bucket, bucket + 1):
            if batch > most:
                continue
            sequences = [ours.begin(n, prompts[n]) for n in range(batch)]
            for start in range(0, batch, 64):
                ours.step([Part(s, len(s) - 2, frozenset()) for s in sequences[start : start + 64]])
            for _ in range(2):
                ours.step([Part(s, 1) for s in sequences])
            for sequence in sequences:
                ours.pages.give_back(sequence)
    done("decode, every bucket and one more")

    if len(prompts) > SHORT + 3:
        counts = count()
        last = SHORT + 3
        long = ours.begin(last, prompts[last])
        ours.chunks(long, len(long) - 20, ours.runner.geometry.max_step_tokens)
        ours.step([Part(long, 16, frozenset(range(len(long) - 20, len(long))))])
        for _ in range(4):
            ours.step([Part(long, 1)])
        done(f"context of {len(long)}")
    return seen


class Teacher:
    """Hugging Face's model on the GPU; the weights are the checkpoint's, in float32 or bf16."""

    def __init__(self, folder: Path) -> None:
        config = Qwen3Config.from_pretrained(folder)
        config._attn_implementation = "sdpa"
        torch.set_default_dtype(torch.float32)
        with torch.device("cuda"):
            self.model = Qwen3ForCausalLM(config).eval()
        for file in sorted(folder.glob("*.safetensors")):
            self.model.load_state_dict(load_file(file, device="cuda"), strict=False)
        if config.tie_word_embeddings:
            self.model.tie_weights()

    def round(self) -> None:
        """To bf16, as `from_pretrained(dtype=bfloat16)` would: the rotary frequencies stay float32."""
        frequencies = self.model.model.rotary_emb.inv_freq.clone()
        self.model.to(torch.bfloat16)
        self.model.model.rotary_emb.inv_freq = frequencies

    @torch.inference_mode()
    def log_probs(self, tokens: NDArray[np.int32], positions: list[int]) -> torch.Tensor:
        """f32 [positions, V] on the host."""
        hidden = self.model.model(
            torch.from_numpy(tokens.astype(np.int64)).cuda()[None], use_cache=False
        ).last_hidden_state
        return torch.log_softmax(self.model.lm_head(hidden[0, positions]).float(), -1).cpu()


def compare(name: str, exact: torch.Tensor, found: torch.Tensor) -> dict[str, Any]:
    """Both are log-probabilities [n, V]."""
    means, tails, regrets, same = [], [], [], 0
    for e, f in zip(exact.split(16), found.split(16), strict=True):
        e, f = e.cuda(), f.cuda()
        error = (e - f).abs()
        means.append(error.mean(-1))
        tails.append(torch.stack([row.kthvalue(int(0.99 * row.numel())).values for row in error]))
        best = f.argmax(-1)
        regret = e.max(-1).values - e.gather(-1, best[:, None])[:, 0]
        regrets.append(regret)
        same += int((regret == 0).sum())
    regret = torch.cat(regrets)
    return {
        "name": name,
        "positions": len(exact),
        "mean": float(torch.cat(means).mean()),
        "p99": float(torch.cat(tails).mean()),
        "regret_mean": float(regret.mean()),
        "regret_max": float(regret.max()),
        "same_argmax": same / len(exact),
    }


def measure(folder: Path, artifact: Path, long: int) -> list[dict[str, Any]]:
    """One row a scenario: ours and Hugging Face's bf16 against Hugging Face's float32."""
    opened = open_artifact(artifact)
    buckets = json_library(artifact).buckets
    runner = open_runner(EngineSettings(str(artifact), str(folder), kv_bytes=_kv_bytes(opened.manifest.kv, long)))
    rng = np.random.default_rng()
    vocabulary = runner.geometry.vocab_size
    lengths = [*rng.integers(8, 60, size=SHORT).tolist(), 700, 333, 90, *([long] if long else [])]
    prompts = [rng.integers(vocabulary, size=n, dtype=np.int32) for n in lengths]
    runs = []
    for _ in range(2):
        ours = Ours(runner)
        seen = run_ours(ours, prompts, buckets.decode_rows, runner.geometry.max_num_seqs)
        runs.append(ours.found)
    identical = all(torch.equal(x, y) for key in runs[0] for x, y in zip(runs[0][key], runs[1][key], strict=True))
    del runner
    wanted: dict[int, list[int]] = {}
    for number, position in sorted(runs[0]):
        wanted.setdefault(number, []).append(position)
    teacher = Teacher(folder)
    exact = {n: teacher.log_probs(prompts[n], positions) for n, positions in wanted.items()}
    teacher.round()
    rounded = {n: teacher.log_probs(prompts[n], positions) for n, positions in wanted.items()}
    del teacher
    torch.cuda.empty_cache()
    rows = []
    for name, keys in seen.items():
        computed = [(key, row) for key in sorted(keys) for row in runs[0][key]]
        most = np.random.default_rng(0).permutation(len(computed))[:COMPARED].tolist()
        truth, theirs, mine = [], [], []
        for (number, position), logits in (computed[i] for i in most):
            at = wanted[number].index(position)
            truth.append(exact[number][at])
            theirs.append(rounded[number][at])
            mine.append(torch.log_softmax(logits.cuda(), -1).cpu())
        pick = [torch.stack(values) for values in (truth, theirs, mine)]
        ours_row = compare(name, pick[0], pick[2])
        yardstick = compare(name, pick[0], pick[1])
        rows.append({"scenario": name, "ours": ours_row, "hf_bf16": yardstick, "bit_identical": identical})
    return rows


def json_library(artifact: Path) -> CudaLibrary:
    import msgspec

    opened = open_artifact(artifact)
    return msgspec.json.decode(opened.path(opened.manifest.library).read_bytes(), type=CudaLibrary)


def _kv_bytes(kv: Any, long: int) -> int:
    return (2 * long + 257 * 64 * 2 + 8192) // kv.page_size * kv.page_bytes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--long", type=int, default=0, help="length of a long context (default: none)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rows = measure(args.checkpoint, args.artifact, args.long)
    table = Table(
        "scenario", "positions", "mean", "HF bf16", "p99", "HF bf16", "regret", "HF bf16", "argmax", "HF bf16"
    )
    failed = []
    for row in rows:
        a, b = row["ours"], row["hf_bf16"]
        table.add_row(
            row["scenario"],
            str(a["positions"]),
            *(f"{side[key]:.2e}" for key in ("mean", "p99", "regret_mean") for side in (a, b)),
            *(f"{side['same_argmax']:.1%}" for side in (a, b)),
        )
        if not (a["mean"] <= ALLOWED * b["mean"] and a["p99"] <= ALLOWED * b["p99"]):
            failed.append(row["scenario"])
    Console(width=140).print(table)
    identical = all(row["bit_identical"] for row in rows)
    print(f"two runs bit-identical: {identical}")
    if args.json:
        known = json.loads(args.json.read_text()) if args.json.exists() else {"models": {}}
        models = {**known["models"], args.checkpoint.name: rows}
        args.json.write_text(json.dumps({**describe(), "models": models}, indent=1) + "\n")
    if failed or not identical:
        sys.exit(f"failed: {failed or 'two runs differ'}")


if __name__ == "__main__":
    main()
