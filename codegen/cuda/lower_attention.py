"""Launches of attention: one plan a step for each kernel, then the kernels of each layer.

In graph `decode` every sequence has one query and only the decode kernel runs; Hopper's takes in qkv_norm_rope_write.
Elsewhere both do; each passes over the other's sequences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oi.codegen.cuda.arch import Arch
from oi.codegen.cuda.kernels.attention import AttentionShape, Decode, Prefill
from oi.codegen.cuda.kernels.attention_decode import attention_decode
from oi.codegen.cuda.kernels.attention_decode_plan import attention_decode_plan
from oi.codegen.cuda.kernels.attention_prefill import attention_prefill
from oi.codegen.cuda.kernels.attention_prefill_add import attention_prefill_add
from oi.codegen.cuda.kernels.attention_prefill_plan import attention_prefill_plan
from oi.codegen.cuda.node_arguments import node_arguments, static_shape
from oi.codegen.cuda.scratch import Array, scratch_arguments, scratch_bytes
from oi.codegen.cuda.source import Argument, CallSource, Given, NodeSource, TensorMap, call, integer, io
from oi.codegen.cuda.tuning.attention_table import choose_decode, choose_prefill
from oi.codegen.target import MissingKernel
from oi.ir.graph import Graph, Node, Value
from oi.ir.ops import Attention, QkvAttention
from oi.ir.types import T
from oi.runtime.cuda_library import Operand

__all__ = ["is_decode", "lower_attention", "takes_qkv"]

_PLAN_WARPS = 8


def is_decode(node: Node) -> bool:
    """An attention node of graph `decode`."""
    return isinstance(node.op, (Attention, QkvAttention)) and _operand(node, "query_lens").type.shape == (T,)


def takes_qkv(decode: Graph, rows: Iterable[int], arch: Arch) -> bool:
    """Whether graph `decode` should have qkv_attention: there is a kernel for all of its buckets."""
    shapes = {_shape(node) for node in decode.nodes if isinstance(node.op, Attention)}
    return all(s.head_dim == 128 and _choose_decode(s, size, arch).hopper for s in shapes for size in rows)


def lower_attention(node: Node, rows: int, max_sequences: int, arch: Arch) -> NodeSource | None:
    """None where the op is not attention. `rows` are a step's tokens, in graph `decode` also its sequences.

    Raises MissingKernel for sizes of heads that no kernel takes.
    """
    if not isinstance(node.op, (Attention, QkvAttention)):
        return None
    shape = _shape(node)
    if shape.head_dim not in (16, 32, 64, 128):
        raise MissingKernel(node, arch.name, "a head must have 16, 32, 64 or 128 columns there; --target cpu takes any")
    if shape.group > 16:
        raise MissingKernel(
            node, arch.name, "at most 16 query heads may share a KV head there; --target cpu takes any number"
        )
    if is_decode(node):
        return _decode(node, rows, rows, arch)
    decode, prefill = _decode(node, rows, max_sequences, arch), _prefill(node, rows, max_sequences, arch)
    return NodeSource(
        decode.calls + prefill.calls,
        decode.prologue + prefill.prologue,
        decode.scratch + prefill.scratch,
    )


def _operand(node: Node, name: str) -> Value:
    return node.operands[node.op.operands.index(name)]


def _shape(node: Node) -> AttentionShape:
    assert isinstance(node.op, (Attention, QkvAttention))
    q_heads, dim = static_shape(node.results[0])
    layers, _, kv_heads, page, _ = static_shape(_operand(node, "kv"))
    return AttentionShape(q_heads, kv_heads, dim, layers, node.op.scale, page)


def _named_arguments(node: Node) -> dict[str, Argument]:
    """By the kernels' names."""
    names = (*(f"{name}_ptr" for name in (*node.op.operands, "y")), "layer")
    return dict(zip(names, node_arguments(node), strict=True))


def _target(shape: AttentionShape, arch: Arch) -> str:
    """Hopper's kernels copy 64 columns at once; the default launches are for all."""
    return arch.name if shape.head_dim % 64 == 0 else "any"


def _choose_decode(shape: AttentionShape, sequences: int, arch: Arch) -> Decode:
    return choose_decode(sequences, target=_target(shape, arch), multiprocessors=arch.multiprocessors)


def _decode(node: Node, rows: int, sequences: int, arch: Arch) -> NodeSource:
    shape, given = _shape(node), _named_arguments(node)
    config = _choose_decode(shape, min(rows, sequences), arch)
    plan: Array = ("i32", (config.plan_size(sequences),))
    scratch = {"plan": plan, **config.scratch(shape, sequences)}
    given |= scratch_arguments("attention_decode", scratch)
    planned = call(
        attention_decode_plan,
        (1,),
        {
            "query_lens_ptr": given.pop("query_lens_ptr"),
            "context_lens_ptr": given["context_lens_ptr"],
            "plan_ptr": given["plan_ptr"],
            "S": integer(sequences),
            "PROGRAMS": integer(config.programs),
        },
        config.plan_constants(shape),
        num_warps=_PLAN_WARPS,
        pdl=False,
    )
    given |= {"S": integer(sequences), "table_width_ptr": io("table_width")}
    launch = _decode_call(node, config, given, arch)
    return NodeSource((launch,), (planned,), scratch_bytes("attention_decode", scratch))


def _decode_call(node: Node, config: Decode, given: dict[str, Argument], arch: Arch) -> CallSource:
    shape = _shape(node)
    options: dict[str, Any] = {"num_warps": config.num_warps, "pdl": arch.dependent_launches}
    grid, constants = (config.programs,), config.constants(shape)
    if not config.hopper:
        return call(attention_decode, grid, given, constants, **options)
    from oi.codegen.cuda.kernels.attention_decode_hopper import attention_decode_hopper, qkv_attention_decode_hopper

    options["max_registers"] = config.max_registers
    maps: Given = {"kv_desc": _cache_map(given["kv_ptr"], shape, config.boxes(shape)["kv_desc"]), **given}
    if not isinstance(node.op, QkvAttention):
        return call(attention_decode_hopper, grid, maps, constants, **options)
    # It finds a sequence's newest slot in the page table.
    used = {name: argument for name, argument in maps.items() if name != "slots_ptr"}
    return call(qkv_attention_decode_hopper, grid, used, {**constants, "EPS": node.op.eps}, **options)


def _prefill(node: Node, tokens: int, sequences: int, arch: Arch) -> NodeSource:
    shape, given = _shape(node), _named_arguments(node)
    config: Prefill = choose_prefill(tokens, target=_target(shape, arch), multiprocessors=arch.multiprocessors)
    plan: Array = ("i32", (config.plan_size(shape, tokens, sequences),))
    scratch = {"plan": plan, **config.scratch(shape)}
    given |= scratch_arguments("attention_prefill", scratch)
    planned = call(
        attention_prefill_plan,
        (1,),
        {
            "query_lens_ptr": given["query_lens_ptr"],
            "context_lens_ptr": given["context_lens_ptr"],
            "plan_ptr": given["plan_ptr"],
            "S": integer(sequences),
            "PROGRAMS": integer(config.programs),
            "TILES": integer(config.tiles(shape, tokens, sequences)),
        },
        config.plan_constants(shape),
        num_warps=_PLAN_WARPS,
        pdl=False,
    )
    given["table_width_ptr"] = io("table_width")
    launches = _prefill_calls(config, shape, tokens, given, arch)
    return NodeSource(launches, (planned,), scratch_bytes("attention_prefill", scratch))


def _prefill_calls(
    config: Prefill, shape: AttentionShape, tokens: int, given: dict[str, Argument], arch: Arch
) -> tuple[CallSource, ...]:
    options: dict[str, Any] = {"num_warps": config.num_warps, "pdl": arch.dependent_launches}
    grid, constants = (config.programs,), config.constants(shape)
    if not config.hopper:
        return (call(attention_prefill, grid, given, constants, **options),)
    from oi.codegen.cuda.kernels.attention_prefill_few_hopper import attention_prefill_few_hopper
    from oi.codegen.cuda.kernels.attention_prefill_hopper import attention_prefill_hopper

    added = {name: given[name] for name in attention_prefill_add.arg_names if name in given}
    boxes, q = config.boxes(shape), given.pop("q_ptr").param
    assert isinstance(q, Operand)
    maps: Given = {
        "q_desc": TensorMap(q.arg, (tokens, shape.q_heads, shape.head_dim), boxes["q_desc"]),
        "kv_desc": _cache_map(given.pop("kv_ptr"), shape, boxes["kv_desc"]),
        **given,
    }
    if not config.few:
        return (call(attention_prefill_hopper, grid, maps, constants, **options),)
    return (
        call(attention_prefill_few_hopper, grid, maps, constants, max_registers=config.max_registers, **options),
        call(attention_prefill_add, grid, added, config.add_constants(shape), **options),
    )


def _cache_map(kv: Argument, shape: AttentionShape, box: tuple[int, ...]) -> TensorMap:
    """The cache as lines of one head: [N·L·2·K·B, D]."""
    assert isinstance(kv.param, Operand)
    return TensorMap(kv.param.arg, (shape.layers * 2 * shape.kv_heads * shape.page, shape.head_dim), box, pages=True)
