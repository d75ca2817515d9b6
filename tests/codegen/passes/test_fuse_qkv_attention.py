import pytest

from oi.codegen.passes.fuse_qkv_attention import fuse_qkv_attention
from tests.codegen.ir_text import check, check_unchanged

HEAD = """
graph @g(input %qkv: f32[T,32], input %qkv2: f32[T,32], input %angles: f32[T,4], input %slots: i32[T],
         state %kv: f32[N,3,2,2,8,4], weight %qw: f32[4], weight %kw: f32[4], input %s: i32[S],
         input %pages: i32[S,P]) {
"""
BODY = """
          %q, %kv1 = qkv_norm_rope_write(%qkv, %qw, %kw, %angles, %slots, %kv) {q_heads=4, layer=1, eps=1e-06} : \
f32[T,4,4], f32[N,3,2,2,8,4]
          %y = attention(%q, %kv1, %s, %s, %s, %pages) {layer=1, scale=0.5} : f32[T,4,4]
          %r, %kv2 = qkv_norm_rope_write(%qkv2, %qw, %kw, %angles, %slots, %kv1) {q_heads=4, layer=2, eps=1e-06} : \
f32[T,4,4], f32[N,3,2,2,8,4]
          %z = attention(%r, %kv2, %s, %s, %s, %pages) {layer=2, scale=0.5} : f32[T,4,4]
          %o = add(%y, %z) : f32[T,4,4]
          return %o, %kv2
        }"""


def test_fuses_each_layer() -> None:
    check(
        fuse_qkv_attention,
        HEAD + BODY,
        HEAD
        + """
          %y, %kv1 = qkv_attention(%qkv, %qw, %kw, %angles, %slots, %kv, %s, %s, %s, %pages) \
{q_heads=4, layer=1, eps=1e-06, scale=0.5} : f32[T,4,4], f32[N,3,2,2,8,4]
          %z, %kv2 = qkv_attention(%qkv2, %qw, %kw, %angles, %slots, %kv1, %s, %s, %s, %pages) \
{q_heads=4, layer=2, eps=1e-06, scale=0.5} : f32[T,4,4], f32[N,3,2,2,8,4]
          %o = add(%y, %z) : f32[T,4,4]
          return %o, %kv2
        }""",
    )


SINGLE = HEAD + BODY.replace(BODY[BODY.index("          %r,") : BODY.index("          %o =")], "").replace(
    "add(%y, %z)", "silu(%y)"
).replace("%kv2", "%kv1")
CHANGES = {
    "q is used elsewhere": ("silu(%y)", "add(%y, %q)"),
    "another layer": ("{layer=1, scale=0.5}", "{layer=0, scale=0.5}"),
}


@pytest.mark.parametrize("why", CHANGES)
def test_leaves(why: str) -> None:
    old, new = CHANGES[why]
    assert SINGLE.count(old) == 1
    check_unchanged(fuse_qkv_attention, SINGLE.replace(old, new))
