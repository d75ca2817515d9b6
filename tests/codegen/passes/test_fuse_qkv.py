import pytest

from oi.codegen.passes.fuse_qkv import fuse_qkv
from tests.codegen.ir_text import check, check_unchanged

HEAD = """
graph @g(input %x: f32[T,8], input %z: f32[T,8], weight %wq: f32[16,8], weight %wk: f32[8,8], weight %wv: f32[8,8],
         weight %half: bf16[8,8]) {
"""


def test_fuses_all_that_are_split_into_heads() -> None:
    check(
        fuse_qkv,
        HEAD
        + """
          %q = linear(%x, %wq) {dtype=f32} : f32[T,16]
          %q3 = reshape(%q) {trailing=(4, 4)} : f32[T,4,4]
          %k = linear(%x, %wk) {dtype=f32} : f32[T,8]
          %k3 = reshape(%k) {trailing=(2, 4)} : f32[T,2,4]
          %v = linear(%x, %wv) {dtype=f32} : f32[T,8]
          %v3 = reshape(%v) {trailing=(2, 4)} : f32[T,2,4]
          return %q3, %k3, %v3
        }""",
        HEAD
        + """
          %q.concat = linear_concat(%x, %wq, %wk, %wv) : f32[T,32]
          %q = slice_columns(%q.concat) {start=0, size=16} : f32[T,16]
          %k = slice_columns(%q.concat) {start=16, size=8} : f32[T,8]
          %v = slice_columns(%q.concat) {start=24, size=8} : f32[T,8]
          %q3 = reshape(%q) {trailing=(4, 4)} : f32[T,4,4]
          %k3 = reshape(%k) {trailing=(2, 4)} : f32[T,2,4]
          %v3 = reshape(%v) {trailing=(2, 4)} : f32[T,2,4]
          return %q3, %k3, %v3
        }""",
    )


def test_leaves_out_what_does_not_fit() -> None:
    """Of another x, of another weight dtype, or used whole: those stay as they are."""
    check(
        fuse_qkv,
        HEAD
        + """
          %a = linear(%x, %wk) {dtype=f32} : f32[T,8]
          %a3 = reshape(%a) {trailing=(2, 4)} : f32[T,2,4]
          %b = linear(%z, %wk) {dtype=f32} : f32[T,8]
          %b3 = reshape(%b) {trailing=(2, 4)} : f32[T,2,4]
          %c = linear(%x, %half) {dtype=f32} : f32[T,8]
          %c3 = reshape(%c) {trailing=(2, 4)} : f32[T,2,4]
          %d = linear(%x, %wk) {dtype=f32} : f32[T,8]
          %e = linear(%x, %wv) {dtype=f32} : f32[T,8]
          %e3 = reshape(%e) {trailing=(2, 4)} : f32[T,2,4]
          return %a3, %b3, %c3, %d, %e3
        }""",
        HEAD
        + """
          %a.concat = linear_concat(%x, %wk, %wv) : f32[T,16]
          %a = slice_columns(%a.concat) {start=0, size=8} : f32[T,8]
          %e = slice_columns(%a.concat) {start=8, size=8} : f32[T,8]
          %a3 = reshape(%a) {trailing=(2, 4)} : f32[T,2,4]
          %b = linear(%z, %wk) {dtype=f32} : f32[T,8]
          %b3 = reshape(%b) {trailing=(2, 4)} : f32[T,2,4]
          %c = linear(%x, %half) {dtype=f32} : f32[T,8]
          %c3 = reshape(%c) {trailing=(2, 4)} : f32[T,2,4]
          %d = linear(%x, %wk) {dtype=f32} : f32[T,8]
          %e3 = reshape(%e) {trailing=(2, 4)} : f32[T,2,4]
          return %a3, %b3, %c3, %d, %e3
        }""",
    )


@pytest.mark.parametrize(
    "body",
    [
        """
          %q = linear(%x, %wq) {dtype=f32} : f32[T,16]
          %q3 = reshape(%q) {trailing=(4, 4)} : f32[T,4,4]
          return %q3
        }""",
        """
          %a = linear(%x, %wk) {dtype=f32} : f32[T,8]
          %b = linear(%x, %wv) {dtype=f32} : f32[T,8]
          %c = add(%a, %b) : f32[T,8]
          return %c
        }""",
        """
          %a = linear(%x, %wk) {dtype=bf16} : bf16[T,8]
          %a3 = reshape(%a) {trailing=(2, 4)} : bf16[T,2,4]
          %b = linear(%x, %wv) {dtype=bf16} : bf16[T,8]
          %b3 = reshape(%b) {trailing=(2, 4)} : bf16[T,2,4]
          return %a3, %b3
        }""",
        """
          %a = linear(%x, %wk) {dtype=f32} : f32[T,8]
          %a3 = reshape(%a) {trailing=(2, 4)} : f32[T,2,4]
          %b = linear(%x, %wv) {dtype=f32} : f32[T,8]
          %b3 = reshape(%b) {trailing=(2, 4)} : f32[T,2,4]
          return %a3, %b3, %b
        }""",
    ],
    ids=["only one", "not split into heads", "of another dtype than x", "a product that is an output too"],
)
def test_leaves(body: str) -> None:
    check_unchanged(fuse_qkv, HEAD + body)
