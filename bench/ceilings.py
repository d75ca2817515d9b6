"""What one GPU can do, by PyTorch: the floors of every bench are measured in the same minutes as the bench.

python -m bench.ceilings        prints JSON: read_tb_s, bf16_tflop_s, pinned_gb_s, gpu
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ["ceilings"]


def ceilings() -> dict[str, Any]:
    """Measured in a process of its own, so that none of PyTorch's memory stays. Raises where there is no GPU."""
    out = subprocess.run([sys.executable, "-m", "bench.ceilings"], capture_output=True, text=True, check=False)
    if out.returncode:
        raise RuntimeError(f"the GPU's ceilings cannot be measured: {out.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def _measure() -> dict[str, Any]:
    import torch

    def seconds(run: Any, repeats: int) -> float:
        """Of one run, the median of five rounds."""
        run()
        rounds = []
        for _ in range(5):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(repeats):
                run()
            end.record()
            end.synchronize()
            rounds.append(begin.elapsed_time(end) / repeats / 1e3)
        return sorted(rounds)[2]

    data = torch.ones(1 << 30, dtype=torch.float32, device="cuda")
    read = data.nbytes / seconds(lambda: data.sum(), 5)
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    flops = 2 * 8192**3 / seconds(lambda: a @ b, 20)
    pinned = torch.empty(256 << 20, dtype=torch.uint8, pin_memory=True)
    target = torch.empty_like(pinned, device="cuda")
    bus = pinned.nbytes / seconds(lambda: target.copy_(pinned, non_blocking=True), 4)
    return {
        "gpu": torch.cuda.get_device_name(),
        "read_tb_s": read / 1e12,
        "bf16_tflop_s": flops / 1e12,
        "pinned_gb_s": bus / 1e9,
    }


if __name__ == "__main__":
    print(json.dumps(_measure()))
