"""What grows before a training goes wrong: attention logits, the normaliser of the output, losses rounded to 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

WINDOWS = 8  # held-out windows that are watched


class AttentionLogits(TorchFunctionMode):
    """Within it, `largest` is the largest logit that causal attention has seen, of every layer that calls torch's own.

    -inf where none does, as with attention that is no softmax.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = -math.inf

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, scale = args[0].float(), args[1].float(), kwargs.get("scale")
            scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            self.largest = max(self.largest, float(scores.masked_fill(~seen, -math.inf).max()))
        return func(*args, **kwargs)


@torch.no_grad()
def watched(model: nn.Module, windows: Tensor) -> dict[str, float | None]:
    """Of a model on windows of tokens, of which it predicts the last ones, as many as it gives logits for.

    max_attention_logit; log_z, the mean log sum exp of the output logits; max_logit; lost, the share of targets whose
    softmax loss is exactly 0 in the logits' float, from which nothing is learned any more (arXiv:2501.04697).
    """
    with AttentionLogits() as attention:
        logits = model(windows[:, :-1])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits.flatten(0, 1), windows[:, -logits.shape[1] :].flatten(), reduction="none")
    figures = {
        "max_attention_logit": attention.largest,
        "log_z": float(torch.logsumexp(logits, dim=-1).mean()),
        "max_logit": float(logits.abs().max()),
        "lost": float((loss == 0).double().mean()),
    }
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def went_wrong(curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The meter `instability` of a watched curve, as columns of its run; unstable_step is None where nothing was."""
    from isoflop.meters.instability import instability

    names = ("step", "loss", "max_attention_logit", "log_z")
    rows = [r for r in curve if all(r[name] is not None and math.isfinite(r[name]) for name in names)]
    if len(rows) < 2:
        return {}
    columns = {name: [r[name] for r in rows] for name in names}
    found = instability.function(**columns)
    step = found["unstable_step"]
    return {
        "unstable": found["verdict"],
        "unstable_step": step if math.isfinite(step) else None,
        "max_attention_logit": max(columns["max_attention_logit"]),
        "log_z": columns["log_z"][-1],
        "lost": rows[-1]["lost"],
    }
