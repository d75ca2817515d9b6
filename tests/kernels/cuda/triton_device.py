"""Where the Triton kernels run in tests: a GPU, or with TRITON_INTERPRET=1 the CPU.

Imported before any kernel, so that a machine with neither skips the whole module.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (torch.cuda.is_available() or INTERPRETED):
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

if INTERPRETED:
    from triton.runtime import interpreter

    _patch_lang_tensor = interpreter._patch_lang_tensor

    def _patch(tensor: Any, scope: Any) -> None:
        """Triton 3.6 makes ints of arrays of one element, which NumPy 2.4 no longer allows."""
        _patch_lang_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = _patch

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16
"""Of activations: the interpreter has no bf16 products."""
ROUNDING = 1e-6 if INTERPRETED else 4e-3
"""Relative error, as a norm, that a result of DTYPE may have."""


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found - expected‖ / ‖expected‖; NaN where anything was not written."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())
