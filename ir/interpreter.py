"""Run any graph with the reference semantics of its ops."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oi.ir.errors import TypeMismatch
from oi.ir.graph import Graph, Node, Value
from oi.ir.ops import Constant
from oi.ir.reference import REFERENCE, Array
from oi.ir.types import Sym, TensorType
from oi.ir.verify import verify

__all__ = ["run"]


def run(
    graph: Graph, inputs: Mapping[str, Array], dtype: type[np.float32] | type[np.float64] = np.float64
) -> dict[str, Array]:
    """Compute the graph's outputs, by name, in the working precision `dtype`.

    `inputs` has an array for every graph input, weights and state included, of the declared shape; floats of any
    width are converted to `dtype`. State is not changed: its last version is an output like others.
    Raises VerifyError or TypeMismatch for a graph that is not valid, TypeMismatch for inputs that do not fit.
    """
    verify(graph)
    dims: dict[Sym, int] = {}
    values: dict[Value, Array] = {}
    for value in graph.inputs:
        if value.name not in inputs:
            raise TypeMismatch(f"graph {graph.name!r} needs the input %{value.name}")
        array = np.ascontiguousarray(inputs[value.name], dtype if value.type.dtype.is_float else np.int32)
        values[value] = _fitted(value, array, dims)
    for node in graph.nodes:
        results = _results(node, [values[operand] for operand in node.operands], dtype)
        for value, array in zip(node.results, results, strict=True):
            values[value] = _fitted(value, array, dims)
    return {output.name: values[output] for output in graph.outputs}


def _results(node: Node, operands: list[Array], dtype: type[np.float32] | type[np.float64]) -> tuple[Array, ...]:
    if isinstance(node.op, Constant):
        return (np.array(node.op.values, dtype),)
    return REFERENCE[type(node.op)](node.op, *operands)


def _fitted(value: Value, array: Array, dims: dict[Sym, int]) -> Array:
    """The array, once its shape fits the value's type and the symbolic dims seen so far."""
    if array.ndim == value.type.rank:
        expected = tuple(
            dims.setdefault(dim, size) if isinstance(dim, Sym) else dim
            for dim, size in zip(value.type.shape, array.shape, strict=True)
        )
        if expected == array.shape:
            return array
    raise TypeMismatch(f"{value!r} cannot have the shape {array.shape} where {_known(value.type, dims)}")


def _known(type: TensorType, dims: Mapping[Sym, int]) -> str:
    return ", ".join(f"{dim} is {dims[dim]}" for dim in type.shape if isinstance(dim, Sym) and dim in dims)
