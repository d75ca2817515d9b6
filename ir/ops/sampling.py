"""From logits to tokens: the graphs that run after `forward`, on the R rows that are sampled.

Random numbers are an input (`uniform`), drawn by the host from a counter-based generator keyed by
(seed, position), so that a request's tokens do not depend on what runs beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from oi.ir.errors import TypeMismatch
from oi.ir.op import Op, expect_dtype, expect_rank, expect_shape, register
from oi.ir.types import DType, TensorType

__all__ = ["Greedy", "LogProbs", "Sample"]


def _check_logits(op: str, logits: TensorType) -> None:
    expect_rank(f"{op}: logits", logits, 2)
    expect_dtype(f"{op}: logits", logits, DType.F32)


@register
@dataclass(frozen=True)
class Greedy(Op):
    name = "greedy"
    operands = ("logits",)
    equation = "token[r] = argmax_v logits[r, v], the lowest v on a tie"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (logits,) = operands
        _check_logits("greedy", logits)
        return (TensorType(DType.I32, (logits.shape[0],)),)


@register
@dataclass(frozen=True)
class Sample(Op):
    """Edit, cut and draw.

    1. Edits. Row r owns edits [edit_starts[r], edit_starts[r] + edit_lens[r]), each of another token v:
       z[v] = (logits[v] / edit_scale if logits[v] > 0 else logits[v] · edit_scale) + edit_add.
       (Repetition penalty is the scale; presence and frequency penalties and logit_bias are the sum.)
    2. temperature 0: argmax z, the lowest v on a tie; nothing below applies.
    3. p = softmax(z / temperature). Keep v where p[v] ≥ min_p · max p.
    4. top_k > 0: of those, keep p[v] ≥ the top_k-th largest p (ties stay).
    5. top_p < 1: of those, renormalised, keep p[v] ≥ t with the largest t whose kept mass is ≥ top_p (ties stay).
    6. Draw by inverse CDF in token order: the lowest kept v with Σ_{kept w ≤ v} p[w] > uniform · Σ_kept p.
    """

    name = "sample"
    operands = (
        "logits",
        "edit_starts",
        "edit_lens",
        "edit_tokens",
        "edit_scale",
        "edit_add",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "uniform",
    )
    equation = "token[r] = inverse_cdf(top_p(top_k(min_p(softmax(edit(logits[r]) / temperature[r])))), uniform[r])"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        logits, starts, lens, tokens, scale, add, temperature, top_k, top_p, min_p, uniform = operands
        _check_logits("sample", logits)
        rows = logits.shape[0]
        expect_rank("sample: edit_tokens", tokens, 1)
        edits = tokens.shape[0]
        expect_shape("sample: edit_starts", starts, DType.I32, rows)
        expect_shape("sample: edit_lens", lens, DType.I32, rows)
        expect_shape("sample: edit_tokens", tokens, DType.I32, edits)
        expect_shape("sample: edit_scale", scale, DType.F32, edits)
        expect_shape("sample: edit_add", add, DType.F32, edits)
        expect_shape("sample: temperature", temperature, DType.F32, rows)
        expect_shape("sample: top_k", top_k, DType.I32, rows)
        expect_shape("sample: top_p", top_p, DType.F32, rows)
        expect_shape("sample: min_p", min_p, DType.F32, rows)
        expect_shape("sample: uniform", uniform, DType.F32, rows)
        return (TensorType(DType.I32, (rows,)),)


@register
@dataclass(frozen=True)
class LogProbs(Op):
    """Log-probabilities of the model's own distribution (before edits and temperature).

    Results are (of the chosen token [R], the k most likely tokens [R, k], theirs [R, k]), the latter two
    in falling order, the lowest token first on a tie.
    """

    name = "log_probs"
    operands = ("logits", "token")
    equation = "lp[r, v] = logits[r, v] - logsumexp(logits[r, :])"
    k: int

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        logits, token = operands
        _check_logits("log_probs", logits)
        rows, vocabulary = logits.shape
        if not isinstance(vocabulary, int) or not 1 <= self.k <= vocabulary:
            raise TypeMismatch(f"log_probs: k must be 1 to the vocabulary's size, found {self.k} of {logits}")
        expect_shape("log_probs: token", token, DType.I32, rows)
        return (
            TensorType(DType.F32, (rows,)),
            TensorType(DType.I32, (rows, self.k)),
            TensorType(DType.F32, (rows, self.k)),
        )
