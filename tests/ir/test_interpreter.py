"""The interpreter checks what it is given; that it computes is shown in tests/models against Hugging Face."""

import numpy as np
import pytest

from oi.ir.errors import TypeMismatch, VerifyError
from oi.ir.interpreter import run
from oi.ir.parser import parse_graph

GRAPH = parse_graph("""
graph @g(input %x: bf16[T,4], input %rows: i32[R], weight %w: f32[4]) {
  %c = constant() {values=(1.0, 2.0)} : f32[2]
  %n = rms_norm(%x, %w) {eps=1.0} : bf16[T,4]
  %y = select_rows(%n, %rows) : bf16[R,4]
  return %y, %c
}
""")
X = np.arange(12).reshape(3, 4)
INPUTS = {"x": X, "rows": np.array([2, 0]), "w": np.array([1.0, 2, 3, 4]), "unused": np.zeros(1)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_runs_in_the_working_precision(dtype: type[np.float32] | type[np.float64]) -> None:
    outputs = run(GRAPH, INPUTS, dtype)
    expected = (X / np.sqrt((X**2).mean(1, keepdims=True) + 1) * INPUTS["w"])[[2, 0]]
    assert {name: array.dtype for name, array in outputs.items()} == {"y": dtype, "c": dtype}
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-6)
    assert outputs["c"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"x": np.zeros((3, 5))}, "%x"),
        ({"x": np.zeros(3)}, "%x"),
        ({"rows": np.zeros((2, 1))}, "%rows"),
        ({"w": np.zeros(3)}, "%w"),
    ],
)
def test_refuses_shapes_that_do_not_fit(changed: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(TypeMismatch, match=says):
        run(GRAPH, {**INPUTS, **changed})


def test_refuses_two_sizes_of_one_dimension() -> None:
    graph = parse_graph("graph @g(input %x: f32[T,4], input %y: f32[T,4]) { return %x }")
    with pytest.raises(TypeMismatch, match="T is 3"):
        run(graph, {"x": np.zeros((3, 4)), "y": np.zeros((2, 4))})


def test_refuses_a_missing_input() -> None:
    with pytest.raises(TypeMismatch, match="%rows"):
        run(GRAPH, {"x": X, "w": np.ones(4)})


def test_refuses_a_broken_graph() -> None:
    with pytest.raises(VerifyError):
        run(parse_graph("graph @g(input %x: f32[T,4]) { %y = silu(%x) : f32[T,5] return %y }"), {"x": X})
