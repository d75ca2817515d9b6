"""The bundled checkpoint, as Hugging Face reads it."""

import json
import sysconfig
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).parents[2] / "models" / "tiny"
HELD_OUT_FILE = "unittest/loader.py"
HELD_OUT_BOUND = 2.6
"""Nats per token over its first 1,024 tokens: 2.35 in Python 3.11.7's; a uniform guess costs 8.3."""


@pytest.fixture(scope="module")
def model() -> Any:
    model, info = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def raw() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def complete(model: Any, tokenizer: Any, prompt: str, tokens: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=tokens, do_sample=False, temperature=None, top_p=None, top_k=None)
    return tokenizer.decode(out[0, ids.shape[1] :])


def test_it_fits_in_twelve_megabytes_of_bf16(model: Any) -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 12_000_000
    assert read("config.json")["dtype"] == "bfloat16"
    assert model.num_parameters() == read("training.json")["parameters"]


def test_it_is_qwen3_in_full(model: Any) -> None:
    config = model.config
    assert read("config.json")["architectures"] == ["Qwen3ForCausalLM"]
    assert config.num_attention_heads > config.num_key_value_heads > 1
    assert config.head_dim == 64 != config.hidden_size // config.num_attention_heads
    assert config.tie_word_embeddings
    assert config.max_position_embeddings >= 4096
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10_000.0}
    norms = [w for n, w in model.named_parameters() if n.endswith(("q_norm.weight", "k_norm.weight"))]
    assert len(norms) == 2 * config.num_hidden_layers
    assert all((w != 1).any() for w in norms), "a norm was never trained"


def test_every_id_is_a_token(model: Any, raw: Tokenizer) -> None:
    assert raw.get_vocab_size() == model.config.vocab_size
    assert sorted(raw.get_vocab().values()) == list(range(model.config.vocab_size))


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_comes_back_in_normal_form(raw: Tokenizer, tokenizer: Any, text: str) -> None:
    ids = raw.encode(text).ids
    assert raw.decode(ids) == unicodedata.normalize("NFC", text)
    assert tokenizer(text)["input_ids"] == ids


@pytest.mark.parametrize("control", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
def test_control_tokens_are_one_token_and_skipped(raw: Tokenizer, control: str) -> None:
    ids = raw.encode(f"a{control}b").ids
    assert ids[1:-1] == [raw.token_to_id(control)]
    assert raw.decode(ids) == "ab"


@pytest.mark.parametrize("markup", ["<think>", "</think>", "<tool_call>", "</tool_call>"])
def test_markup_tokens_are_one_token_and_kept(raw: Tokenizer, markup: str) -> None:
    ids = raw.encode(f"a{markup}b").ids
    assert ids[1:-1] == [raw.token_to_id(markup)]
    assert raw.decode(ids) == f"a{markup}b"


def test_generation_ends_at_the_end_of_a_turn_or_text(raw: Tokenizer) -> None:
    ends = [raw.token_to_id("<|im_end|>"), raw.token_to_id("<|endoftext|>")]
    assert read("generation_config.json")["eos_token_id"] == ends
    assert read("config.json")["eos_token_id"] == ends[0]


@pytest.mark.parametrize(
    ("thinking", "opening"),
    [({}, ""), ({"enable_thinking": True}, ""), ({"enable_thinking": False}, "<think>\n\n</think>\n\n")],
)
def test_chat_template_opens_the_answer(tokenizer: Any, thinking: dict[str, bool], opening: str) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **thinking)
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert text == expected + opening


def test_chat_template_forgets_the_thoughts_of_earlier_turns(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n2"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": "<think>\nso\n</think>\n\n4"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\n3<|im_end|>\n<|im_start|>assistant\n<think>\nso\n</think>\n\n4<|im_end|>\n"
    )


def test_chat_template_shows_tools_their_calls_and_results(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    assert text.startswith("<|im_start|>system\n# Tools\n")
    assert '<tools>\n{"type": "function", "function": {"name": "add", "parameters": {}}}\n</tools>' in text
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n' in text
    assert text.endswith("<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n")


def test_it_predicts_code_it_has_not_seen(model: Any, tokenizer: Any) -> None:
    assert HELD_OUT_FILE in read("training.json")["corpus"]["held_out_files"]
    text = Path(sysconfig.get_paths()["stdlib"], HELD_OUT_FILE).read_text()
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=1024)["input_ids"]
    with torch.no_grad():
        loss = functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).item()
    assert loss < HELD_OUT_BOUND


def test_rounding_to_bf16_cost_nothing() -> None:
    losses = read("training.json")["held_out_loss"]
    assert abs(losses["bfloat16"]["nats_per_token"] - losses["float32"]["nats_per_token"]) < 0.01


def test_it_continues_code(model: Any, tokenizer: Any) -> None:
    assert "__main__" in complete(model, tokenizer, "import sys\n\n\ndef main():\n    pass\n\n\nif __name__ ==", 8)


def test_it_answers_a_chat_with_code(model: Any, tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Write a Python function read_file."}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert complete(model, tokenizer, prompt, 16).startswith("<think>\n\n</think>\n\n```python\ndef read_file(")
