"""What parse_config reads and refuses, and what build makes of it."""

from typing import Any

import numpy as np
import pytest
from transformers import Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from oi.ir.errors import UnsupportedModel
from oi.ir.graph import InputKind
from oi.ir.types import DType
from oi.ir.verify import verify
from oi.models import qwen3

QWEN3_0_6B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def test_reads_the_published_config() -> None:
    assert qwen3.parse_config(QWEN3_0_6B) == qwen3.Config(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        layers=28,
        q_heads=16,
        kv_heads=8,
        head_dim=128,
        norm_eps=1e-6,
        rope_theta=1e6,
        yarn=None,
        tied=True,
        max_position=40960,
        weights=DType.BF16,
    )


def test_both_spellings_of_rope_and_dtype_are_one_config() -> None:
    new = {k: v for k, v in QWEN3_0_6B.items() if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
    new |= {"dtype": "bfloat16", "rope_parameters": {"rope_type": "default", "rope_theta": 1000000}}
    assert qwen3.parse_config(new) == qwen3.parse_config(QWEN3_0_6B)
    old_yarn = QWEN3_0_6B | {"rope_scaling": YARN}
    new_yarn = new | {"rope_parameters": {**YARN, "rope_theta": 1000000}}
    oldest_yarn = QWEN3_0_6B | {"rope_scaling": {**YARN, "rope_type": None, "type": "yarn"}}
    assert qwen3.parse_config(old_yarn) == qwen3.parse_config(new_yarn) == qwen3.parse_config(oldest_yarn)
    assert qwen3.parse_config(old_yarn).max_position == 131072


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model_type": "qwen2"}, "model_type must be 'qwen3'"),
        ({"model_type": "qwen3_moe"}, "model_type"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "architectures"),
        ({"attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"torch_dtype": "float16"}, "'float32' or 'bfloat16', found 'float16'"),
        ({"torch_dtype": None}, "dtype"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_type must be 'default' or 'yarn'"),
        ({"rope_scaling": {**YARN, "factor": None}}, "factor must be a positive number"),
        ({"rope_scaling": {**YARN, "betafast": 3}}, "no field betafast"),
        ({"rope_scaling": {**YARN, "truncate": "yes"}}, "truncate"),
        ({"rope_scaling": "yarn"}, "must be an object"),
        ({"rope_theta": None}, "rope_theta"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"partial_rotary_factor": 0.5, "rope_scaling": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"hidden_size": None}, "hidden_size must be a positive integer, found None"),
        ({"hidden_size": "1024"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"head_dim": True}, "head_dim"),
        ({"head_dim": 127}, "head_dim must be even"),
        ({"num_key_value_heads": 5}, "multiple of num_key_value_heads"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ],
)
def test_refuses(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UnsupportedModel, match=says):
        qwen3.parse_config(QWEN3_0_6B | changed)


def test_refuses_integer_activations() -> None:
    with pytest.raises(UnsupportedModel, match="activations"):
        qwen3.build(qwen3.parse_config(QWEN3_0_6B), DType.I32)


def hf_config(head_dim: int, rope: dict[str, Any]) -> Qwen3Config:
    return Qwen3Config(head_dim=head_dim, rope_parameters=rope, max_position_embeddings=40960, dtype="float32")


@pytest.mark.parametrize("theta", [1e4, 1e6, 5e6])
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128, 256])
def test_frequencies_are_those_of_hugging_face(theta: float, head_dim: int) -> None:
    config = hf_config(head_dim, {"rope_type": "default", "rope_theta": theta})
    expected, _ = Qwen3RotaryEmbedding.compute_default_rope_parameters(config)
    found = np.array(qwen3.inverse_frequencies(qwen3.parse_config(config.to_dict())), np.float32)
    np.testing.assert_array_max_ulp(found, expected.numpy(), 1)


@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"factor": 1.0},
        {"truncate": False},
        {"beta_fast": 20, "beta_slow": 2},
        {"mscale": 0.7, "mscale_all_dim": 0.3},
        {"mscale": 0.7},
        {"attention_factor": 1.3},
        {"original_max_position_embeddings": 7},
    ],
    ids=str,
)
def test_yarn_is_that_of_hugging_face(theta: float, head_dim: int, extra: dict[str, Any]) -> None:
    rope = {**YARN, "rope_theta": theta, "factor": 3.7, "original_max_position_embeddings": 1024, **extra}
    config = hf_config(head_dim, rope)
    expected, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](config)
    ours = qwen3.parse_config(config.to_dict())
    found = np.array(qwen3.inverse_frequencies(ours), np.float32)
    np.testing.assert_array_max_ulp(found, expected.numpy(), 1)
    assert ours.yarn is not None
    assert ours.yarn.attention_factor == attention_factor


@pytest.mark.parametrize("tied", [True, False])
def test_graphs_have_the_documented_inputs_and_outputs(tied: bool) -> None:
    config = qwen3.parse_config(QWEN3_0_6B | {"tie_word_embeddings": tied, "num_hidden_layers": 3})
    module = qwen3.build(config, DType.F32)
    for graph in module.graphs.values():
        verify(graph)
    io = {
        name: (
            {value.name: str(value.type) for value in graph.of_kind(InputKind.INPUT)},
            {value.name: str(value.type) for value in graph.outputs},
        )
        for name, graph in module.graphs.items()
    }
    logits = {"logits": "f32[R,151936]"}
    tokens = dict.fromkeys(("tokens", "positions", "slots"), "i32[T]")
    sequences = dict.fromkeys(("query_starts", "query_lens", "context_lens"), "i32[S]")
    kv = {"kv.3": "f32[N,3,2,8,16,128]"}
    edits = dict.fromkeys(("edit_starts", "edit_lens"), "i32[R]")
    edits |= {"edit_tokens": "i32[E]", "edit_scale": "f32[E]", "edit_add": "f32[E]"}
    knobs = {"temperature": "f32[R]", "top_k": "i32[R]", "top_p": "f32[R]", "min_p": "f32[R]", "uniform": "f32[R]"}
    sampled = {"sampled": "i32[R]"}
    alternatives = {"sampled_logprob": "f32[R]", "top_tokens": "i32[R,20]", "top_logprobs": "f32[R,20]"}
    assert io == {
        "forward": (tokens | sequences | {"page_table": "i32[S,P]", "rows": "i32[R]"}, logits | kv),
        "greedy": (logits, sampled),
        "sample": (logits | edits | knobs, sampled),
        "log_probs": (logits | sampled, alternatives),
    }


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_has_a_name_in_the_checkpoint(tied: bool) -> None:
    config = qwen3.parse_config(QWEN3_0_6B | {"tie_word_embeddings": tied, "num_hidden_layers": 3})
    forward = qwen3.build(config, DType.F32).graphs["forward"]
    weights = [value.name for value in forward.of_kind(InputKind.WEIGHT)]
    assert sorted(weights) == sorted(qwen3.checkpoint_names(config))
    assert all(value.type.dtype is DType.BF16 for value in forward.of_kind(InputKind.WEIGHT))
