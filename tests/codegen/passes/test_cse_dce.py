from oi.codegen.passes.cse import cse
from oi.codegen.passes.dce import dce
from tests.codegen.ir_text import check, check_unchanged

HEAD = """
graph @g(input %x: f32[T,8], weight %w: f32[8]) {
"""


def test_cse_follows_chains_and_constants() -> None:
    check(
        cse,
        HEAD
        + """
          %c = constant() {values=(1.0, 2.0)} : f32[2]
          %d = constant() {values=(1.0, 2.0)} : f32[2]
          %e = constant() {values=(1.0, 3.0)} : f32[2]
          %a = silu(%x) : f32[T,8]
          %b = silu(%x) : f32[T,8]
          %na = rms_norm(%a, %w) {eps=1e-06} : f32[T,8]
          %nb = rms_norm(%b, %w) {eps=1e-06} : f32[T,8]
          %y = add(%na, %nb) : f32[T,8]
          return %y, %c, %d, %e
        }""",
        HEAD
        + """
          %c = constant() {values=(1.0, 2.0)} : f32[2]
          %d = constant() {values=(1.0, 2.0)} : f32[2]
          %e = constant() {values=(1.0, 3.0)} : f32[2]
          %a = silu(%x) : f32[T,8]
          %na = rms_norm(%a, %w) {eps=1e-06} : f32[T,8]
          %y = add(%na, %na) : f32[T,8]
          return %y, %c, %d, %e
        }""",
    )


def test_cse_minds_attributes_and_operands() -> None:
    check_unchanged(
        cse,
        HEAD
        + """
          %a = rms_norm(%x, %w) {eps=1e-06} : f32[T,8]
          %b = rms_norm(%x, %w) {eps=1e-05} : f32[T,8]
          %c = rms_norm(%a, %w) {eps=1e-06} : f32[T,8]
          %y = add(%a, %b) : f32[T,8]
          %z = add(%y, %c) : f32[T,8]
          return %z
        }""",
    )


def test_cse_keeps_equal_outputs_apart() -> None:
    check_unchanged(
        cse,
        HEAD
        + """
          %a = silu(%x) : f32[T,8]
          %b = silu(%x) : f32[T,8]
          return %a, %b
        }""",
    )


def test_dce_drops_what_no_output_needs() -> None:
    check(
        dce,
        HEAD
        + """
          %a = silu(%x) : f32[T,8]
          %b = rms_norm(%a, %w) {eps=1e-06} : f32[T,8]
          %c = mul(%b, %b) : f32[T,8]
          %y = add(%a, %x) : f32[T,8]
          return %y
        }""",
        HEAD
        + """
          %a = silu(%x) : f32[T,8]
          %y = add(%a, %x) : f32[T,8]
          return %y
        }""",
    )
