"""Qwen3, every dense size: what it computes, from its Hugging Face `config.json`.

The description is naive on purpose, one op at a time; fusions are the compiler's business.

    x = embed_tokens[tokens]
    per layer:  x += o_proj(attention(rope(norm(q_proj(y))), rope(norm(k_proj(y))), v_proj(y))),  y = norm(x)
                x += down_proj(silu(gate_proj(y)) ∘ up_proj(y)),                                  y = norm(x)
    logits = lm_head(norm(x))[rows]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oi.ir import ops
from oi.ir.builder import Builder
from oi.ir.errors import UnsupportedModel
from oi.ir.graph import Graph, Module, Value
from oi.ir.types import Dim, DType, E, N, P, R, S, T, TensorType

__all__ = ["PAGE_SIZE", "Config", "Yarn", "build", "checkpoint_names", "inverse_frequencies", "parse_config"]

PAGE_SIZE = 16
"""Tokens of one KV page."""
TOP_LOGPROBS = 20
"""Alternatives that `log_probs` reports."""


@dataclass(frozen=True)
class Yarn:
    """Stretch of the rotary frequencies beyond the trained context (arXiv 2309.00071)."""

    factor: float
    original_max_position: int
    beta_fast: float
    beta_slow: float
    truncate: bool
    attention_factor: float
    """Scale of the cosines and sines."""


@dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    q_heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float
    yarn: Yarn | None
    tied: bool
    """The lm_head is the embedding table."""
    max_position: int
    """Longest context in tokens that the positions are defined for."""
    weights: DType
    """Element type of the checkpoint: f32 or bf16."""


def parse_config(hf_config: Mapping[str, Any]) -> Config:
    """Read a `config.json`. Raises UnsupportedModel where it is not a dense Qwen3 or misses a field."""
    _check_architecture(hf_config)
    rope = _rope_parameters(hf_config)
    config = Config(
        vocab_size=_size(hf_config, "vocab_size"),
        hidden_size=_size(hf_config, "hidden_size"),
        intermediate_size=_size(hf_config, "intermediate_size"),
        layers=_size(hf_config, "num_hidden_layers"),
        q_heads=_size(hf_config, "num_attention_heads"),
        kv_heads=_size(hf_config, "num_key_value_heads"),
        head_dim=_size(hf_config, "head_dim"),
        norm_eps=_positive(hf_config, "rms_norm_eps"),
        rope_theta=_positive(rope, "rope_theta"),
        yarn=_yarn(rope),
        tied=_flag(hf_config, "tie_word_embeddings"),
        max_position=_max_position(hf_config, rope),
        weights=_weight_dtype(hf_config),
    )
    if config.q_heads % config.kv_heads:
        raise UnsupportedModel(
            f"num_attention_heads ({config.q_heads}) must be a multiple of num_key_value_heads ({config.kv_heads})"
        )
    if config.head_dim % 2:
        raise UnsupportedModel(f"head_dim must be even for rotary pairs, found {config.head_dim}")
    return config


def build(config: Config, activations: DType) -> Module:
    """The graphs `forward`, `greedy`, `sample` and `log_probs`; `activations` is also the dtype of the KV cache."""
    if not activations.is_float:
        raise UnsupportedModel(f"activations must be f32 or bf16, found {activations.value}")
    graphs = (_forward(config, activations), _greedy(config), _sample(config), _log_probs(config))
    return Module({graph.name: graph for graph in graphs})


def checkpoint_names(config: Config) -> dict[str, str]:
    """Name of each weight value → name of its tensor in a Hugging Face checkpoint."""
    names = {"embed_tokens": "model.embed_tokens.weight", "norm": "model.norm.weight"}
    if not config.tied:
        names["lm_head"] = "lm_head.weight"
    for layer in range(config.layers):
        for weight in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"):
            names[f"layers.{layer}.{weight}"] = f"model.layers.{layer}.self_attn.{weight}.weight"
        for weight in ("gate_proj", "up_proj", "down_proj"):
            names[f"layers.{layer}.{weight}"] = f"model.layers.{layer}.mlp.{weight}.weight"
        for weight in ("input_layernorm", "post_attention_layernorm"):
            names[f"layers.{layer}.{weight}"] = f"model.layers.{layer}.{weight}.weight"
    return names


# --- the graphs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """Values that all layers share."""

    angles: Value
    slots: Value
    sequences: tuple[Value, ...]
    """query_starts, query_lens, context_lens, page_table: attention's operands after the cache."""


class _ForwardBuilder:
    """Emits the blocks of `forward`; owns the config and the step's shared values."""

    def __init__(self, config: Config, activations: DType) -> None:
        self.config = config
        self.dtype = activations
        self.b = Builder("forward")

    def graph(self) -> Graph:
        b, c = self.b, self.config
        tokens, positions, slots = (_step_input(b, name, T) for name in ("tokens", "positions", "slots"))
        query_starts, query_lens, context_lens = (
            _step_input(b, name, S) for name in ("query_starts", "query_lens", "context_lens")
        )
        page_table, rows = _step_input(b, "page_table", S, P), _step_input(b, "rows", R)
        kv = b.state("kv", TensorType(self.dtype, (N, c.layers, 2, c.kv_heads, PAGE_SIZE, c.head_dim)))

        inv_freq = b.emit(ops.Constant(inverse_frequencies(c)), name="inv_freq")
        scale = c.yarn.attention_factor if c.yarn else 1.0
        angles = b.emit(ops.RopeAngles(scale), positions, inv_freq, name="angles")
        step = _Step(angles, slots, (query_starts, query_lens, context_lens, page_table))

        table = self.weight("embed_tokens", c.vocab_size, c.hidden_size)
        x = b.emit(ops.Embedding(self.dtype), tokens, table, name="embedded")
        for layer in range(c.layers):
            x, kv = self.attention(layer, step, x, kv)
            x = self.mlp(layer, x)
        x = self.norm("norm", x, "normed")
        lm_head = table if c.tied else self.weight("lm_head", c.vocab_size, c.hidden_size)
        all_logits = b.emit(ops.Linear(DType.F32), x, lm_head, name="all_logits")
        return b.build(b.emit(ops.SelectRows(), all_logits, rows, name="logits"), kv)

    def attention(self, layer: int, step: _Step, x: Value, kv: Value) -> tuple[Value, Value]:
        """x [T, H] → (x + attention block [T, H], the cache after this layer's write)."""
        b, c, at = self.b, self.config, f"layers.{layer}"
        y = self.norm(f"{at}.input_layernorm", x, f"{at}.attention_in")
        q = self.heads(f"{at}.q", c.q_heads, y)
        k = self.heads(f"{at}.k", c.kv_heads, y)
        v = self.heads(f"{at}.v", c.kv_heads, y)
        q, k = (
            b.emit(
                ops.Rope(), self.norm(f"{at}.{n}_norm", h, f"{at}.{n}_normed"), step.angles, name=f"{at}.{n}_rotated"
            )
            for n, h in (("q", q), ("k", k))
        )
        kv = b.emit(ops.KvWrite(layer), k, v, step.slots, kv, name=f"kv.{layer + 1}")
        attention = ops.Attention(layer, c.head_dim**-0.5)
        y = b.emit(attention, q, kv, *step.sequences, name=f"{at}.attention_heads")
        y = b.emit(ops.Reshape((c.q_heads * c.head_dim,)), y, name=f"{at}.attention")
        y = self.linear(f"{at}.o_proj", y, c.hidden_size, f"{at}.attention_out")
        return b.emit(ops.Add(), x, y, name=f"{at}.after_attention"), kv

    def mlp(self, layer: int, x: Value) -> Value:
        """x [T, H] → x + feed-forward block [T, H]."""
        b, c, at = self.b, self.config, f"layers.{layer}"
        y = self.norm(f"{at}.post_attention_layernorm", x, f"{at}.mlp_in")
        gate = self.linear(f"{at}.gate_proj", y, c.intermediate_size, f"{at}.gate")
        up = self.linear(f"{at}.up_proj", y, c.intermediate_size, f"{at}.up")
        y = b.emit(ops.Mul(), b.emit(ops.Silu(), gate, name=f"{at}.gate_silu"), up, name=f"{at}.gated")
        y = self.linear(f"{at}.down_proj", y, c.hidden_size, f"{at}.mlp_out")
        return b.emit(ops.Add(), x, y, name=f"{at}.after_mlp")

    def heads(self, name: str, heads: int, x: Value) -> Value:
        """Project x [T, H] to [T, heads, D]."""
        dim = self.config.head_dim
        return self.b.emit(
            ops.Reshape((heads, dim)), self.linear(f"{name}_proj", x, heads * dim, name), name=f"{name}_heads"
        )

    def linear(self, weight: str, x: Value, columns: int, name: str) -> Value:
        rows = x.type.shape[1]
        return self.b.emit(ops.Linear(self.dtype), x, self.weight(weight, columns, rows), name=name)

    def norm(self, weight: str, x: Value, name: str) -> Value:
        return self.b.emit(ops.RmsNorm(self.config.norm_eps), x, self.weight(weight, x.type.shape[-1]), name=name)

    def weight(self, name: str, *shape: Dim) -> Value:
        return self.b.weight(name, TensorType(self.config.weights, shape))


def _forward(config: Config, activations: DType) -> Graph:
    return _ForwardBuilder(config, activations).graph()


def _greedy(config: Config) -> Graph:
    b = Builder("greedy")
    return b.build(b.emit(ops.Greedy(), _logits(b, config), name="sampled"))


def _sample(config: Config) -> Graph:
    b = Builder("sample")
    i32, f32 = DType.I32, DType.F32
    inputs = [
        b.input(name, TensorType(dtype, (dim,)))
        for name, dtype, dim in (
            ("edit_starts", i32, R),
            ("edit_lens", i32, R),
            ("edit_tokens", i32, E),
            ("edit_scale", f32, E),
            ("edit_add", f32, E),
            ("temperature", f32, R),
            ("top_k", i32, R),
            ("top_p", f32, R),
            ("min_p", f32, R),
            ("uniform", f32, R),
        )
    ]
    return b.build(b.emit(ops.Sample(), _logits(b, config), *inputs, name="sampled"))


def _log_probs(config: Config) -> Graph:
    b = Builder("log_probs")
    logits, sampled = _logits(b, config), _step_input(b, "sampled", R)
    names = ("sampled_logprob", "top_tokens", "top_logprobs")
    return b.build(*b.emit_multi(ops.LogProbs(TOP_LOGPROBS), logits, sampled, names=names))


def _logits(b: Builder, config: Config) -> Value:
    return b.input("logits", TensorType(DType.F32, (R, config.vocab_size)))


def _step_input(b: Builder, name: str, *shape: Dim) -> Value:
    return b.input(name, TensorType(DType.I32, shape))


# --- rotary frequencies -------------------------------------------------------------------------------------------


def inverse_frequencies(config: Config) -> tuple[float, ...]:
    """D/2 radians a token, each a float32 value.

    Computed in float32 in the order in which Hugging Face does, for an angle is a position times this: one ulp
    here is a visible difference at position 100,000. Only the power is taken in float64 and rounded once.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    wavelengths = np.power(np.float64(np.float32(config.rope_theta)), exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.float32(1.0) / wavelengths
    if config.yarn is not None:
        stretched = np.float32(1.0) / (np.float32(config.yarn.factor) * wavelengths)
        keep = np.float32(1.0) - _yarn_ramp(config, config.yarn)
        frequencies = stretched * (np.float32(1.0) - keep) + frequencies * keep
    return tuple(map(float, frequencies))


def _yarn_ramp(config: Config, yarn: Yarn) -> np.ndarray[Any, np.dtype[np.float32]]:
    """0 where a pair turns so often within the trained context that it is kept, 1 where it is stretched fully."""

    def pair_of(rotations: float) -> float:
        turns = yarn.original_max_position / (rotations * 2 * math.pi)
        return config.head_dim * math.log(turns) / (2 * math.log(config.rope_theta))

    low, high = pair_of(yarn.beta_fast), pair_of(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    if low == high:
        high += 0.001
    pairs = np.arange(config.head_dim // 2, dtype=np.float32)
    ramp: np.ndarray[Any, np.dtype[np.float32]] = np.clip(
        (pairs - np.float32(low)) / np.float32(high - low), np.float32(0), np.float32(1)
    )
    return ramp


# --- reading config.json ------------------------------------------------------------------------------------------

_ROPE_FIELDS = {
    "default": {"rope_theta"},
    "yarn": {
        "rope_theta",
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "truncate",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
    },
}


def _check_architecture(hf: Mapping[str, Any]) -> None:
    expected = {
        "model_type": ("qwen3",),
        "architectures": (["Qwen3ForCausalLM"], None),
        "hidden_act": ("silu", None),
        "attention_bias": (False, None),
        "use_sliding_window": (False, None),
        "quantization_config": (None,),
    }
    for field, allowed in expected.items():
        if hf.get(field) not in allowed:
            raise UnsupportedModel(f"{field} must be {allowed[0]!r} for a dense Qwen3, found {hf.get(field)!r}")
    other_layers = set(hf.get("layer_types") or ()) - {"full_attention"}
    if other_layers:
        raise UnsupportedModel(f"layer_types must all be 'full_attention', found {sorted(other_layers)}")


def _rope_parameters(hf: Mapping[str, Any]) -> dict[str, Any]:
    """One dict from both spellings: `rope_theta` + `rope_scaling`, and transformers 5's `rope_parameters`."""
    given = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise UnsupportedModel(f"rope_parameters must be an object, found {given!r}")
    rope = {field: value for field, value in given.items() if value is not None}
    rope.setdefault("rope_theta", hf.get("rope_theta"))
    kind = rope.pop("type", "default")
    kind = rope["rope_type"] = rope.get("rope_type", kind)
    if kind not in _ROPE_FIELDS:
        raise UnsupportedModel(f"rope_type must be 'default' or 'yarn', found {kind!r}")
    if rope.pop("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModel("partial_rotary_factor must be 1.0 for Qwen3")
    unknown = set(rope) - _ROPE_FIELDS[kind] - {"rope_type"}
    if unknown:
        raise UnsupportedModel(f"rope of type {kind!r} has no field {', '.join(sorted(unknown))}")
    if kind == "yarn":
        rope.setdefault("original_max_position_embeddings", hf.get("max_position_embeddings"))
    return rope


def _yarn(rope: Mapping[str, Any]) -> Yarn | None:
    if rope["rope_type"] != "yarn":
        return None
    factor = _positive(rope, "factor")
    return Yarn(
        factor=factor,
        original_max_position=_size(rope, "original_max_position_embeddings"),
        beta_fast=_positive({"beta_fast": 32.0, **rope}, "beta_fast"),
        beta_slow=_positive({"beta_slow": 1.0, **rope}, "beta_slow"),
        truncate=_flag({"truncate": True, **rope}, "truncate"),
        attention_factor=_attention_factor(rope, factor),
    )


def _attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    def mscale(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if "attention_factor" in rope:
        return _positive(rope, "attention_factor")
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return mscale(_positive(rope, "mscale")) / mscale(_positive(rope, "mscale_all_dim"))
    return mscale(1.0)


def _max_position(hf: Mapping[str, Any], rope: Mapping[str, Any]) -> int:
    given = _size(hf, "max_position_embeddings")
    yarn = _yarn(rope)
    return given if yarn is None else max(given, int(yarn.factor * yarn.original_max_position))


def _weight_dtype(hf: Mapping[str, Any]) -> DType:
    name = hf.get("dtype") or hf.get("torch_dtype")
    match name:
        case "float32":
            return DType.F32
        case "bfloat16":
            return DType.BF16
        case _:
            raise UnsupportedModel(
                f"dtype (or torch_dtype) must be 'float32' or 'bfloat16', found {name!r}: convert the checkpoint"
            )


def _size(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModel(f"{name} must be a positive integer, found {value!r}")
    return value


def _positive(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UnsupportedModel(f"{name} must be a positive number, found {value!r}")
    return float(value)


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise UnsupportedModel(f"{name} must be true or false, found {value!r}")
    return value
