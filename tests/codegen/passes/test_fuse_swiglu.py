import pytest

from oi.codegen.passes.fuse_swiglu import fuse_swiglu
from tests.codegen.ir_text import check, check_unchanged

HEAD = """
graph @g(input %x: f32[T,8], input %z: f32[T,8], weight %gate: f32[16,8], weight %up: f32[16,8],
         weight %half: bf16[16,8]) {
"""


@pytest.mark.parametrize("operands", ["%s, %b", "%b, %s"])
def test_fuses_either_order(operands: str) -> None:
    check(
        fuse_swiglu,
        HEAD
        + f"""
          %a = linear(%x, %gate) {{dtype=f32}} : f32[T,16]
          %b = linear(%x, %up) {{dtype=f32}} : f32[T,16]
          %s = silu(%a) : f32[T,16]
          %y = mul({operands}) : f32[T,16]
          return %y
        }}""",
        HEAD
        + """
          %y = swiglu_linear(%x, %gate, %up) : f32[T,16]
          return %y
        }""",
    )


BODIES = {
    "another use of the gate": """
          %a = linear(%x, %gate) {dtype=f32} : f32[T,16]
          %b = linear(%x, %up) {dtype=f32} : f32[T,16]
          %s = silu(%a) : f32[T,16]
          %y = mul(%s, %b) : f32[T,16]
          return %y, %a
        }""",
    "another use of up": """
          %a = linear(%x, %gate) {dtype=f32} : f32[T,16]
          %b = linear(%x, %up) {dtype=f32} : f32[T,16]
          %s = silu(%a) : f32[T,16]
          %y = mul(%s, %b) : f32[T,16]
          %w = add(%y, %b) : f32[T,16]
          return %w
        }""",
    "another use of silu": """
          %a = linear(%x, %gate) {dtype=f32} : f32[T,16]
          %b = linear(%x, %up) {dtype=f32} : f32[T,16]
          %s = silu(%a) : f32[T,16]
          %y = mul(%s, %b) : f32[T,16]
          %w = add(%y, %s) : f32[T,16]
          return %w
        }""",
    "products of two inputs": """
          %a = linear(%x, %gate) {dtype=f32} : f32[T,16]
          %b = linear(%z, %up) {dtype=f32} : f32[T,16]
          %s = silu(%a) : f32[T,16]
          %y = mul(%s, %b) : f32[T,16]
          return %y
        }""",
    "weights of two dtypes": """
          %a = linear(%x, %gate) {dtype=f32} : f32[T,16]
          %b = linear(%x, %half) {dtype=f32} : f32[T,16]
          %s = silu(%a) : f32[T,16]
          %y = mul(%s, %b) : f32[T,16]
          return %y
        }""",
    "results of another dtype than x": """
          %a = linear(%x, %gate) {dtype=bf16} : bf16[T,16]
          %b = linear(%x, %up) {dtype=bf16} : bf16[T,16]
          %s = silu(%a) : bf16[T,16]
          %y = mul(%s, %b) : bf16[T,16]
          return %y
        }""",
    "a square": """
          %a = linear(%x, %gate) {dtype=f32} : f32[T,16]
          %s = silu(%a) : f32[T,16]
          %y = mul(%s, %s) : f32[T,16]
          return %y
        }""",
    "no silu": """
          %a = linear(%x, %gate) {dtype=f32} : f32[T,16]
          %b = linear(%x, %up) {dtype=f32} : f32[T,16]
          %y = mul(%a, %b) : f32[T,16]
          return %y
        }""",
}


@pytest.mark.parametrize("why", BODIES)
def test_leaves(why: str) -> None:
    check_unchanged(fuse_swiglu, HEAD + BODIES[why])
