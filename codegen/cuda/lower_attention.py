"""Launches of attention: one plan a step for each kernel, then the kernels of each layer.

In graph `decode` every sequence has one query and only the decode kernel runs. Elsewhere both do; each passes over
the other's sequences.
"""

from __future__ import annotations

from math import prod
from typing import Any

from oi.codegen.cuda.arch import Arch
from oi.codegen.cuda.kernels.attention import Array, AttentionShape, Decode, Prefill
from oi.codegen.cuda.kernels.attention_decode import attention_decode
from oi.codegen.cuda.kernels.attention_decode_plan import attention_decode_plan
from oi.codegen.cuda.kernels.attention_prefill import attention_prefill
from oi.codegen.cuda.kernels.attention_prefill_plan import attention_prefill_plan
from oi.codegen.cuda.node_arguments import node_arguments, static_shape
from oi.codegen.cuda.source import Argument, CallSource, Given, NodeSource, TensorMap, call, integer, io
from oi.codegen.cuda.tuning.attention_table import choose_decode, choose_prefill
from oi.codegen.target import MissingKernel
from oi.ir.graph import Node
from oi.ir.ops import Attention
from oi.ir.types import T
from oi.runtime.cuda_library import Operand, Scratch

__all__ = ["is_decode", "lower_attention"]

_PLAN_WARPS = 8


def is_decode(node: Node) -> bool:
    """An attention node of graph `decode`."""
    return isinstance(node.op, Attention) and node.operands[3].type.shape == (T,)


def lower_attention(node: Node, rows: int, max_sequences: int, arch: Arch) -> NodeSource | None:
    """None where the op is not attention. `rows` are a step's tokens, in graph `decode` also its sequences.

    Raises MissingKernel for sizes of heads that no kernel takes.
    """
    if not isinstance(node.op, Attention):
        return None
    dim = _shape(node).head_dim
    if dim < 16 or dim & (dim - 1):
        raise MissingKernel(node, arch.name, "a head must have a power of two of columns there, 16 or more")
    if is_decode(node):
        return _decode(node, rows, rows, arch)
    decode, prefill = _decode(node, rows, max_sequences, arch), _prefill(node, rows, max_sequences, arch)
    return NodeSource(
        decode.calls + prefill.calls,
        decode.prologue + prefill.prologue,
        decode.scratch + prefill.scratch,
    )


def _shape(node: Node) -> AttentionShape:
    assert isinstance(node.op, Attention)
    q_heads, dim = static_shape(node.operands[0])
    layers, _, kv_heads, page, _ = static_shape(node.operands[1])
    return AttentionShape(q_heads, kv_heads, dim, layers, node.op.scale, page)


def _decode(node: Node, rows: int, sequences: int, arch: Arch) -> NodeSource:
    q, kv, query_starts, query_lens, context_lens, page_table, y, layer = node_arguments(node)
    shape = _shape(node)
    # Hopper's decode kernel is for the heads that its table was measured with; the default is for all.
    target = arch.name if shape.head_dim == 128 else "any"
    config: Decode = choose_decode(min(rows, sequences), target=target, multiprocessors=arch.multiprocessors)
    plan = _scratch("attention_decode.plan")
    planned = call(
        attention_decode_plan,
        (1,),
        {
            "query_lens_ptr": query_lens,
            "context_lens_ptr": context_lens,
            "plan_ptr": plan,
            "S": integer(sequences),
            "PROGRAMS": integer(config.programs),
        },
        config.plan_constants(shape),
        num_warps=_PLAN_WARPS,
        pdl=False,
    )
    scratch = config.scratch(shape, sequences)
    others = {
        "q_ptr": q,
        "kv_ptr": kv,
        "query_starts_ptr": query_starts,
        "context_lens_ptr": context_lens,
        "page_table_ptr": page_table,
        "plan_ptr": plan,
        "y_ptr": y,
        **_scratch_arguments("attention_decode", scratch),
        "layer": layer,
        "S": integer(sequences),
        "table_width_ptr": io("table_width"),
    }
    made = _decode_call(config, shape, kv, others, arch)
    sizes = (("attention_decode.plan", 4 * config.plan_size(sequences)), *_sizes("attention_decode", scratch))
    return NodeSource((made,), (planned,), sizes)


def _decode_call(
    config: Decode, shape: AttentionShape, kv: Argument, others: dict[str, Argument], arch: Arch
) -> CallSource:
    options: dict[str, Any] = {"num_warps": config.num_warps, "pdl": arch.dependent_launches}
    grid, constants = (config.programs,), config.constants(shape)
    if not config.hopper:
        return call(attention_decode, grid, others, constants, **options)
    from oi.codegen.cuda.kernels.attention_decode_hopper import attention_decode_hopper

    given: Given = {"kv_desc": _cache_map(kv, shape, config.boxes(shape)["kv_desc"]), **others}
    return call(attention_decode_hopper, grid, given, constants, max_registers=config.max_registers, **options)


def _prefill(node: Node, tokens: int, sequences: int, arch: Arch) -> NodeSource:
    q, kv, query_starts, query_lens, context_lens, page_table, y, layer = node_arguments(node)
    shape = _shape(node)
    config: Prefill = choose_prefill(tokens, target=arch.name, multiprocessors=arch.multiprocessors)
    plan = _scratch("attention_prefill.plan")
    planned = call(
        attention_prefill_plan,
        (1,),
        {
            "query_lens_ptr": query_lens,
            "context_lens_ptr": context_lens,
            "plan_ptr": plan,
            "S": integer(sequences),
            "PROGRAMS": integer(config.programs),
            "TILES": integer(config.tiles(shape, tokens, sequences)),
        },
        config.plan_constants(shape),
        num_warps=_PLAN_WARPS,
        pdl=False,
    )
    scratch = config.scratch(shape)
    others = {
        "query_starts_ptr": query_starts,
        "query_lens_ptr": query_lens,
        "context_lens_ptr": context_lens,
        "page_table_ptr": page_table,
        "plan_ptr": plan,
        "y_ptr": y,
        **_scratch_arguments("attention_prefill", scratch),
        "layer": layer,
        "table_width_ptr": io("table_width"),
    }
    made = _prefill_call(config, shape, tokens, q, kv, others, arch)
    plan_bytes = 4 * config.plan_size(shape, tokens, sequences)
    return NodeSource(
        (made,), (planned,), (("attention_prefill.plan", plan_bytes), *_sizes("attention_prefill", scratch))
    )


def _prefill_call(
    config: Prefill,
    shape: AttentionShape,
    tokens: int,
    q: Argument,
    kv: Argument,
    others: dict[str, Argument],
    arch: Arch,
) -> CallSource:
    options: dict[str, Any] = {"num_warps": config.num_warps, "pdl": arch.dependent_launches}
    grid, constants = (config.programs,), config.constants(shape)
    if not config.hopper:
        return call(attention_prefill, grid, {"q_ptr": q, "kv_ptr": kv, **others}, constants, **options)
    from oi.codegen.cuda.kernels.attention_prefill_hopper import attention_prefill_hopper

    boxes = config.boxes(shape)
    assert isinstance(q.param, Operand)
    maps = {
        "q_desc": TensorMap(q.param.arg, (tokens, shape.q_heads, shape.head_dim), boxes["q_desc"]),
        "kv_desc": _cache_map(kv, shape, boxes["kv_desc"]),
    }
    return call(attention_prefill_hopper, grid, {**maps, **others}, constants, **options)


def _cache_map(kv: Argument, shape: AttentionShape, box: tuple[int, ...]) -> TensorMap:
    """The cache as lines of one head: [N·L·2·K·B, D]."""
    assert isinstance(kv.param, Operand)
    return TensorMap(kv.param.arg, (shape.layers * 2 * shape.kv_heads * shape.page, shape.head_dim), box, pages=True)


def _scratch(name: str, dtype: str = "i32") -> Argument:
    return Argument("*fp32" if dtype == "f32" else f"*{dtype}", Scratch(name))


def _scratch_arguments(kernel: str, arrays: dict[str, Array]) -> dict[str, Argument]:
    return {f"{name}_ptr": _scratch(f"{kernel}.{name}", dtype) for name, (dtype, _) in arrays.items()}


def _sizes(kernel: str, arrays: dict[str, Array]) -> tuple[tuple[str, int], ...]:
    return tuple((f"{kernel}.{name}", 4 * prod(shape)) for name, (_, shape) in arrays.items())
