"""All ops, one family a file. Importing this package registers them."""

from oi.ir.ops.attention import Attention, KvWrite, QkvAttention, QkvNormRopeWrite, Rope, RopeAngles
from oi.ir.ops.linear import Embedding, Linear, LinearConcat, SwigluLinear
from oi.ir.ops.norm import AddRmsNorm, RmsNorm
from oi.ir.ops.sampling import Greedy, LogProbs, Sample
from oi.ir.ops.tensor import Add, Constant, Mul, Reshape, SelectRows, Silu, SliceColumns

__all__ = [
    "Add",
    "AddRmsNorm",
    "Attention",
    "Constant",
    "Embedding",
    "Greedy",
    "KvWrite",
    "Linear",
    "LinearConcat",
    "LogProbs",
    "Mul",
    "QkvAttention",
    "QkvNormRopeWrite",
    "Reshape",
    "RmsNorm",
    "Rope",
    "RopeAngles",
    "Sample",
    "SelectRows",
    "Silu",
    "SliceColumns",
    "SwigluLinear",
]
