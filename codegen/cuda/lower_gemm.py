"""Launches of products: `linear`, `linear_concat` and `swiglu_linear`, their weights packed in memory."""

from __future__ import annotations

from oi.codegen.cuda.arch import Arch
from oi.codegen.cuda.kernels.gemm import Even, Gemm, Gemv, Portable, Prefill, Skinny
from oi.codegen.cuda.node_arguments import node_arguments, static_shape
from oi.codegen.cuda.source import Argument, CallSource, Given, NodeSource, TensorMap, call, integer
from oi.codegen.cuda.tuning.gemm_table import choose_gemm, table_key
from oi.codegen.errors import CompileError
from oi.ir import ops
from oi.ir.graph import Node, Value
from oi.ir.types import DType
from oi.runtime.cuda_library import Operand, Scratch

__all__ = ["gemm_of", "lower_gemm", "packed_weights"]

PARTIAL, TICKETS = "gemm.partial", "gemm.tickets"


def packed_weights(node: Node) -> tuple[Value, ...]:
    """Weights that are read as one array."""
    return node.operands[1:] if isinstance(node.op, (ops.LinearConcat, ops.SwigluLinear)) else ()


def gemm_of(node: Node) -> Gemm | None:
    """None where the op is no product."""
    match node.op:
        case ops.Linear():
            n, k = static_shape(node.operands[1])
            return Gemm(n, k, f32=node.results[0].type.dtype is DType.F32)
        case ops.LinearConcat():
            shapes = [static_shape(weight) for weight in node.operands[1:]]
            return Gemm(sum(n for n, _ in shapes), shapes[0][1])
        case ops.SwigluLinear():
            n, k = static_shape(node.operands[1])
            return Gemm(n, k, swiglu=True)
        case _:
            return None


def lower_gemm(node: Node, rows: int, arch: Arch) -> NodeSource | None:
    """None where the op is no product. Raises CompileError where no kernel or launch fits."""
    gemm = gemm_of(node)
    if gemm is None:
        return None
    choice = choose_gemm(gemm, rows, target=arch.name, multiprocessors=arch.multiprocessors)
    args = node_arguments(node)
    x, w, y = args[0], args[1], args[-1]
    match choice.config:
        case Gemv() as config:
            made, partial, tickets = _gemv(config, gemm, rows, arch, x, w, y), 0, 0
        case Skinny() | Even() as config:
            made, partial, tickets = _skinny_or_even(config, gemm, rows, arch, x, w, y)
        case Prefill() as config:
            made, partial, tickets = _prefill(config, gemm, rows, arch, x, w, y), 0, 0
        case Portable() as config:
            made, partial, tickets = _portable(config, gemm, rows, arch, x, w, y)
    untuned = None if choice.tuned else (table_key(gemm), rows)
    return NodeSource((made,), scratch=((PARTIAL, partial), (TICKETS, tickets)), untuned=untuned)


def _gemv(config: Gemv, gemm: Gemm, rows: int, arch: Arch, x: Argument, w: Argument, y: Argument) -> CallSource:
    from oi.codegen.cuda.kernels.gemv import gemv

    given = {"x_ptr": x, "w_ptr": w, "y_ptr": y}
    constants = config.constants(gemm, rows)
    return call(gemv, (config.grid(gemm),), given, constants, num_warps=config.num_warps, pdl=arch.dependent_launches)


def _skinny_or_even(
    config: Skinny | Even, gemm: Gemm, rows: int, arch: Arch, x: Argument, w: Argument, y: Argument
) -> tuple[CallSource, int, int]:
    from oi.codegen.cuda.kernels.gemm_even import gemm_even
    from oi.codegen.cuda.kernels.gemm_skinny import gemm_skinny

    if isinstance(config, Even) and config.grid(gemm) > arch.multiprocessors:
        raise CompileError(
            f"gemm_even's programs wait for one another, and {config.grid(gemm)} do not fit the "
            f"{arch.multiprocessors} multiprocessors of {arch.gpu}: choose fewer in gemm_{arch.name}.json"
        )
    boxes = config.boxes(rows)
    given: Given = {
        "w_desc": _tensor_map(w, (gemm.weight_rows, gemm.k), boxes["w_desc"]),
        "x_desc": _tensor_map(x, (rows, gemm.k), boxes["x_desc"]),
        "y_ptr": y,
        "partial_ptr": Argument("*fp32", Scratch(PARTIAL)),
        "ticket_ptr": Argument("*i32", Scratch(TICKETS)),
        "M": integer(rows),
    }
    made = call(
        gemm_skinny if isinstance(config, Skinny) else gemm_even,
        (config.grid(gemm),),
        given,
        config.constants(gemm, rows),
        num_warps=config.num_warps,
        pdl=True,
        max_registers=config.max_registers(gemm, rows),
    )
    return made, config.partial_bytes(gemm, rows), 4 * config.tickets(gemm)


def _prefill(config: Prefill, gemm: Gemm, rows: int, arch: Arch, x: Argument, w: Argument, y: Argument) -> CallSource:
    from oi.codegen.cuda.kernels.gemm_prefill import gemm_prefill

    arrays = {"x": (x, (rows, gemm.k)), "w": (w, (gemm.weight_rows, gemm.k)), "y": (y, (rows, gemm.n))}
    maps = {name: _tensor_map(*arrays[name[0]], box) for name, box in config.boxes().items()}
    grid = (config.grid(gemm, rows, arch.multiprocessors),)
    given: Given = {**maps, "M": integer(rows)}
    return call(gemm_prefill, grid, given, config.constants(gemm), num_warps=config.num_warps, pdl=True)


def _portable(
    config: Portable, gemm: Gemm, rows: int, arch: Arch, x: Argument, w: Argument, y: Argument
) -> tuple[CallSource, int, int]:
    from oi.codegen.cuda.kernels.gemm_portable import gemm_portable

    given = {
        "x_ptr": x,
        "w_ptr": w,
        "y_ptr": y,
        "partial_ptr": Argument("*fp32", Scratch(PARTIAL)),
        "ticket_ptr": Argument("*i32", Scratch(TICKETS)),
        "M": integer(rows),
    }
    grid = (config.grid(gemm, rows),)
    constants = config.constants(gemm)
    made = call(gemm_portable, grid, given, constants, num_warps=config.num_warps, pdl=arch.dependent_launches)
    return made, config.partial_bytes(gemm, rows), 4 * config.tiles(gemm, rows)


def _tensor_map(argument: Argument, shape: tuple[int, ...], box: tuple[int, ...]) -> TensorMap:
    assert isinstance(argument.param, Operand)
    return TensorMap(argument.param.arg, shape, box)
