"""Train the bundled checkpoint and write it as a Hugging Face folder.

python -m models.tiny_train --out models/tiny [--corpus DIR] [--minutes 1.4]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import random
import time
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from .check import check
from .corpus import Document, Split, chats, read_corpus, standard_library
from .network import Network
from .tokenizer import VOCAB_SIZE, chat_template, save_tokenizer, train_tokenizer
from .train import LEARNING_RATE, PHASES, WARMUP, evaluate, train

MAX_POSITION = 4096
ROPE_THETA = 10_000.0
CHAT_SHARE = 0.1
"""Of the training tokens."""
SIZE_LIMIT = 12_000_000
"""Of the weights' file in bytes."""
END = "<|endoftext|>"


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    began = time.monotonic()
    documents = read_corpus(arguments.corpus)
    splits: dict[Split, list[Document]] = {"train": [], "validation": [], "held_out": []}
    for document in documents:
        splits[document.split].append(document)
    tokenizer = train_tokenizer(d.text for d in splits["train"])
    streams = {name: _encode(tokenizer, part, arguments.device) for name, part in splits.items()}
    chat = _encode_chats(tokenizer, splits["train"], int(CHAT_SHARE * len(streams["train"])))
    print(f"{len(documents)} files, {time.monotonic() - began:.0f} s; tokens:", {k: len(v) for k, v in streams.items()})

    config = _config(tokenizer)
    network = Network(config, ROPE_THETA, arguments.dropout).to(arguments.device)
    print(f"{sum(p.numel() for p in network.parameters())} parameters, {len(chat)} tokens of chat", flush=True)
    history = train(
        network,
        torch.cat((streams["train"], chat.to(arguments.device))),
        streams["validation"],
        minutes=arguments.minutes,
        steps=arguments.steps,
        batch_tokens=arguments.batch_tokens,
    )
    losses = {"float32": evaluate(network, streams["held_out"], exact=True)}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.bfloat16())
    losses["bfloat16"] = evaluate(network, streams["held_out"], exact=True)

    _save(network, config, tokenizer, arguments.out)
    bits = len(streams["held_out"]) / _bytes(splits["held_out"]) / math.log(2)
    report = {
        "held_out_loss": {
            weights: {"nats_per_token": round(nats, 4), "bits_per_byte": round(nats * bits, 4)}
            for weights, nats in losses.items()
        },
        "parameters": sum(p.numel() for p in network.parameters()),
        "corpus": _describe(arguments.corpus, splits, {k: len(v) for k, v in streams.items()}, len(chat)),
        "training": {
            "steps": history.steps,
            "tokens": history.tokens,
            "epochs": round(history.tokens / (len(streams["train"]) + len(chat)), 2),
            "seconds": round(history.seconds, 1),
            "batch_tokens": arguments.batch_tokens,
            "dropout": arguments.dropout,
            "learning_rate": LEARNING_RATE,
            "warmup": WARMUP,
            "phases": PHASES,
            "compiled": history.compiled,
            "curve": history.curve,
        },
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or "cpu",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    _write_json(arguments.out / "training.json", report)
    print(json.dumps(report["held_out_loss"], indent=2), flush=True)
    report["samples"] = check(arguments.out, network, streams["held_out"], arguments.device)
    _write_json(arguments.out / "training.json", report)
    print(f"all done in {time.monotonic() - began:.0f} s; {arguments.out}:")
    for file in sorted(arguments.out.iterdir()):
        print(f"{file.stat().st_size:12,d} {file.name}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.tiny_train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--corpus", type=Path, default=standard_library(), help="folder of .py files to train on")
    parser.add_argument("--minutes", type=float, default=1.4, help="length of the training proper")
    parser.add_argument("--steps", type=int, help="length in steps instead of minutes")
    parser.add_argument("--batch-tokens", type=int, default=131_072, help="tokens of one step")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def _encode(tokenizer: Tokenizer, documents: list[Document], device: str) -> torch.Tensor:
    """The documents in a random but fixed order as one stream i64[tokens], each ended by <|endoftext|>."""
    texts = [d.text + END for d in random.Random(0).sample(documents, len(documents))]
    ids = [i for encoding in tokenizer.encode_batch(texts) for i in encoding.ids]
    return torch.tensor(ids, dtype=torch.int64, device=device)


def _encode_chats(tokenizer: Tokenizer, documents: list[Document], count: int) -> torch.Tensor:
    """At least `count` tokens of conversations, each ended by <|endoftext|>."""
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template())
    conversations = chats(documents, random.Random(0))
    ids: list[int] = []
    while len(ids) < count:
        ids += tokenizer.encode(template.render(messages=next(conversations)) + END).ids
    return torch.tensor(ids, dtype=torch.int64)


def _config(tokenizer: Tokenizer) -> Qwen3Config:
    end, stop = tokenizer.token_to_id(END), tokenizer.token_to_id("<|im_end|>")
    return Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_POSITION,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=stop,
        pad_token_id=end,
        dtype=torch.bfloat16,
    )


def _save(network: Network, config: Qwen3Config, tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = Qwen3ForCausalLM(config)
    model.to(torch.bfloat16)
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    model.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"]})
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, MAX_POSITION)
    generation = {
        "bos_token_id": config.bos_token_id,
        "do_sample": True,
        "eos_token_id": [config.eos_token_id, config.bos_token_id],
        "pad_token_id": config.pad_token_id,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "transformers_version": transformers.__version__,
    }
    _write_json(folder / "generation_config.json", generation)
    size = (folder / "model.safetensors").stat().st_size
    assert size <= SIZE_LIMIT, f"model.safetensors has {size} bytes"


def _describe(
    folder: Path, splits: dict[Split, list[Document]], tokens: dict[Split, int], chat_tokens: int
) -> dict[str, Any]:
    digest = hashlib.sha256("\0".join(t for d in splits["train"] for t in (d.path, d.text)).encode())
    source = f"Python {platform.python_version()}" if folder == standard_library() else folder.name
    parts = {n: {"files": len(p), "bytes": _bytes(p), "tokens": tokens[n]} for n, p in splits.items()}
    return {
        "source": f"standard library of {source}",
        "train_sha256": digest.hexdigest(),
        "splits": parts,
        "chat_tokens": chat_tokens,
        "held_out_files": [d.path for d in splits["held_out"]],
    }


def _bytes(documents: list[Document]) -> int:
    return sum(len(d.text.encode()) for d in documents)


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
