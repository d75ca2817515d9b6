"""How far a CUDA artifact's log-probabilities are from Hugging Face's float32, beside Hugging Face's own bf16.

    python -m bench.accuracy CHECKPOINT --artifact DIR [--long 16500] [--json bench/results/h100/accuracy.json]

Teacher-forced on random tokens, in every way the engine computes: one sequence whole; a prefix computed by another
sequence; chunks mixed with decode rows; decode steps at each bucket's size and one beyond (padded); a context past
16 k. All of it twice: two runs must agree bit for bit. Fails where our error is more than 1.25 × Hugging Face's bf16's.

    error     |log p(v) - log p_f32(v)| over the vocabulary at every compared position: mean and 99th percentile
    regret    log p_f32(its best) - log p_f32(our best): what following our argmax costs, mean and largest
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from bench.batches import Pages, Part, Tokens, make_batch
from bench.environment import command, describe
from oi.runtime.artifact import open_artifact
from oi.runtime.cuda_library import CudaLibrary
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.step import open_runner

TEACHER_CHUNK = 1024
"""Tokens of a prompt that Hugging Face's model computes at once."""
ALLOWED = 1.25
"""Times Hugging Face's bf16 error that ours may be."""
SHORT = 256
"""Sequences that the decode buckets draw from; of few lengths, so that Hugging Face computes many at once."""
KEPT = 24
"""Rows of a step that are compared, drawn at random; all are part of the comparison of two runs."""

Key = tuple[int, int]
"""A prompt's number and a position."""
Prompts = list[NDArray[np.int32]]


class Ours:
    """Runs parts of sequences on a runner, and keeps some rows' logits."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.page_size = runner.geometry.page_size
        self.pages = Pages(runner.geometry.pages, self.page_size)
        self.kept: list[tuple[Key, NDArray[np.float32]]] = []
        self.checksums: list[int] = []
        self._numbers: dict[int, int] = {}
        self._rng = np.random.default_rng(0)

    def begin(self, prompts: Prompts, number: int, shared: list[int] | None = None) -> Tokens:
        sequence = self.pages.sequence(prompts[number], shared or [])
        self._numbers[id(sequence)] = number
        return sequence

    def step(self, parts: list[Part]) -> None:
        batch, asked = make_batch(parts, self.page_size)
        self.runner.finish(self.runner.start(batch))
        if not asked:
            return
        logits = self.runner.logits(len(asked))
        self.checksums.append(zlib.crc32(logits))
        for row in sorted(self._rng.permutation(len(asked))[:KEPT].tolist()):
            sequence, position = asked[row]
            self.kept.append(((self._numbers[id(sequence)], position), logits[row].copy()))

    def compute(self, sequence: Tokens, upto: int) -> None:
        """In chunks as large as they may be; no logits."""
        while sequence.computed < upto:
            count = min(self.runner.geometry.max_step_tokens, upto - sequence.computed)
            self.step([Part(sequence, count, frozenset())])


def watched(length: int, every: int = 16) -> frozenset[int]:
    return frozenset([*range(every - 1, length, every), *range(length - 4, length)])


def whole_and_shared(ours: Ours, prompts: Prompts) -> None:
    """One sequence at once; then another that finds half of its pages computed."""
    first = ours.begin(prompts, SHORT)
    ours.step([Part(first, len(first), watched(len(first)))])
    half = (len(first) - 1) // ours.page_size // 2
    second = ours.begin(prompts, SHORT, first.pages[:half])
    ours.step([Part(second, len(second) - second.computed, watched(len(second)))])


def mixed(ours: Ours, prompts: Prompts) -> None:
    """Three sequences in random chunks; one of them decodes once it is under way."""
    sequences = [ours.begin(prompts, SHORT + i) for i in range(3)]
    rng = np.random.default_rng(0)
    while any(s.computed < len(s) for s in sequences):
        parts = []
        for i, (sequence, most) in enumerate(zip(sequences, (230, 40, 100), strict=True)):
            size = 1 if i == 1 and sequence.computed > 64 else int(rng.integers(1, most))
            if size := min(size, len(sequence) - sequence.computed):
                parts.append(Part(sequence, size, watched(len(sequence))))
        ours.step(parts)


def decode_buckets(ours: Ours, prompts: Prompts, buckets: Iterable[int]) -> None:
    """Two decode steps of each bucket's size, and of one sequence more: the next bucket, padded."""
    for batch in sorted({size for bucket in buckets for size in (bucket, bucket + 1)}):
        if batch > min(SHORT, ours.runner.geometry.max_num_seqs):
            continue
        sequences = [ours.begin(prompts, n) for n in range(batch)]
        for start in range(0, batch, 64):
            ours.step([Part(s, len(s) - 2, frozenset()) for s in sequences[start : start + 64]])
        for _ in range(2):
            ours.step([Part(s, 1) for s in sequences])
        for sequence in sequences:
            ours.pages.give_back(sequence)


def long_context(ours: Ours, prompts: Prompts) -> None:
    """Chunks, a short last one, then decode steps."""
    sequence = ours.begin(prompts, SHORT + 3)
    ours.compute(sequence, len(sequence) - 20)
    ours.step([Part(sequence, 16, watched(len(sequence), 1))])
    for _ in range(4):
        ours.step([Part(sequence, 1)])


class Teacher:
    """Hugging Face's model on the GPU; the weights are the checkpoint's, in float32 or bf16."""

    def __init__(self, folder: Path) -> None:
        config = Qwen3Config.from_pretrained(folder)
        config._attn_implementation = "sdpa"
        with torch.device("meta"):
            self.model = Qwen3ForCausalLM(config).eval()
        self.model.to_empty(device="cuda")
        self.model.model.rotary_emb = type(self.model.model.rotary_emb)(config).cuda()
        self.model.float()
        for file in sorted(folder.glob("*.safetensors")):
            self.model.load_state_dict(load_file(file, device="cuda"), strict=False)
        if config.tie_word_embeddings:
            self.model.tie_weights()

    def round(self) -> None:
        """To bf16, as `from_pretrained(dtype=bfloat16)` would: the rotary frequencies stay float32."""
        rotary = self.model.model.rotary_emb
        self.model.model.rotary_emb = None
        self.model.to(torch.bfloat16)
        self.model.model.rotary_emb = rotary

    @torch.inference_mode()
    def log_probs(self, prompts: Prompts, keys: set[Key]) -> dict[Key, torch.Tensor]:
        """f32 [V] on the GPU for each key. Prompts of one length are computed together."""
        found: dict[Key, torch.Tensor] = {}
        numbers = sorted({number for number, _ in keys})
        for length in sorted({len(prompts[n]) for n in numbers}):
            alike = [n for n in numbers if len(prompts[n]) == length]
            tokens = torch.from_numpy(np.stack([prompts[n] for n in alike]).astype(np.int64)).cuda()
            hidden = self._hidden(tokens)
            for number, position in sorted(k for k in keys if k[0] in alike):
                logits = self.model.lm_head(hidden[alike.index(number), position])
                found[number, position] = torch.log_softmax(logits.float(), -1)
        return found

    def _hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, length, H]. In chunks, for attention's scores of a long prompt take gigabytes."""
        cache = DynamicCache(config=self.model.config)
        chunks = [self.model.model(part, past_key_values=cache) for part in tokens.split(TEACHER_CHUNK, 1)]
        return torch.cat([chunk.last_hidden_state for chunk in chunks], 1)


def compare(exact: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    """Both are log-probabilities [n, V]."""
    error = torch.cat([(e - f).abs().sort(-1).values for e, f in zip(exact.split(32), found.split(32), strict=True)])
    best = found.argmax(-1, keepdim=True)
    regret = exact.max(-1).values - exact.gather(-1, best)[:, 0]
    return {
        "mean": float(error.mean()),
        "p99": float(error[:, int(0.99 * error.shape[1])].mean()),
        "regret_mean": float(regret.mean()),
        "regret_max": float(regret.max()),
        "same_argmax": float((regret == 0).float().mean()),
    }


def measure(folder: Path, artifact: Path, long: int) -> dict[str, Any]:
    """Ours and Hugging Face's bf16 against Hugging Face's float32, by scenario; and whether two runs are the same."""
    opened = open_artifact(artifact)
    kv = opened.manifest.kv
    tokens = 2 * long + 2 * SHORT * 64 + 8192
    runner: Any = open_runner(
        EngineSettings(str(artifact), str(folder), kv_bytes=tokens // kv.page_size * kv.page_bytes)
    )
    library = msgspec.json.decode(opened.path(opened.manifest.library).read_bytes(), type=CudaLibrary)
    rng = np.random.default_rng()
    lengths = [*np.repeat(rng.integers(8, 60, size=4), SHORT // 4).tolist(), 700, 333, 90, *([long] if long else [])]
    prompts = [rng.integers(runner.geometry.vocab_size, size=n, dtype=np.int32) for n in lengths]
    rng.shuffle(prompts[:SHORT])
    runs = [_scenarios(runner, prompts, library.buckets.decode_rows, long) for _ in range(2)]
    identical = all(a.checksums == b.checksums for a, b in zip(*(run.values() for run in runs), strict=True))
    kept = {name: ours.kept for name, ours in runs[0].items()}
    del runner, runs
    keys = {key for rows in kept.values() for key, _ in rows}
    teacher = Teacher(folder)
    exact = teacher.log_probs(prompts, keys)
    teacher.round()
    rounded = teacher.log_probs(prompts, keys)
    scenarios = []
    for name, rows in kept.items():
        truth = torch.stack([exact[key] for key, _ in rows])
        theirs = torch.stack([rounded[key] for key, _ in rows])
        mine = torch.log_softmax(torch.stack([torch.from_numpy(logits) for _, logits in rows]).cuda(), -1)
        positions = {"scenario": name, "positions": len(rows)}
        scenarios.append({**positions, "ours": compare(truth, mine), "hf_bf16": compare(truth, theirs)})
    return {"bit_identical": identical, "scenarios": scenarios}


def _scenarios(runner: Any, prompts: Prompts, buckets: list[int], long: int) -> dict[str, Ours]:
    runs = {
        name: Ours(runner) for name in ("whole, cached prefix", "mixed, chunked", "decode, every bucket and one more")
    }
    whole_and_shared(runs["whole, cached prefix"], prompts)
    mixed(runs["mixed, chunked"], prompts)
    decode_buckets(runs["decode, every bucket and one more"], prompts, buckets)
    if long:
        long_context(runs.setdefault(f"context of {long}", Ours(runner)), prompts)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--long", type=int, default=0, help="length of a long context (default: none)")
    parser.add_argument("--json", type=Path, help="write the figures here, beside those of other checkpoints")
    args = parser.parse_args()
    result = measure(args.checkpoint, args.artifact, args.long)
    table = Table(
        "scenario", "positions", "mean", "HF bf16", "p99", "HF bf16", "regret", "HF bf16", "argmax", "HF bf16"
    )
    failed = []
    for row in result["scenarios"]:
        a, b = row["ours"], row["hf_bf16"]
        table.add_row(
            row["scenario"],
            str(row["positions"]),
            *(f"{side[key]:.2e}" for key in ("mean", "p99", "regret_mean") for side in (a, b)),
            *(f"{side['same_argmax']:.1%}" for side in (a, b)),
        )
        if not (a["mean"] <= ALLOWED * b["mean"] and a["p99"] <= ALLOWED * b["p99"]):
            failed.append(row["scenario"])
    Console(width=140).print(table)
    print(f"two runs bit-identical: {result['bit_identical']}")
    if args.json:
        known = json.loads(args.json.read_text())["models"] if args.json.exists() else {}
        measured = {"command": command(sys.argv[1:], "bench.accuracy"), **describe(), **result}
        models = {**known, args.checkpoint.name: measured}
        args.json.write_text(json.dumps({"models": models}, indent=1) + "\n")
    if failed or not result["bit_identical"]:
        sys.exit(f"failed: {failed or 'two runs differ'}")


if __name__ == "__main__":
    main()
