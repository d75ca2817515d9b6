"""q, kv' = qkv_norm_rope_write(qkv, …, kv); y = attention(q, kv', …)  →  (y, kv') = qkv_attention(qkv, …, kv, …)"""

from __future__ import annotations

from oi.codegen.passes.match import depends_on, sole
from oi.ir.graph import Graph, Node
from oi.ir.ops import Attention, QkvAttention, QkvNormRopeWrite
from oi.ir.rewrite import Rewriter, rewrite

__all__ = ["fuse_qkv_attention"]


def fuse_qkv_attention(graph: Graph) -> Graph:
    """Where nothing else reads q. For targets that have a kernel for it, which is not all."""
    return rewrite(graph, _fuse)


def _fuse(node: Node, rewriter: Rewriter) -> None:
    match node:
        case Node(Attention(layer, scale), (q, kv, *sequences)):
            match sole(rewriter, q):
                case Node(QkvNormRopeWrite(q_heads, of_layer, eps), operands, (_, written)) as write if (
                    written is kv and of_layer == layer and not depends_on(rewriter, tuple(sequences), write)
                ):
                    op = QkvAttention(q_heads, layer, eps, scale)
                    y, after = rewriter.emit_multi(op, *operands, *sequences)
                    rewriter.replace(node, y)
                    if rewriter.producer(kv) is write:
                        rewriter.replace(write, y, after)  # nothing reads q any more
