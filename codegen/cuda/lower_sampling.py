"""Launches of `greedy`, `sample` and `log_probs`: each two kernels."""

from __future__ import annotations

from oi.codegen.cuda.arch import Arch
from oi.codegen.cuda.kernels.greedy import greedy, greedy_chunks
from oi.codegen.cuda.kernels.log_probs import log_probs, log_probs_chunks
from oi.codegen.cuda.kernels.sample import sample, sample_chunks
from oi.codegen.cuda.kernels.sampling import Greedy, LogProbs, Sample
from oi.codegen.cuda.node_arguments import node_arguments, static_shape
from oi.codegen.cuda.scratch import scratch_arguments, scratch_bytes
from oi.codegen.cuda.source import NodeSource, call
from oi.ir import ops
from oi.ir.graph import Node

__all__ = ["lower_sampling"]


def lower_sampling(node: Node, rows: int, max_edits: int, arch: Arch) -> NodeSource | None:
    """None where the op is none of these."""
    match node.op:
        case ops.Greedy():
            return _greedy(node, rows, arch)
        case ops.Sample():
            return _sample(node, rows, max_edits, arch)
        case ops.LogProbs():
            return _log_probs(node, rows, arch)
        case _:
            return None


def _greedy(node: Node, rows: int, arch: Arch) -> NodeSource:
    logits, token = node_arguments(node)
    (vocabulary,) = static_shape(node.operands[0])
    config, pdl = Greedy(), arch.dependent_launches
    scratch = config.scratch(vocabulary, rows)
    (best,) = scratch_arguments("greedy", scratch).values()
    first, second = config.constants(vocabulary)
    grid = (rows, scratch["best"][1][1])
    chunks = call(greedy_chunks, grid, {"logits_ptr": logits, "best_ptr": best}, first, num_warps=4, pdl=pdl)
    row = call(greedy, (rows,), {"best_ptr": best, "token_ptr": token}, second, num_warps=1, pdl=pdl)
    return NodeSource((chunks, row), scratch=scratch_bytes("greedy", scratch))


def _sample(node: Node, rows: int, max_edits: int, arch: Arch) -> NodeSource:
    names = (*ops.Sample.operands, "token")
    given = {f"{name}_ptr": argument for name, argument in zip(names, node_arguments(node), strict=True)}
    (vocabulary,) = static_shape(node.operands[0])
    config, pdl = Sample(), arch.dependent_launches
    scratch = config.scratch(vocabulary, rows, max_edits)
    given |= scratch_arguments("sample", scratch)
    first, second = config.constants(vocabulary)
    edits = ("edit_starts_ptr", "edit_lens_ptr", "edit_tokens_ptr")
    values = ("edit_scale_ptr", "edit_add_ptr")
    cuts = ("top_k_ptr", "top_p_ptr", "min_p_ptr", "uniform_ptr")
    both = ("logits_ptr", *edits, "temperature_ptr", "best_ptr", "sums_ptr", "original_ptr")
    own = ("selected_ptr", "candidates_ptr", "candidate_tokens_ptr")
    chunks = call(
        sample_chunks,
        (rows, config.chunk_programs(vocabulary)),
        {name: given[name] for name in (*both, *values)},
        first,
        num_warps=4,
        pdl=pdl,
    )
    row = call(
        sample,
        (rows,),
        {name: given[name] for name in (*both, *cuts, "token_ptr", *own)},
        second,
        num_warps=config.num_warps,
        pdl=pdl,
    )
    return NodeSource((chunks, row), scratch=scratch_bytes("sample", scratch))


def _log_probs(node: Node, rows: int, arch: Arch) -> NodeSource:
    assert isinstance(node.op, ops.LogProbs)
    logits, token, chosen, top_tokens, top = node_arguments(node)
    (vocabulary,) = static_shape(node.operands[0])
    config, pdl = LogProbs(top=node.op.k), arch.dependent_launches
    scratch = config.scratch(vocabulary, rows)
    arrays = scratch_arguments("log_probs", scratch)
    shared = {name: arrays[name] for name in ("best_ptr", "sums_ptr")}
    first, second = config.constants(vocabulary)
    grid = (rows, config.chunk_programs(vocabulary))
    chunks = call(log_probs_chunks, grid, {"logits_ptr": logits, **shared}, first, num_warps=4, pdl=pdl)
    row = call(
        log_probs,
        (rows,),
        {
            "logits_ptr": logits,
            "token_ptr": token,
            "chosen_ptr": chosen,
            "top_tokens_ptr": top_tokens,
            "top_ptr": top,
            **arrays,
        },
        second,
        num_warps=config.num_warps,
        pdl=pdl,
    )
    return NodeSource((chunks, row), scratch=scratch_bytes("log_probs", scratch))
