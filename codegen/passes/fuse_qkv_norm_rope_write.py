"""q, k, v = columns of qkv, split into heads; q, k = rope(rms_norm(·)); kv' = kv_write(k, v)  →  qkv_norm_rope_write"""

from __future__ import annotations

from dataclasses import dataclass

from oi.codegen.passes.match import depends_on, sole
from oi.ir.graph import Graph, Node, Value
from oi.ir.ops import KvWrite, QkvNormRopeWrite, Reshape, RmsNorm, Rope, SliceColumns
from oi.ir.rewrite import Rewriter, rewrite

__all__ = ["fuse_qkv_norm_rope_write"]


def fuse_qkv_norm_rope_write(graph: Graph) -> Graph:
    """Needs the columns in the order q, k, v, one eps and the same angles for q and k, and no other use between."""
    return rewrite(graph, _fuse)


@dataclass(frozen=True)
class _Heads:
    """Columns [start, start + heads · dim) of `source` as heads; normed and rotated unless `weight` is None."""

    source: Value
    start: int
    heads: int
    dim: int
    weight: Value | None = None
    angles: Value | None = None
    eps: float | None = None

    @property
    def stop(self) -> int:
        return self.start + self.heads * self.dim


def _fuse(node: Node, rewriter: Rewriter) -> None:
    if not isinstance(node.op, KvWrite):
        return
    k_value, v_value, slots, kv = node.operands
    k = _rotated(sole(rewriter, k_value), rewriter)
    v = _heads(sole(rewriter, v_value), rewriter)
    if k is None or v is None or k.weight is None or k.angles is None or k.eps is None or v.source is not k.source:
        return
    for rope in _ropes(k.angles, rewriter):
        q = _rotated(rope, rewriter)
        if q is None or q.weight is None or not _fit(q, k, v) or depends_on(rewriter, (*node.operands[2:],), rope):
            continue
        op = QkvNormRopeWrite(q.heads, node.op.layer, k.eps)
        new_q, new_kv = rewriter.emit_multi(op, k.source, q.weight, k.weight, k.angles, slots, kv)
        rewriter.replace(rope, new_q)
        rewriter.replace(node, new_kv)
        return


def _fit(q: _Heads, k: _Heads, v: _Heads) -> bool:
    """q, k and v are all of the source's columns, in that order, and q is treated as k is."""
    return (
        q.source is k.source
        and (q.start, q.stop, k.stop, v.stop) == (0, k.start, v.start, q.source.type.shape[1])
        and (k.heads, k.dim, q.dim) == (v.heads, v.dim, v.dim)
        and (q.angles, q.eps) == (k.angles, k.eps)
    )


def _ropes(angles: Value, rewriter: Rewriter) -> list[Node]:
    return [user for user in rewriter.users(angles) if isinstance(user.op, Rope)]


def _rotated(node: Node | None, rewriter: Rewriter) -> _Heads | None:
    """rope(rms_norm(heads of columns))"""
    match node:
        case Node(Rope(), (normed, angles)):
            match sole(rewriter, normed):
                case Node(RmsNorm(eps), (split, weight)):
                    heads = _heads(sole(rewriter, split), rewriter)
                    if heads is not None:
                        return _Heads(heads.source, heads.start, heads.heads, heads.dim, weight, angles, eps)
    return None


def _heads(node: Node | None, rewriter: Rewriter) -> _Heads | None:
    """Columns split into heads."""
    match node:
        case Node(Reshape((count, dim)), (columns,)):
            match sole(rewriter, columns):
                case Node(SliceColumns(start), (source,)):
                    return _Heads(source, start, count, dim)
    return None
