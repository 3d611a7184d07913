"""How the model types of `config.json` are built: one record a type, which `_architecture.py` counts.

Each record was checked against the model that the transformers library builds from the same config (tests).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """What a model type adds to a plain decoder. A text is the config's key that decides, its default after `=`."""

    tied: bool = False  # output head shares the embedding, where the config does not say
    kv_heads: str = ""  # "heads": as many as query heads where the config does not say; "": the config must say
    head_dim: int = 0  # where the config does not say; 0: width / heads
    qkv_bias: str = "no"  # "yes", "no", or a key of the config
    out_bias: str = "no"
    gated: bool = True  # three matrices in the feed-forward block, or two
    mlp_bias: str = "no"
    norms: int = 2  # in a layer
    norm_weights: int = 1  # a channel: 0 without parameters, 1 scale, 2 scale and shift
    qk_norm: str = ""  # "head": over each head's channels, "all": over all heads', or a key of the config for "head"
    positions: str = ""  # key of the number of learned positions
    extra_positions: int = 0
    head_bias: bool = False
    expert_width: str = ""  # key of one expert's inner width; "": dense
    shared_width: str = ""  # key of the shared expert's inner width, which has a gate of its own
    windows: str = ""  # which layers have one: "all", "even" (from the first), "6" (all but each sixth), "late"
    special: str = ""  # attention of its own: "falcon", "latent"


_LLAMA = Style(kv_heads="heads", qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias")

STYLES: dict[str, Style] = {
    "gpt2": Style(
        tied=True, kv_heads="heads", qkv_bias="yes", out_bias="yes", gated=False, mlp_bias="yes", norm_weights=2,
        positions="n_positions",
    ),
    "gpt_neox": Style(
        kv_heads="heads", qkv_bias="attention_bias=yes", out_bias="attention_bias=yes", gated=False, mlp_bias="yes",
        norm_weights=2,
    ),
    "opt": Style(
        tied=True, kv_heads="heads", qkv_bias="enable_bias=yes", out_bias="enable_bias=yes", gated=False,
        mlp_bias="enable_bias=yes", norm_weights=2, positions="max_position_embeddings", extra_positions=2,
    ),
    "llama": _LLAMA,
    "granite": _LLAMA,
    "mistral": Style(windows="all"),
    "mixtral": Style(expert_width="intermediate_size", windows="all"),
    "qwen2": Style(qkv_bias="yes", windows="late"),
    "qwen3": Style(head_dim=128, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="late"),
    "qwen2_moe": Style(
        qkv_bias="qkv_bias=yes", expert_width="moe_intermediate_size", shared_width="shared_expert_intermediate_size"
    ),
    "qwen3_moe": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", expert_width="moe_intermediate_size"
    ),
    "gemma": Style(tied=True, head_dim=256, qkv_bias="attention_bias", out_bias="attention_bias"),
    "gemma2": Style(
        tied=True, head_dim=256, qkv_bias="attention_bias", out_bias="attention_bias", norms=4, windows="even"
    ),
    "gemma3_text": Style(
        tied=True, head_dim=256, qkv_bias="attention_bias", out_bias="attention_bias", norms=4, qk_norm="head",
        windows="6",
    ),
    "olmo": Style(kv_heads="heads", qkv_bias="attention_bias", out_bias="attention_bias", norm_weights=0),
    "olmo2": Style(kv_heads="heads", qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="all"),
    "olmoe": Style(
        kv_heads="heads", qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="all",
        expert_width="intermediate_size",
    ),
    "phi": Style(
        kv_heads="heads", qkv_bias="yes", out_bias="yes", gated=False, mlp_bias="yes", norms=1, norm_weights=2,
        head_bias=True, qk_norm="qk_layernorm",
    ),
    "phi3": Style(kv_heads="heads", windows="all"),
    "falcon": Style(tied=True, kv_heads="heads", gated=False, mlp_bias="bias", norm_weights=2, special="falcon"),
    "deepseek_v2": Style(
        kv_heads="heads", qkv_bias="attention_bias", out_bias="attention_bias",
        expert_width="moe_intermediate_size", special="latent",
    ),
    "deepseek_v3": Style(
        kv_heads="heads", qkv_bias="attention_bias", out_bias="attention_bias",
        expert_width="moe_intermediate_size", special="latent",
    ),
}  # fmt: skip
