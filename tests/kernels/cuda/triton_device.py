"""Where the Triton kernels run in tests: a GPU, or with TRITON_INTERPRET=1 (and numpy < 2.4) the CPU.

Imported before any kernel, so that a machine with neither skips the whole module.
"""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (torch.cuda.is_available() or INTERPRETED):
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16
"""Of activations: the interpreter has no bf16 products."""
ROUNDING = 1e-6 if INTERPRETED else 4e-3
"""Relative error, as a norm, that a result of DTYPE may have."""


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found - expected‖ / ‖expected‖; NaN where anything was not written."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())
