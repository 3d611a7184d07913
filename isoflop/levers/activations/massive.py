"""Find massive activations in a model, and see what it loses without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoflop._meter import get_meter
from isoflop.levers.activations._hidden import changed, hidden_states, norm_names
from isoflop.levers.precision._measure import losses


@dataclass(frozen=True)
class Layer:
    """One layer: how many activations are massive, largest over median, largest, and where that is, as
    (example, token, dimension)."""

    layer: str
    massive: int
    ratio: float
    top: float
    median: float
    place: tuple[int, ...]


@dataclass(frozen=True)
class Massive:
    """What `massive` found, a Layer for each layer."""

    layers: tuple[Layer, ...]

    @property
    def ratio(self) -> float:
        """Of the layer where largest over median is largest."""
        return max(layer.ratio for layer in self.layers)

    @property
    def count(self) -> int:
        """Massive activations in all layers together."""
        return sum(layer.massive for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"massive": self.count, "ratio": self.ratio, "layers": [asdict(x) for x in self.layers]}

    def __str__(self) -> str:
        lines = [f"{x.layer:<24} {x.massive:>6} {x.ratio:>12.4g} {x.top:>12.4g}" for x in self.layers]
        return "\n".join([f"{'layer':<24} {'many':>6} {'ratio':>12} {'largest':>12}", *lines])


def massive(
    model: nn.Module, batch: Any, *, layers: Sequence[str] = (), above: float = 100.0, times: float = 1000.0
) -> Massive:
    """Count activations |h| > above and |h| >= times the median |h| in every layer's output, for one batch.

    model: any module with a list of layers, or `layers` by name; a Hugging Face batch may be a dict.

    Source: Sun et al. 2024 (arXiv 2402.17762), section 2; the counting is the meter massive_activations.
    """
    count = get_meter("massive_activations")
    found = []
    for name, h in hidden_states(model, batch, layers=layers).items():
        said = count(activation=h.double().flatten().cpu().numpy(), above=above, times=times)
        place = tuple(int(i) for i in torch.unravel_index(h.abs().argmax(), h.shape))
        found.append(Layer(name, said["massive"], said["ratio"], said["top"], said["median"], place))
    return Massive(tuple(found))


def outliers(model: nn.Module, batch: Any, *, layers: Sequence[str] = ()) -> dict[str, float]:
    """The meter outlier_dimensions over several modules' outputs of one width, and `ratio`, largest over median of the
    one where that is largest.

    layers: by default the norms in front of the layers' products: what a quantiser of activations has to round.
    Raises ValueError for a model without norms.
    """
    named = list(layers) or norm_names(model)
    if not named:
        raise ValueError(f"{type(model).__name__} has no norms in its layers; name what to look at in `layers`")
    rows = [h.double().flatten(0, -2).cpu().numpy() for h in hidden_states(model, batch, layers=named).values()]
    which = np.repeat(np.arange(len(rows)), [len(x) for x in rows])
    found = get_meter("outlier_dimensions")(x=np.concatenate(rows), layer=which)
    return {**found, "ratio": massive(model, batch, layers=named).ratio}


@torch.no_grad()
def interventions(model: nn.Module, windows: Tensor, *, layer: str, token: int, dimension: int) -> dict[str, float]:
    """Loss on held-out windows (ids, one token further than the inputs) as it is, with one activation set to zero at
    the layer's output, and with it set to its mean over the windows: "loss", "loss_zero", "loss_mean", "mean".

    An activation that acts as a bias is missed when it is zero, and not when it is its mean.

    Source: Sun et al. 2024 (arXiv 2402.17762), section 3.
    """
    h = hidden_states(model, windows[:, :-1], layers=[layer])[layer]
    mean = float(h[:, token, dimension].double().mean())

    def fixed(value: float) -> float:
        def change(h: Tensor) -> Tensor:
            h = h.clone()
            h[:, token, dimension] = value
            return h

        with changed(model, {layer: change}):
            return float(losses(model, windows)[0].mean())

    whole = float(losses(model, windows)[0].mean())
    return {"loss": whole, "loss_zero": fixed(0.0), "loss_mean": fixed(mean), "mean": mean}


def sink_share(attention: Tensor, *, token: int | None = None) -> float:
    """Mean attention of later queries on one token: on `token`, or on the one that gets most.

    attention: probabilities (..., queries, keys) of a causal model. A query sees itself and earlier tokens only, so
    each key's mean is over the queries that come after it; a key that fewer than half of the queries see is left out.

    Source: attention on massive tokens, Sun et al. 2024 (arXiv 2402.17762), section 4; the average is ours.
    """
    time = attention.shape[-1]
    flat = attention.double().reshape(-1, time, time).mean(dim=0)
    keys = [token] if token is not None else range(max(time // 2, 1))
    return max(float(flat[k + 1 :, k].mean()) for k in keys if k + 1 < time)


@torch.no_grad()
def attention_maps(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    """Attention probabilities (batch, heads, time, time) of each layer of a ladder model in its plain form, or of a
    Hugging Face model loaded with attn_implementation="eager".

    Raises ValueError where the model gives none.
    """
    from isoflop.levers.precision._plain import PlainGPT

    if isinstance(model, PlainGPT):
        return _ladder_maps(model, tokens)
    try:
        out = model(tokens, output_attentions=True)
    except TypeError as error:
        raise ValueError(f"{type(model).__name__} takes no output_attentions") from error
    maps = getattr(out, "attentions", None)
    if not maps or maps[0] is None:
        raise ValueError(f"{type(model).__name__} returns no attention; load it with attn_implementation='eager'")
    return list(maps)


def _ladder_maps(model: Any, tokens: Tensor) -> list[Tensor]:
    from isoflop.levers.train._gpt import rotate

    time, maps = tokens.shape[1], []
    cos, sin = model.cos[:time], model.sin[:time]
    hidden: list[Tensor] = []
    names = [f"layers.{i}" for i in range(len(model.layers))]
    handles = [
        model.get_submodule(f"{n}.self_attn").register_forward_pre_hook(lambda m, args: hidden.append(args[0]))
        for n in names
    ]
    try:
        model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    hide = torch.ones(time, time, dtype=torch.bool).triu(1)
    for name, x in zip(names, hidden, strict=True):
        attention: Any = model.get_submodule(f"{name}.self_attn")
        q, k = (
            rotate(p(x).view(*x.shape[:2], attention.heads, -1).transpose(1, 2), cos, sin)
            for p in (attention.q_proj, attention.k_proj)
        )
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        maps.append(scores.masked_fill(hide, float("-inf")).softmax(dim=-1))
    return maps
