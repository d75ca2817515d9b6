"""Every pass leaves a graph that computes what it did before; together they leave the fused Qwen3."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from oi.codegen.pipeline import PIPELINE, Pass, optimize
from oi.ir.errors import VerifyError
from oi.ir.graph import Graph, Module
from oi.ir.interpreter import run
from oi.ir.parser import parse_graph
from oi.ir.types import DType
from oi.models import qwen3
from tests.codegen.random_model import random_config, random_forward_inputs, random_sample_inputs


@pytest.mark.parametrize("round", range(6))
def test_every_phase_computes_the_same(round: int) -> None:
    seed = np.random.SeedSequence().entropy
    rng = np.random.default_rng(seed)
    module = qwen3.build(qwen3.parse_config(random_config(rng)), DType.F32)
    forward_inputs = random_forward_inputs(module.graphs["forward"], rng, padding=round % 3)
    expected: dict[str, dict[str, np.ndarray]] = {}

    def compare(phase: str, module: Module) -> None:
        for name, graph in module.graphs.items():
            inputs = forward_inputs if name == "forward" else random_sample_inputs(graph, np.random.default_rng(seed))
            found = run(graph, inputs)
            before = expected.setdefault(name, found)
            assert list(found) == list(before), f"{phase} renamed an output of {name} (seed {seed})"
            for output, array in found.items():
                np.testing.assert_allclose(array, before[output], rtol=1e-9, atol=1e-9, err_msg=f"{phase} {seed}")

    optimize(module, compare)
    assert np.isfinite(expected["forward"]["logits"]).all()


def test_qwen3_is_fused_whole() -> None:
    layers = 3
    config = {**random_config(np.random.default_rng()), "num_hidden_layers": layers}
    graph = optimize(qwen3.build(qwen3.parse_config(config), DType.F32)).graphs["forward"]
    counts = Counter(node.op.name for node in graph.nodes)
    assert counts == {
        "constant": 1,
        "rope_angles": 1,
        "embedding": 1,
        "rms_norm": 1,
        "linear_concat": layers,
        "qkv_norm_rope_write": layers,
        "attention": layers,
        "reshape": layers,
        "linear": 2 * layers + 1,
        "add_rms_norm": 2 * layers,
        "swiglu_linear": layers,
        "select_rows": 2,
    }


def test_nothing_after_the_last_attention_is_computed_for_rows_that_are_not_sampled() -> None:
    graph = optimize(qwen3.build(qwen3.parse_config(random_config(np.random.default_rng())), DType.F32)).graphs[
        "forward"
    ]
    last = max(i for i, node in enumerate(graph.nodes) if node.op.name == "attention")
    tail = [node for node in graph.nodes[last + 1 :] if node.op.name not in ("reshape", "select_rows")]
    assert {str(result.type.shape[0]) for node in tail for result in node.results} == {"R"}


def test_a_pass_that_breaks_the_graph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_it(graph: Graph) -> Graph:
        return Graph(graph.name, graph.inputs, graph.nodes[1:], graph.outputs)

    monkeypatch.setattr("oi.codegen.pipeline.PIPELINE", (*PIPELINE[:2], Pass("vandal", "none", break_it)))
    graph = parse_graph("graph @g(input %x: f32[T,8],) { %y = silu(%x) : f32[T,8]  return %y }")
    with pytest.raises(VerifyError) as error:
        optimize(Module({"g": graph}))
    assert "vandal" in "".join(error.value.__notes__)


def test_every_pass_states_its_equation_and_precondition() -> None:
    assert len({step.name for step in PIPELINE}) == len(PIPELINE)
    for step in PIPELINE:
        assert "→" in step.equation
        assert "\n" not in step.equation
        assert step.precondition
