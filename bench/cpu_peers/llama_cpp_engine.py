"""llama.cpp through its Python binding (`pip install llama-cpp-python gguf`), on a GGUF file of the same weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class LlamaCpp:
    def __init__(self, folder: Path, threads: int) -> None:
        path = folder / "model.gguf"
        if not path.exists():
            _convert(folder, path)
        self._vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
        self._llama = llama_cpp.Llama(
            str(path), n_ctx=2048, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def prefill(self, tokens: int) -> float:
        prompt = np.random.default_rng().integers(self._vocabulary, size=tokens).tolist()
        self._llama.reset()
        start = time.perf_counter()
        self._llama.eval(prompt)
        self._next = self._argmax()
        return time.perf_counter() - start

    def decode(self, tokens: int) -> float:
        start = time.perf_counter()
        for _ in range(tokens):
            self._llama.eval([self._next])
            self._next = self._argmax()
        return time.perf_counter() - start

    def _argmax(self) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, (self._vocabulary,))))


def _convert(folder: Path, path: Path) -> None:
    """Write the checkpoint's tensors, renamed, with a vocabulary of placeholders (prompts are token ids)."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_parameters") or config
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"<{i}>" for i in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
    writer.add_token_merges(["< 0"])  # there must be one
    for shard in sorted(folder.glob("*.safetensors")):
        for name, bits, is_bf16 in _tensors(shard):
            if bits.ndim == 1:  # norms are kept in float32
                wide = (bits.astype(np.uint32) << 16).view(np.float32) if is_bf16 else bits
                writer.add_tensor(_rename(name), wide)
            elif is_bf16:
                writer.add_tensor(_rename(name), bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(_rename(name), bits)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(path: Path) -> Any:
    """(name, array, is it bf16 as bits) of each tensor of a safetensors file."""
    data = np.memmap(path, np.uint8, "r")
    header = int(data[:8].view(np.uint64)[0])
    entries = json.loads(bytes(data[8 : 8 + header]))
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        begin, end = (8 + header + o for o in entry["data_offsets"])
        is_bf16 = entry["dtype"] == "BF16"
        bits = np.frombuffer(bytes(data[begin:end]), np.uint16 if is_bf16 else np.float32)
        yield name, bits.reshape(entry["shape"]), is_bf16


def _rename(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.weight"


def load(folder: Path, _dtype: str, threads: int) -> LlamaCpp:
    return LlamaCpp(folder, threads)
