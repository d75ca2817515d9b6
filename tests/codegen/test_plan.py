"""Fixed memory changes nothing: programs replayed over one arena, dead bytes poisoned, equal the interpreter."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from oi.codegen.arena import aligned
from oi.codegen.errors import CompileError
from oi.codegen.lower import Lowered, lower_module
from oi.codegen.pipeline import optimize
from oi.codegen.plan import ConstantPool, Plan, bytes_of, plan_memory
from oi.codegen.target import KernelVariant, Lowering
from oi.ir.graph import Graph, Module, Node, Value
from oi.ir.interpreter import run
from oi.ir.ops import Constant, Reshape
from oi.ir.parser import parse_graph
from oi.ir.reference import REFERENCE
from oi.ir.types import DType
from oi.models import qwen3
from oi.runtime.manifest import Buffer, Launch, Limits
from tests.codegen.fake_target import FakeTarget
from tests.codegen.random_model import random_config, random_forward_inputs

Array = np.ndarray[Any, np.dtype[Any]]
LIMITS = Limits(max_tokens=40, max_sequences=24, max_edits=64)
POISON = 0xFF  # of float32 a NaN, of int32 a -1


class Replay:
    """Runs a lowered program launch by launch with reference kernels, on bytes laid out as its buffers say."""

    def __init__(self, graph: Graph, plan: Plan, lowered: Lowered, inputs: dict[str, Array]) -> None:
        self.graph, self.plan, self.lowered = graph, plan, lowered
        self.program = lowered.programs[graph.name]
        self.dims = {
            str(dim): size
            for value in graph.inputs
            for dim, size in zip(value.type.shape, inputs[value.name].shape, strict=True)
            if not isinstance(dim, int)
        }
        self.arena = np.full(lowered.arena_bytes, POISON, np.uint8)
        self.constants = np.frombuffer(bytes(lowered.constants.data), np.uint8)
        self.named = {name: array.copy() for name, array in inputs.items()}

    def run(self) -> dict[str, Array]:
        launches = iter(self.program.launches)
        for step, node in enumerate(self.graph.nodes):
            if not isinstance(node.op, (Reshape, Constant)):
                self._launch(node, next(launches))
            self._poison_all_but({v for later in self.graph.nodes[step + 1 :] for v in later.operands})
        return {output.name: self._array(self.plan.names[output]) for output in self.graph.outputs}

    def _launch(self, node: Node, launch: Launch) -> None:
        names = [arg for arg in launch.args if isinstance(arg, str)]
        scalars = [arg for arg in launch.args if isinstance(arg, int)]
        op: Any = self.lowered.kernels[launch.variants[-1].kernel]
        op = replace(op, layer=scalars[0]) if scalars else op
        results = REFERENCE[type(op)](op, *(self._array(name) for name in names[: len(node.operands)]))
        own = iter(names[len(node.operands) :])
        for value, result in zip(node.results, results, strict=True):
            self._store(self.plan.names[value] if value in self.plan.in_place else next(own), result)
        assert not list(own)

    def _shape(self, buffer: Buffer) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else self.dims[d] for d in buffer.shape)

    def _range(self, buffer: Buffer) -> slice:
        return slice(buffer.offset, buffer.offset + 4 * prod(self._shape(buffer)))

    def _array(self, name: str) -> Array:
        buffer = self.program.buffers[name]
        if buffer.kind in ("arena", "constant"):
            memory = self.arena if buffer.kind == "arena" else self.constants
            dtype = np.int32 if buffer.dtype == "i32" else np.float32
            return memory[self._range(buffer)].view(dtype).reshape(self._shape(buffer)).copy()
        return self.named[name]

    def _store(self, name: str, array: Array) -> None:
        buffer = self.program.buffers[name]
        assert array.shape == self._shape(buffer)
        if buffer.kind == "arena":
            self.arena[self._range(buffer)] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        else:
            assert buffer.kind in ("io", "state"), f"{name} is a {buffer.kind} buffer: nothing may be written to it"
            self.named[name] = array

    def _poison_all_but(self, live: set[Any]) -> None:
        keep = np.zeros(len(self.arena), bool)
        for value in live:
            buffer = self.program.buffers.get(self.plan.names[value])
            if buffer is not None and buffer.kind == "arena":
                keep[self._range(buffer)] = True
        self.arena[~keep] = POISON


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("round", range(3))
def test_replay_in_poisoned_memory_equals_the_interpreter(round: int, fused: bool) -> None:
    seed = np.random.SeedSequence().entropy
    rng = np.random.default_rng(seed)
    config = {**random_config(rng), "dtype": "float32"}
    module = qwen3.build(qwen3.parse_config(config), DType.F32)
    if fused:
        module = optimize(module)
    graph = module.graphs["forward"]
    inputs = random_forward_inputs(graph, rng)
    lowered = lower_module(module, FakeTarget(), LIMITS)
    found = Replay(graph, plan_memory(graph, LIMITS, ConstantPool()), lowered, inputs).run()
    expected = run(graph, inputs, np.float32)
    assert np.isfinite(expected["logits"]).all()
    np.testing.assert_array_equal(found["logits"], expected["logits"], err_msg=f"seed {seed}")
    kv = graph.outputs[1].name
    np.testing.assert_array_equal(found[kv], expected[kv], err_msg=f"seed {seed}")


def test_the_replay_notices_an_overlap() -> None:
    """The test above can fail: with every buffer at the arena's start the logits differ."""
    rng = np.random.default_rng()
    config = {**random_config(rng), "dtype": "float32"}
    module = optimize(qwen3.build(qwen3.parse_config(config), DType.F32))
    graph = module.graphs["forward"]
    lowered = lower_module(module, FakeTarget(), LIMITS)
    program = lowered.programs["forward"]
    for name, buffer in program.buffers.items():
        if buffer.kind == "arena":
            program.buffers[name] = Buffer("arena", buffer.dtype, buffer.shape, 0)
    inputs = random_forward_inputs(graph, rng)
    found = Replay(graph, plan_memory(graph, LIMITS, ConstantPool()), lowered, inputs).run()
    assert not np.array_equal(found["logits"], run(graph, inputs, np.float32)["logits"])


SIZES = {
    "0.6B": (1024, 3072, 16, 8),
    "1.7B": (2048, 6144, 16, 8),
    "4B": (2560, 9728, 32, 8),
    "8B": (4096, 12288, 32, 8),
    "14B": (5120, 17408, 40, 8),
    "32B": (5120, 25600, 64, 8),
}
"""Hidden, intermediate, query heads and KV heads of Qwen3's dense sizes; head_dim is 128."""


@pytest.mark.parametrize("size", SIZES)
def test_the_arena_of_qwen3_is_near_what_its_fullest_step_needs(size: str) -> None:
    hidden, intermediate, q_heads, kv_heads = SIZES[size]
    config = {
        **random_config(np.random.default_rng()),
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": q_heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "num_hidden_layers": 4,
    }
    graph = optimize(qwen3.build(qwen3.parse_config(config), DType.F32)).graphs["forward"]
    limits = Limits(512, 64, 1)
    plan = plan_memory(graph, limits, ConstantPool())
    views = {node.result: node.operands[0] for node in graph.nodes if isinstance(node.op, Reshape)}
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for step, node in enumerate(graph.nodes):
        for value in (views.get(v, v) for v in (*node.operands, *node.results)):
            if plan.buffers[plan.names[value]].kind == "arena":
                first.setdefault(value, step)
                last[value] = step
    fullest = max(
        sum(bytes_of(v.type, limits) for v in first if first[v] <= step <= last[v]) for step in range(len(graph.nodes))
    )
    assert fullest <= plan.arena_bytes <= 1.25 * fullest


def test_where_each_kind_of_value_lives() -> None:
    graph = parse_graph("""
        graph @g(input %x: f32[T,8], input %slots: i32[T], weight %w: f32[8], weight %unused: f32[8],
                 state %kv: f32[N,3,2,1,16,8]) {
          %c = constant() {values=(1.0, 2.0)} : f32[2]
          %n = rms_norm(%x, %w) {eps=1e-06} : f32[T,8]
          %h = reshape(%n) {trailing=(1, 8)} : f32[T,1,8]
          %kv1 = kv_write(%h, %h, %slots, %kv) {layer=2} : f32[N,3,2,1,16,8]
          %y = silu(%n) : f32[T,8]
          return %y, %kv1
        }""")
    lowered = lower_module(Module({"g": graph}), FakeTarget(), LIMITS)
    buffers = lowered.programs["g"].buffers
    assert {name: buffer.kind for name, buffer in buffers.items()} == {
        "x": "io",
        "slots": "io",
        "w": "weight",
        "kv": "state",
        "n": "arena",
        "h": "arena",
        "y": "io",
    }
    assert buffers["h"].offset == buffers["n"].offset
    assert buffers["h"].shape == ["T", 1, 8]
    assert [launch.op for launch in lowered.programs["g"].launches] == ["rms_norm", "kv_write", "silu"]
    assert lowered.programs["g"].launches[1].args == ["h", "h", "slots", "kv", 2]
    assert lowered.arena_bytes == aligned(LIMITS.max_tokens * 8 * 4)


def test_equal_constants_are_stored_once_and_aligned() -> None:
    pool = ConstantPool()
    offsets = [pool.add((1.0, 2.0)), pool.add((3.0,)), pool.add((1.0, 2.0))]
    assert offsets == [0, 64, 0]
    assert np.frombuffer(bytes(pool.data), "<f4")[[0, 1, 16]].tolist() == [1.0, 2.0, 3.0]


REFUSED = {
    "an output that is an input": "return %x",
    "an output that is a view": "%y = reshape(%s) {trailing=(2, 4)} : f32[T,2,4] return %y",
    "a view of an input": "%h = reshape(%x) {trailing=(2, 4)} : f32[T,2,4] %y = silu(%h) : f32[T,2,4] return %y",
}


@pytest.mark.parametrize("why", REFUSED)
def test_refuses(why: str) -> None:
    graph = parse_graph(f"graph @g(input %x: f32[T,8]) {{ %s = silu(%x) : f32[T,8] {REFUSED[why]} }}")
    with pytest.raises(CompileError):
        plan_memory(graph, LIMITS, ConstantPool())


def test_refuses_an_intermediate_without_a_bound() -> None:
    graph = parse_graph("graph @g(input %x: f32[N,8]) { %y = silu(%x) : f32[N,8] %z = silu(%y) : f32[N,8] return %z }")
    with pytest.raises(CompileError, match="'N'"):
        plan_memory(graph, LIMITS, ConstantPool())


@pytest.mark.parametrize("bounds", [(), (4,), (None, 4), (8, 4, None), (4, 4, None)])
def test_refuses_variants_out_of_order(bounds: tuple[int | None, ...]) -> None:
    class Sloppy(FakeTarget):
        def lower(self, node: Node) -> Lowering:
            return Lowering("T", tuple(KernelVariant("k", bound, None) for bound in bounds))

    graph = parse_graph("graph @g(input %x: f32[T,8]) { %y = silu(%x) : f32[T,8] return %y }")
    with pytest.raises(CompileError, match="silu"):
        lower_module(Module({"g": graph}), Sloppy(), LIMITS)
