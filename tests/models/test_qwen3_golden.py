"""The text of a small Qwen3, so that a change of the graph is seen in review.

After a wanted change: python -m tests.models.test_qwen3_golden
"""

from pathlib import Path

from oi.ir.parser import parse_module
from oi.ir.printer import format_module
from oi.ir.types import DType
from oi.models import qwen3

GOLDEN = Path(__file__).parent.parent / "golden" / "qwen3_two_layers.ir"


def text() -> str:
    config = qwen3.Config(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        layers=2,
        q_heads=4,
        kv_heads=2,
        head_dim=8,
        norm_eps=1e-6,
        rope_theta=1e6,
        yarn=None,
        tied=True,
        max_position=1024,
        weights=DType.BF16,
    )
    return format_module(qwen3.build(config, DType.F32))


def test_text_is_as_committed() -> None:
    assert text() == GOLDEN.read_text()


def test_committed_text_reads_back() -> None:
    assert format_module(parse_module(GOLDEN.read_text())) == GOLDEN.read_text()


if __name__ == "__main__":
    GOLDEN.write_text(text())
