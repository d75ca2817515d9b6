import pytest

from oi.codegen.passes.hoist_select_rows import hoist_select_rows
from tests.codegen.ir_text import check, check_unchanged

HEAD = """
graph @g(input %x: f32[T,8], input %r: f32[T,8], input %rows: i32[R], input %others: i32[R], weight %w: f32[8],
         weight %head: f32[16,8], weight %square: f32[8,8]) {
"""


def test_above_the_head_and_the_final_norm() -> None:
    check(
        hoist_select_rows,
        HEAD
        + """
          %s = silu(%x) : f32[T,8]
          %n = rms_norm(%s, %w) {eps=1e-06} : f32[T,8]
          %all = linear(%n, %head) {dtype=f32} : f32[T,16]
          %logits = select_rows(%all, %rows) : f32[R,16]
          return %logits
        }""",
        HEAD
        + """
          %x.rows = select_rows(%x, %rows) : f32[R,8]
          %s.rows = silu(%x.rows) : f32[R,8]
          %n.rows = rms_norm(%s.rows, %w) {eps=1e-06} : f32[R,8]
          %logits = linear(%n.rows, %head) {dtype=f32} : f32[R,16]
          return %logits
        }""",
    )


def test_through_a_residual_as_far_as_no_other_row_is_needed() -> None:
    """%z feeds both the sum and the product; %x is selected once."""
    check(
        hoist_select_rows,
        HEAD
        + """
          %z = add(%x, %r) : f32[T,8]
          %p = linear(%z, %square) {dtype=f32} : f32[T,8]
          %y = add(%z, %p) : f32[T,8]
          %out = select_rows(%y, %rows) : f32[R,8]
          return %out
        }""",
        HEAD
        + """
          %x.rows = select_rows(%x, %rows) : f32[R,8]
          %r.rows = select_rows(%r, %rows) : f32[R,8]
          %z.rows = add(%x.rows, %r.rows) : f32[R,8]
          %p.rows = linear(%z.rows, %square) {dtype=f32} : f32[R,8]
          %out = add(%z.rows, %p.rows) : f32[R,8]
          return %out
        }""",
    )


@pytest.mark.parametrize(
    "body",
    [
        """
          %all = linear(%x, %head) {dtype=f32} : f32[T,16]
          %logits = select_rows(%all, %rows) : f32[R,16]
          return %logits, %all
        }""",
        """
          %s = silu(%x) : f32[T,8]
          %a = select_rows(%s, %rows) : f32[R,8]
          %p = linear(%s, %head) {dtype=f32} : f32[T,16]
          return %a, %p
        }""",
        """
          %s = silu(%x) : f32[T,8]
          %a = select_rows(%s, %rows) : f32[R,8]
          %b = select_rows(%s, %others) : f32[R,8]
          return %a, %b
        }""",
        """
          %a = select_rows(%x, %rows) : f32[R,8]
          return %a
        }""",
        """
          %x3 = reshape(%x) {trailing=(2, 4)} : f32[T,2,4]
          %x2 = reshape(%x3) {trailing=(8,)} : f32[T,8]
          %a = select_rows(%x2, %rows) : f32[R,8]
          return %a
        }""",
    ],
    ids=["the whole is an output", "the whole is used", "two selections", "of an input", "of a reshape"],
)
def test_leaves(body: str) -> None:
    check_unchanged(hoist_select_rows, HEAD + body)
