"""Launches of the kernels that take a row, or a few tokens, a program."""

from __future__ import annotations

from oi.codegen.cuda.arch import Arch
from oi.codegen.cuda.kernels.add_rms_norm import add_rms_norm
from oi.codegen.cuda.kernels.embedding import embedding
from oi.codegen.cuda.kernels.qkv_norm_rope_write import qkv_norm_rope_write
from oi.codegen.cuda.kernels.rms_norm import rms_norm
from oi.codegen.cuda.kernels.rope_angles import rope_angles
from oi.codegen.cuda.kernels.select_rows import select_rows
from oi.codegen.cuda.node_arguments import node_arguments, static_shape
from oi.codegen.cuda.source import NodeSource, call, integer, io
from oi.ir import ops
from oi.ir.graph import Node

__all__ = ["lower_rows"]


def lower_rows(node: Node, rows: int, arch: Arch) -> NodeSource | None:
    """None where the op is none of these."""
    op, pdl, args = node.op, arch.dependent_launches, node_arguments(node)
    match op:
        case ops.Embedding():
            tokens, table, y = args
            _, width = static_shape(node.operands[1])
            given = {"tokens_ptr": tokens, "sampled_ptr": io("sampled"), "table_ptr": table, "y_ptr": y}
            made = call(embedding, (rows,), given, _row(width), num_warps=_warps(width), pdl=pdl)
        case ops.SelectRows():
            x, selected, y = args
            (width,) = static_shape(node.operands[0])
            given = {"x_ptr": x, "rows_ptr": selected, "y_ptr": y}
            made = call(select_rows, (rows,), given, _row(width), num_warps=_warps(width), pdl=pdl)
        case ops.RmsNorm():
            x, weight, y = args
            (width,) = static_shape(node.operands[1])
            given = {"x_ptr": x, "weight_ptr": weight, "y_ptr": y}
            constants = {**_row(width), "EPS": op.eps}
            made = call(rms_norm, (rows,), given, constants, num_warps=_warps(width), pdl=pdl)
        case ops.AddRmsNorm():
            x, residual, weight, z, y = args
            (width,) = static_shape(node.operands[2])
            given = {"x_ptr": x, "residual_ptr": residual, "weight_ptr": weight, "z_ptr": z, "y_ptr": y}
            constants = {**_row(width), "EPS": op.eps}
            made = call(add_rms_norm, (rows,), given, constants, num_warps=_warps(width), pdl=pdl)
        case ops.RopeAngles():
            positions, inv_freq, y = args
            (half,) = static_shape(node.operands[1])
            given = {"positions_ptr": positions, "inv_freq_ptr": inv_freq, "y_ptr": y}
            made = call(rope_angles, (rows,), given, {"HALF": half, "SCALE": op.scale}, num_warps=2, pdl=pdl)
        case ops.QkvNormRopeWrite():
            qkv, q_weight, k_weight, angles, slots, kv, q, layer = args
            layers, _, kv_heads, page, dim = static_shape(node.operands[5])
            given = {
                "qkv_ptr": qkv,
                "q_weight_ptr": q_weight,
                "k_weight_ptr": k_weight,
                "angles_ptr": angles,
                "slots_ptr": slots,
                "kv_ptr": kv,
                "q_ptr": q,
                "tokens": integer(rows),
                "layer": layer,
            }
            constants = {
                "L": layers,
                "Q": op.q_heads,
                "K": kv_heads,
                "B": page,
                "D": dim,
                "TOKENS": 1,
                "HEADS": _next_power(op.q_heads // kv_heads + 2),
                "EPS": op.eps,
            }
            made = call(qkv_norm_rope_write, (rows, kv_heads), given, constants, num_warps=1, pdl=pdl)
        case _:
            return None
    return NodeSource((made,))


def _row(width: int) -> dict[str, int]:
    return {"H": width, "BLOCK": _next_power(width)}


def _warps(width: int) -> int:
    """Eight elements, 16 bytes, a thread, or more of them."""
    return max(1, min(8, _next_power(width) // 256))


def _next_power(n: int) -> int:
    return 1 << (n - 1).bit_length()
