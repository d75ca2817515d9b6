"""What the HTTP process tells the engine process when it starts it."""

from __future__ import annotations

import msgspec

__all__ = ["EngineSettings"]


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Passed as JSON: `python -m oi.runtime.engine_process FD JSON`, FD being the engine's end of a socketpair."""

    artifact: str
    """Folder."""
    checkpoint: str
    """Folder."""
    max_model_len: int | None = None
    """Longest prompt + generation in tokens; None: the model's own, or what the pages hold if that is less."""
    max_num_seqs: int | None = None
    """Sequences that run at once; None: the artifact's limit."""
    max_step_tokens: int | None = None
    """Tokens of one step; None: the artifact's limit."""
    kv_bytes: int | None = None
    """Memory of the paged KV cache; None: chosen from the model and the machine."""
    host_kv_bytes: int | None = None
    """Memory of the host tier; None: there is none."""
    threads: int | None = None
    """Of the CPU kernels; None: one for each core that the process may use."""
