import pytest

from oi.codegen.passes.fuse_qkv_norm_rope_write import fuse_qkv_norm_rope_write
from tests.codegen.ir_text import check, check_unchanged

HEAD = """
graph @g(input %qkv: f32[T,32], input %other: f32[T,32], input %angles: f32[T,4], input %angles2: f32[T,4],
         input %slots: i32[T], state %kv: f32[N,3,2,2,8,4], weight %qw: f32[4], weight %kw: f32[4],
         input %s: i32[S], input %pages: i32[S,P]) {
"""
BODY = """
          %q = slice_columns(%qkv) {start=0, size=16} : f32[T,16]
          %q3 = reshape(%q) {trailing=(4, 4)} : f32[T,4,4]
          %k = slice_columns(%qkv) {start=16, size=8} : f32[T,8]
          %k3 = reshape(%k) {trailing=(2, 4)} : f32[T,2,4]
          %v = slice_columns(%qkv) {start=24, size=8} : f32[T,8]
          %v3 = reshape(%v) {trailing=(2, 4)} : f32[T,2,4]
          %qn = rms_norm(%q3, %qw) {eps=1e-06} : f32[T,4,4]
          %qr = rope(%qn, %angles) : f32[T,4,4]
          %kn = rms_norm(%k3, %kw) {eps=1e-06} : f32[T,2,4]
          %kr = rope(%kn, %angles) : f32[T,2,4]
          %kv1 = kv_write(%kr, %v3, %slots, %kv) {layer=1} : f32[N,3,2,2,8,4]
          %y = attention(%qr, %kv1, %s, %s, %s, %pages) {layer=1, scale=0.5} : f32[T,4,4]
          return %y, %kv1
        }"""


def test_fuses() -> None:
    check(
        fuse_qkv_norm_rope_write,
        HEAD + BODY,
        HEAD
        + """
          %qr, %kv1 = qkv_norm_rope_write(%qkv, %qw, %kw, %angles, %slots, %kv) {q_heads=4, layer=1, eps=1e-06} : \
f32[T,4,4], f32[N,3,2,2,8,4]
          %y = attention(%qr, %kv1, %s, %s, %s, %pages) {layer=1, scale=0.5} : f32[T,4,4]
          return %y, %kv1
        }""",
    )


CHANGES = {
    "q has another eps": ("(%q3, %qw) {eps=1e-06}", "(%q3, %qw) {eps=1e-05}"),
    "q has other angles": ("rope(%qn, %angles)", "rope(%qn, %angles2)"),
    "v is of another matrix": ("%v = slice_columns(%qkv)", "%v = slice_columns(%other)"),
    "q is of another matrix": ("%q = slice_columns(%qkv)", "%q = slice_columns(%other)"),
    "v's columns are k's": ("{start=24, size=8}", "{start=16, size=8}"),
    "k is not normed": ("rope(%kn, %angles)", "rope(%k3, %angles)"),
    "k is used elsewhere": ("return %y, %kv1", "return %y, %kv1, %kr"),
    "v is used elsewhere": ("return %y, %kv1", "return %y, %kv1, %v"),
    "q before the norm is used elsewhere": ("return %y, %kv1", "return %y, %kv1, %q3"),
    "v is rotated, k is not": ("kv_write(%kr, %v3,", "kv_write(%v3, %kr,"),
}


@pytest.mark.parametrize("why", CHANGES)
def test_leaves(why: str) -> None:
    old, new = CHANGES[why]
    assert BODY.count(old) == 1
    text = BODY.replace(old, new)
    if "%kn, " not in text:  # keep the graph free of dead code, which the driver would drop
        text = "\n".join(line for line in text.splitlines() if "%kn =" not in line)
    check_unchanged(fuse_qkv_norm_rope_write, HEAD + text)


def test_leaves_columns_that_are_not_all_used() -> None:
    wider = HEAD.replace("%qkv: f32[T,32]", "%qkv: f32[T,40]")
    check_unchanged(fuse_qkv_norm_rope_write, wider + BODY)


def test_leaves_a_write_whose_slots_come_from_q() -> None:
    """A graph in which the cache's operands depend on q would become a cycle."""
    text = BODY.replace(
        "          %kv1 = kv_write",
        """          %y0 = attention(%qr, %kv, %s, %s, %s, %pages) {layer=0, scale=0.5} : f32[T,4,4]
          %y1 = reshape(%y0) {trailing=(16,)} : f32[T,16]
          %slots1 = greedy(%y1) : i32[T]
          %kv1 = kv_write""",
    ).replace("%v3, %slots,", "%v3, %slots1,")
    check_unchanged(fuse_qkv_norm_rope_write, HEAD + text)
