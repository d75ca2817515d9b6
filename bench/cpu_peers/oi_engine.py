"""oi's own engine, as the server runs it, without the server. A missing artifact is compiled first."""

from __future__ import annotations

import random
import time
from pathlib import Path

from oi.runtime.compile_once import ensure_artifact
from oi.runtime.engine import Engine
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.step import open_runner


class Oi:
    def __init__(self, folder: Path, threads: int) -> None:
        artifact = ensure_artifact(folder, None, may_compile=True)
        runner = open_runner(
            EngineSettings(str(artifact), str(folder), max_model_len=2048, max_num_seqs=1, threads=threads)
        )
        self._engine = Engine(runner)
        self._vocabulary = runner.geometry.vocab_size
        self._id = 0

    def prefill(self, tokens: int) -> float:
        self._engine.abort([self._id])
        self._id += 1
        prompt = random.SystemRandom().choices(range(self._vocabulary), k=tokens)
        self._engine.submit(Submit(self._id, prompt, SamplingParams(temperature=0.0), max_tokens=1024))
        return self._until(1)

    def decode(self, tokens: int) -> float:
        return self._until(tokens)

    def _until(self, tokens: int) -> float:
        """Seconds until so many more tokens were drawn."""
        start = time.perf_counter()
        while tokens:
            tokens -= len(self._engine.step().tokens)
        return time.perf_counter() - start


def load(folder: Path, _dtype: str, threads: int) -> Oi:
    return Oi(folder, threads)
