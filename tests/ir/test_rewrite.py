"""The rewrite driver, by before and after in the text form."""

from textwrap import dedent

import pytest

from oi.ir import ops
from oi.ir.errors import TypeMismatch, VerifyError
from oi.ir.graph import Graph, Node, Value
from oi.ir.parser import parse_graph
from oi.ir.printer import format_graph
from oi.ir.rewrite import Pattern, Rewriter, rewrite
from oi.ir.verify import verify


def graph(body: str) -> Graph:
    lines = "\n".join(f"  {line}" for line in dedent(body).strip().splitlines())
    return parse_graph(f"graph @g(\n  input %x: f32[T,8],\n  weight %w: f32[8],\n) {{\n{lines}\n}}\n")


def expect(before: str, after: str, *patterns: Pattern) -> None:
    result = rewrite(graph(before), *patterns)
    verify(result)
    assert format_graph(result) == format_graph(graph(after))


def add_rms_norm(node: Node, rewriter: Rewriter) -> None:
    if not isinstance(node.op, ops.RmsNorm):
        return
    x, weight = node.operands
    add = rewriter.producer(x)
    if add is not None and isinstance(add.op, ops.Add):
        z, y = rewriter.emit_multi(ops.AddRmsNorm(node.op.eps), *add.operands, weight)
        rewriter.replace(add, z)
        rewriter.replace(node, y)


def silu_of_silu(node: Node, rewriter: Rewriter) -> None:
    """silu(silu(x)) → silu(x), so that a chain of any length needs the fixpoint."""
    inner = rewriter.producer(node.operands[0])
    if isinstance(node.op, ops.Silu) and inner is not None and isinstance(inner.op, ops.Silu):
        rewriter.replace(node, inner.result)


def test_without_patterns_it_drops_what_nothing_uses() -> None:
    before = """
        %a = silu(%x) : f32[T,8]
        %b = silu(%a) : f32[T,8]
        %z, %y = add_rms_norm(%a, %x, %w) {eps=1e-06} : f32[T,8], f32[T,8]
        %c = add(%b, %b) : f32[T,8]
        return %y
    """
    after = """
        %a = silu(%x) : f32[T,8]
        %z, %y = add_rms_norm(%a, %x, %w) {eps=1e-06} : f32[T,8], f32[T,8]
        return %y
    """
    expect(before, after)


def test_dropping_is_not_recursive() -> None:
    chain = ["%v0 = silu(%x) : f32[T,8]", *(f"%v{i} = silu(%v{i - 1}) : f32[T,8]" for i in range(1, 3000))]
    assert rewrite(graph("\n".join([*chain, "return %x"]))).nodes == ()
    assert len(rewrite(graph("\n".join([*chain, "return %v2999"]))).nodes) == 3000


def test_one_node_replaces_two_and_takes_their_names() -> None:
    before = """
        %a = add(%x, %x) : f32[T,8]
        %b = rms_norm(%a, %w) {eps=1e-06} : f32[T,8]
        %c = add(%a, %b) : f32[T,8]
        %d = rms_norm(%c, %w) {eps=1e-05} : f32[T,8]
        return %d, %c
    """
    after = """
        %a, %b = add_rms_norm(%x, %x, %w) {eps=1e-06} : f32[T,8], f32[T,8]
        %c, %d = add_rms_norm(%a, %b, %w) {eps=1e-05} : f32[T,8], f32[T,8]
        return %d, %c
    """
    expect(before, after, add_rms_norm)


def test_runs_to_a_fixpoint() -> None:
    chain = [f"%v{i} = silu(%v{i - 1}) : f32[T,8]" for i in range(1, 50)]
    before = "\n".join(["%v0 = silu(%x) : f32[T,8]", *chain, "return %v49"])
    expect(before, "%v49 = silu(%x) : f32[T,8]\nreturn %v49", silu_of_silu)


def test_an_output_keeps_its_name_when_an_older_value_takes_its_place() -> None:
    before = """
        %a = silu(%x) : f32[T,8]
        %logits = silu(%a) : f32[T,8]
        %b = add(%a, %logits) : f32[T,8]
        return %b, %logits
    """
    after = """
        %logits = silu(%x) : f32[T,8]
        %b = add(%logits, %logits) : f32[T,8]
        return %b, %logits
    """
    expect(before, after, silu_of_silu)


def test_producers_are_placed_before_their_readers() -> None:
    """The fused node is emitted at the later of the two norms, yet the first one's reader stands between."""
    before = """
        %a = rms_norm(%x, %w) {eps=1e-06} : f32[T,8]
        %b = silu(%a) : f32[T,8]
        %c = mul(%x, %x) : f32[T,8]
        return %b, %c
    """
    after = """
        %0, %a = add_rms_norm(%x, %x, %w) {eps=1e-06} : f32[T,8], f32[T,8]
        %b = silu(%a) : f32[T,8]
        %c = add(%0, %0) : f32[T,8]
        return %b, %c
    """

    def at_the_mul(node: Node, rewriter: Rewriter) -> None:
        if isinstance(node.op, ops.Mul):
            x = node.operands[0]
            (norm,) = (user for user in rewriter.users(x) if isinstance(user.op, ops.RmsNorm))
            z, y = rewriter.emit_multi(ops.AddRmsNorm(1e-6), x, x, norm.operands[1])
            rewriter.replace(norm, y)
            rewriter.replace(node, rewriter.emit(ops.Add(), z, z))

    result = rewrite(graph(before), at_the_mul)
    verify(result)
    z = result.nodes[0].results[0]
    assert format_graph(result).replace(f"%{z.name}", "%0") == format_graph(graph(after))


def test_uses_are_counted_by_operand_and_output() -> None:
    seen: dict[str, tuple[int, bool, bool]] = {}

    def look(node: Node, rewriter: Rewriter) -> None:
        for value in node.results:
            users = len(rewriter.users(value))
            seen[value.name] = (users, rewriter.is_output(value), rewriter.single_use(value))

    body = """
        %a = silu(%x) : f32[T,8]
        %b = add(%a, %a) : f32[T,8]
        %c = silu(%b) : f32[T,8]
        %d = silu(%c) : f32[T,8]
        %dead = silu(%c) : f32[T,8]
        return %c, %d
    """
    rewrite(graph(body), look)
    assert seen == {
        "a": (1, False, False),
        "b": (1, False, True),
        "c": (1, True, False),
        "d": (0, True, True),
    }


SIMPLE = """
    %a = silu(%x) : f32[T,8]
    %b = silu(%a) : f32[T,8]
    return %b
"""


def test_a_pattern_that_never_rests_is_an_error() -> None:
    def again(node: Node, rewriter: Rewriter) -> None:
        rewriter.replace(node, rewriter.emit(node.op, *node.operands))

    with pytest.raises(VerifyError, match="come to rest"):
        rewrite(graph(SIMPLE), again)


def run_once(action: object) -> None:
    def pattern(node: Node, rewriter: Rewriter) -> None:
        assert callable(action)
        action(node, rewriter)

    rewrite(graph(SIMPLE), pattern)


def test_refuses_another_type() -> None:
    with pytest.raises(VerifyError, match="types differ"):
        run_once(lambda node, rw: rw.replace(node, rw.emit(ops.SliceColumns(0, 4), node.operands[0])))


def test_refuses_operands_that_do_not_fit() -> None:
    with pytest.raises(TypeMismatch, match="add"):
        run_once(lambda node, rw: rw.emit(ops.Add(), node.operands[0]))


def test_refuses_a_value_computed_from_what_it_replaces() -> None:
    with pytest.raises(VerifyError, match="computed from"):
        run_once(lambda node, rw: rw.replace(node, rw.emit(ops.Silu(), node.result)))


def test_refuses_a_name_twice() -> None:
    with pytest.raises(VerifyError, match="%b"):
        run_once(lambda node, rw: rw.emit(ops.Silu(), node.operands[0], name="b"))


def test_the_original_graph_is_untouched() -> None:
    before = graph(SIMPLE)
    text = format_graph(before)
    rewrite(before, silu_of_silu)
    assert format_graph(before) == text
    assert all(isinstance(value, Value) for value in before.inputs)
