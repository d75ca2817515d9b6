import pytest

from oi.codegen.passes.fuse_add_rms_norm import fuse_add_rms_norm
from tests.codegen.ir_text import check, check_unchanged

HEAD = """
graph @g(input %x: f32[T,8], input %r: f32[T,8], weight %w: f32[8], weight %v: f32[8]) {
"""


def test_fuses() -> None:
    check(
        fuse_add_rms_norm,
        HEAD
        + """
          %z = add(%x, %r) : f32[T,8]
          %y = rms_norm(%z, %w) {eps=1e-06} : f32[T,8]
          return %y
        }""",
        HEAD
        + """
          %z, %y = add_rms_norm(%x, %r, %w) {eps=1e-06} : f32[T,8], f32[T,8]
          return %y
        }""",
    )


def test_the_sum_may_be_used_between_and_after() -> None:
    check(
        fuse_add_rms_norm,
        HEAD
        + """
          %z = add(%x, %r) : f32[T,8]
          %s = silu(%z) : f32[T,8]
          %y = rms_norm(%z, %w) {eps=1e-06} : f32[T,8]
          %o = add(%z, %y) : f32[T,8]
          return %o, %s, %z
        }""",
        HEAD
        + """
          %z, %y = add_rms_norm(%x, %r, %w) {eps=1e-06} : f32[T,8], f32[T,8]
          %s = silu(%z) : f32[T,8]
          %o = add(%z, %y) : f32[T,8]
          return %o, %s, %z
        }""",
    )


def test_of_two_norms_of_one_sum_the_first_is_fused() -> None:
    check(
        fuse_add_rms_norm,
        HEAD
        + """
          %z = add(%x, %r) : f32[T,8]
          %y = rms_norm(%z, %w) {eps=1e-06} : f32[T,8]
          %u = rms_norm(%z, %v) {eps=1e-05} : f32[T,8]
          return %y, %u
        }""",
        HEAD
        + """
          %z, %y = add_rms_norm(%x, %r, %w) {eps=1e-06} : f32[T,8], f32[T,8]
          %u = rms_norm(%z, %v) {eps=1e-05} : f32[T,8]
          return %y, %u
        }""",
    )


@pytest.mark.parametrize(
    "body",
    [
        """
          %z = mul(%x, %r) : f32[T,8]
          %y = rms_norm(%z, %w) {eps=1e-06} : f32[T,8]
          return %y
        }""",
        """
          %y = rms_norm(%x, %w) {eps=1e-06} : f32[T,8]
          %z = add(%y, %r) : f32[T,8]
          return %z
        }""",
    ],
    ids=["norm of a product", "add after the norm"],
)
def test_leaves(body: str) -> None:
    check_unchanged(fuse_add_rms_norm, HEAD + body)
