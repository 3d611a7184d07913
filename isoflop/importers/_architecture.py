"""Parameters and FLOPs of a transformer, counted from its Hugging Face `config.json` without building it.

print(count_params("config.json"))                # all, embeddings, what one token uses
print(count_flops("config.json", context=4096))   # a token, forward and training
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from isoflop._columns import RunsError, show
from isoflop.importers._model_types import STYLES, Style

_LARGEST = 10**9  # of any single size: beyond it the config is not a model's


@dataclass(frozen=True)
class Params:
    """Numbers of parameters, each exact. `nonembed` leaves out embedding, positions and an output head of its own."""

    model_type: str
    total: int
    nonembed: int
    active: int  # that one token uses: all but the experts it is not routed to
    active_nonembed: int
    embedding: int  # of the vocabulary
    positions: int  # learned ones
    head: int  # an output head that is not the embedding
    tied: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        shared = "shared with the embedding" if self.tied else f"{self.head:,}"
        rows = [
            ("model type", self.model_type),
            ("parameters", f"{self.total:,}"),
            ("  without embeddings and output head", f"{self.nonembed:,}"),
            ("  that one token uses", f"{self.active:,}"),
            ("  embedding", f"{self.embedding:,}"),
            *([("  learned positions", f"{self.positions:,}")] if self.positions else []),
            ("  output head", shared),
        ]
        return "\n".join(f"{name:<38} {value}" for name, value in rows)


@dataclass(frozen=True)
class Flops:
    """FLOPs of one token in a sequence of `context` tokens. Training is three times forward."""

    forward: float
    training: float
    matmul: float  # forward, of the weights: 2 a weight that the token passes, the output head with them
    scores: float  # forward, of attention's scores and their sum over values: what grows with the context
    context: int
    attention: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        share = self.scores / self.forward
        return (
            f"FLOPs a token, forward                 {self.forward:.6g}\n"
            f"FLOPs a token, training (3 x forward)  {self.training:.6g}\n"
            f"  attention over {self.context} tokens ({self.attention}): {share:.2%} of it"
        )


def count_params(config: str | os.PathLike[str] | Mapping[str, Any]) -> Params:
    """Parameters of the model that a Hugging Face `config.json` describes: a path, or its content as a dict.

    Counts every trained number (weights, biases, norms) of the causal language model, tied matrices once; buffers such
    as rotary tables are none. Extra multi-token-prediction heads (DeepSeek-V3) are not counted, nor does transformers
    build them. Raises RunsError for a model type that is not known or a config that lacks a size.
    """
    c = _config(config)
    layers = list(_layers(c))
    width, vocab = c.size("hidden_size", "n_embd"), c.size("vocab_size")
    outer = c.size("word_embed_proj_dim", default=width)
    positions = (c.size(c.style.positions) + c.style.extra_positions) * width if c.style.positions else 0
    tied = c.flag("tie_word_embeddings", c.style.tied)
    head = (0 if tied else vocab * outer) + (vocab if c.style.head_bias else 0)
    inner = sum(x.weights + x.idle + x.rest for x in layers) + _final_norm(c, width) + _projections(outer, width)
    idle = sum(x.idle for x in layers)
    total = inner + vocab * outer + positions + head
    return Params(c.model_type, total, inner, total - idle, inner - idle, vocab * outer, positions, head, tied)


def count_flops(
    config: str | os.PathLike[str] | Mapping[str, Any], *, context: int, attention: str = "causal"
) -> Flops:
    """FLOPs of one token, on average over a sequence of `context` tokens.

    forward = 2 x (weights of the matrices that the token passes, output head included, embedding look-up not)
            + 2 x heads x (query-key channels + value channels) x keys, summed over layers;  training = 3 x forward.

    attention: which keys count, as in the meter train_flops. "causal": those that may be seen, (context + 1) / 2 on
    average, fewer under a sliding window; "full": `context`, what kernels without a mask's savings do; "none": 0.
    Norms, activations, softmax and biases are left out, as in Kaplan et al. 2020 (arXiv 2001.08361, table 1), whose
    2 n_layer n_ctx d_attn a token counts half of the multiplications that "full" does.
    Raises RunsError as `count_params` does, ValueError for other settings.
    """
    if attention not in ("causal", "full", "none"):
        raise ValueError(f"count_flops has no attention={attention!r}; there are causal, full, none")
    if isinstance(context, bool) or int(context) != context or context < 1:
        raise ValueError(f"count_flops needs a context of one token or more, not {context!r}")
    c = _config(config)
    layers = list(_layers(c))
    width, vocab = c.size("hidden_size", "n_embd"), c.size("vocab_size")
    outer = c.size("word_embed_proj_dim", default=width)
    matmul = 2.0 * (sum(x.weights for x in layers) + vocab * outer + _projections(outer, width))
    scores = sum(2.0 * x.score_channels * _keys(int(context), x.window, attention) for x in layers)
    return Flops(matmul + scores, 3 * (matmul + scores), matmul, scores, int(context), attention)


def known_types() -> list[str]:
    """Model types that can be counted."""
    return sorted(STYLES)


# ---- a config, checked as it is read ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Config:
    values: Mapping[str, Any]
    name: str
    model_type: str
    style: Style

    def size(self, *keys: str, default: int | None = None) -> int:
        """The first of `keys` that is there, as a whole number above zero."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
                raise RunsError(f"{self.name}: {key} is {show(value)}; it must be a whole number above 0")
            return value
        if default is None:
            raise RunsError(f"{self.name}: a {self.model_type} config needs {' or '.join(keys)}, and it has none")
        return default

    def whole(self, key: str, default: int) -> int:
        """A whole number, 0 too."""
        value = self.values.get(key)
        return value if value == 0 and not isinstance(value, bool) else self.size(key, default=default)

    def flag(self, key: str, default: bool) -> bool:
        """A yes or no."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise RunsError(f"{self.name}: {key} is {show(value)}; it must be true or false")
        return default if value is None else value

    def says(self, rule: str) -> bool:
        """What a Style's text says: yes, no, or the config's key with its default."""
        if rule in ("yes", "no"):
            return rule == "yes"
        key, _, default = rule.partition("=")
        return self.flag(key, default == "yes")


def _config(source: str | os.PathLike[str] | Mapping[str, Any]) -> _Config:
    name = "config" if isinstance(source, Mapping) else os.path.basename(os.fspath(source))
    values = source if isinstance(source, Mapping) else _loaded(source)
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise RunsError(f"{name} has no model_type; give the config.json of a Hugging Face model")
    if model_type not in STYLES:
        inner = " (give its text_config alone)" if isinstance(values.get("text_config"), Mapping) else ""
        raise RunsError(
            f"{name}: no count for model type {show(model_type)}{inner}; there are {', '.join(known_types())}"
        )
    return _Config(values, name, model_type, STYLES[model_type])


def _loaded(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    from isoflop.importers._safe import load_json

    values = load_json(path, limit=10_000_000)
    if not isinstance(values, Mapping):
        raise RunsError(f"{os.path.basename(os.fspath(path))} is no config.json: it holds no object")
    return values


# ---- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    weights: int  # of matrices that every token passes
    idle: int  # of experts that a token is not routed to
    rest: int  # biases and norms
    score_channels: int  # heads x (query-key channels + value channels)
    window: int  # keys that may be seen; 0: all before


def _layers(c: _Config) -> Iterator[_Layer]:
    width, count = c.size("hidden_size", "n_embd"), c.size("num_hidden_layers", "n_layer")
    if count > 10_000:
        raise RunsError(f"{c.name}: {count} layers; no model has so many")
    windows = _windows(c, count)
    makers = {"latent": _latent_attention, "falcon": _falcon_attention}
    attention, biases, channels = makers.get(c.style.special, _attention)(c, width)
    norms = c.style.norm_weights * width * _norms(c)
    for i in range(count):
        weights, idle, rest = _experts(c, width) if _is_sparse(c, i) else _dense(c, width)
        yield _Layer(attention + weights, idle, biases + norms + rest, channels, windows[i])


def _attention(c: _Config, width: int) -> tuple[int, int, int]:
    """(weights, biases and norms, score channels)"""
    heads = c.size("num_attention_heads", "n_head")
    kv = c.size("num_key_value_heads", default=heads if c.style.kv_heads else None)
    dim = c.size("head_dim", default=c.style.head_dim or _share(c, width, heads))
    out, qkv = heads * dim, (heads + 2 * kv) * dim
    rest = qkv * c.says(c.style.qkv_bias) + width * c.says(c.style.out_bias)
    if c.style.qk_norm == "all":
        rest += out + kv * dim
    elif c.style.qk_norm and (c.style.qk_norm == "head" or c.says(c.style.qk_norm)):
        rest += 2 * dim * c.style.norm_weights
    return width * (qkv + out), rest, 2 * out


def _falcon_attention(c: _Config, width: int) -> tuple[int, int, int]:
    heads = c.size("num_attention_heads", "n_head")
    dim = _share(c, width, heads)
    if c.flag("new_decoder_architecture", False):
        kv = c.size("num_kv_heads", default=heads)
    else:
        kv = 1 if c.flag("multi_query", True) else heads
    qkv = (heads + 2 * kv) * dim
    return width * (qkv + width), (qkv + width) * c.says("bias"), 2 * width


def _latent_attention(c: _Config, width: int) -> tuple[int, int, int]:
    """Keys and values through a low-rank bottleneck (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""
    heads, rope = c.size("num_attention_heads"), c.size("qk_rope_head_dim")
    query, value, latent = c.size("qk_nope_head_dim") + rope, c.size("v_head_dim"), c.size("kv_lora_rank")
    biased = c.says("attention_bias")
    if c.values.get("q_lora_rank") is None:
        weights, rest = width * heads * query, 0
    else:
        rank = c.size("q_lora_rank")
        weights, rest = width * rank + rank * heads * query, rank + rank * biased
    weights += width * (latent + rope) + latent * heads * (query - rope + value) + heads * value * width
    return weights, rest + latent + (latent + rope + width) * biased, heads * (query + value)


def _dense(c: _Config, width: int) -> tuple[int, int, int]:
    """(weights, idle weights, biases) of a dense feed-forward block"""
    keys = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    inner = c.size(*keys, default=None if c.style.gated else 4 * width)
    matrices = 3 if c.style.gated else 2
    biases = (inner * (matrices - 1) + width) * c.says(c.style.mlp_bias)
    return matrices * width * inner, 0, biases


def _experts(c: _Config, width: int) -> tuple[int, int, int]:
    count = c.size("num_experts", "num_local_experts", "n_routed_experts")
    used = c.size("num_experts_per_tok")
    if used > count:
        raise RunsError(f"{c.name}: a token is routed to {used} experts, of {count}")
    one = 3 * width * c.size(c.style.expert_width)
    weights = count * width + used * one  # the router, and the experts that are used
    if c.style.shared_width and c.values.get(c.style.shared_width):
        weights += 3 * width * c.size(c.style.shared_width) + width
    if c.style.special == "latent" and c.values.get("n_shared_experts"):
        weights += c.size("n_shared_experts") * one
    return weights, (count - used) * one, 0


def _is_sparse(c: _Config, layer: int) -> bool:
    if not c.style.expert_width:
        return False
    if c.style.special == "latent":
        return layer >= c.whole("first_k_dense_replace", 3 if c.model_type == "deepseek_v3" else 0)
    dense_layers = c.values.get("mlp_only_layers") or []
    if not isinstance(dense_layers, list):
        raise RunsError(f"{c.name}: mlp_only_layers is {show(dense_layers)}; it must be a list")
    return layer not in dense_layers and (layer + 1) % c.size("decoder_sparse_step", default=1) == 0


def _norms(c: _Config) -> int:
    if c.style.special != "falcon":
        return c.style.norms
    if not c.flag("parallel_attn", True):
        return 2
    return c.size("num_ln_in_parallel_attn", default=2) if c.flag("new_decoder_architecture", False) else 1


def _final_norm(c: _Config, width: int) -> int:
    gone = c.flag("_remove_final_layer_norm", False) or not c.flag("do_layer_norm_before", True)
    return 0 if gone else c.style.norm_weights * width


def _projections(outer: int, width: int) -> int:
    return 0 if outer == width else 2 * outer * width


def _share(c: _Config, width: int, heads: int) -> int:
    if width % heads:
        raise RunsError(f"{c.name}: a width of {width} is not divisible by {heads} heads, and there is no head_dim")
    return width // heads


def _windows(c: _Config, count: int) -> list[int]:
    window = c.size("sliding_window") if c.values.get("sliding_window") else 0
    if not (window and c.style.windows) or not c.flag("use_sliding_window", c.style.windows != "late"):
        return [0] * count
    kinds = c.values.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == count:
        return [window if kind == "sliding_attention" else 0 for kind in kinds]
    late = c.size("max_window_layers", default=count)
    has = {"all": lambda i: True, "even": lambda i: i % 2 == 0, "6": lambda i: (i + 1) % 6 != 0,
           "late": lambda i: i >= late}[c.style.windows]  # fmt: skip
    return [window if has(i) else 0 for i in range(count)]


def _keys(context: int, window: int, attention: str) -> float:
    """Keys that a token attends to, on average over a sequence."""
    if attention == "none":
        return 0.0
    if attention == "full":
        return float(context)
    if not window or window >= context:
        return (context + 1) / 2
    return (window * (window + 1) / 2 + (context - window) * window) / context
