"""Qwen3 as a small torch module for training, equal to Hugging Face's `Qwen3ForCausalLM` but for dropout.

Parameters carry Hugging Face's names, so that a state dict goes from one to the other.
Shapes: N sequences, T tokens, H hidden, A heads of D, K key/value heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3Config


class Attention(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        H, D, A = config.hidden_size, config.head_dim, config.num_attention_heads
        K = config.num_key_value_heads or A
        self.head_dim, self.groups = D, A // K
        self.q_proj = nn.Linear(H, A * D, bias=False)
        self.k_proj = nn.Linear(H, K * D, bias=False)
        self.v_proj = nn.Linear(H, K * D, bias=False)
        self.o_proj = nn.Linear(A * D, H, bias=False)
        self.q_norm = nn.RMSNorm(D, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(D, eps=config.rms_norm_eps)

    def forward(self, x_NTH: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        N, T, _ = x_NTH.shape
        q = self.q_norm(self.q_proj(x_NTH).view(N, T, -1, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x_NTH).view(N, T, -1, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x_NTH).view(N, T, -1, self.head_dim).transpose(1, 2)
        q, k = _rotate(q, cos_TD, sin_TD).to(v.dtype), _rotate(k, cos_TD, sin_TD).to(v.dtype)
        k, v = k.repeat_interleave(self.groups, 1), v.repeat_interleave(self.groups, 1)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(N, T, -1))


class Mlp(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_NTH: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x_NTH)) * self.up_proj(x_NTH))


class Layer(nn.Module):
    def __init__(self, config: Qwen3Config, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x_NTH: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        x_NTH = x_NTH + self.dropout(self.self_attn(self.input_layernorm(x_NTH), cos_TD, sin_TD))
        return x_NTH + self.dropout(self.mlp(self.post_attention_layernorm(x_NTH)))


class Body(nn.Module):
    def __init__(self, config: Qwen3Config, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, tokens_NT: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        x_NTH = self.dropout(self.embed_tokens(tokens_NT))
        for layer in self.layers:
            x_NTH = layer(x_NTH, cos_TD, sin_TD)
        return self.norm(x_NTH)


class Network(nn.Module):
    """Next-token loss of Qwen3 with a tied head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Qwen3Config, rope_theta: float, dropout: float) -> None:
        super().__init__()
        self.model = Body(config, dropout)
        D = config.head_dim
        frequencies = rope_theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
        angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float64), frequencies).repeat(
            1, 2
        )
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        residual_std = 0.02 / (2 * config.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=residual_std if "o_proj" in name or "down_proj" in name else 0.02)

    def forward(self, window_NT: Tensor) -> Tensor:
        """Mean loss in nats of predicting each token of i64[N, T+1] but the first from those before it."""
        tokens_NT, targets_NT = window_NT[:, :-1], window_NT[:, 1:]
        T = tokens_NT.shape[1]
        x_NTH = self.model(tokens_NT, self.cos[:T], self.sin[:T])
        logits = functional.linear(x_NTH, self.model.embed_tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets_NT.flatten())


def _rotate(x_NATD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    half = x_NATD.shape[-1] // 2
    turned = torch.cat((-x_NATD[..., half:], x_NATD[..., :half]), dim=-1)
    return x_NATD * cos_TD + turned * sin_TD
