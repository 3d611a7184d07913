"""What a quantiser says of its work."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """One model quantised by one method. All arithmetic is simulated: bits and bytes are what storage would need.

    bits_weights, bits_acts: per value of the treated layers, scales and zero points included (acts None: not rounded)
    bits_params: per parameter of the whole model, the untreated ones at 16 bits; bytes, bytes_before (all at 16 bits)
    flops: of the treated layers per token; extra_flops, extra_bytes: what the method adds at run time
    explicit: sites whose scale could not be folded and is a product at run time
    fold_error: largest change of the outputs by folding alone, relative to their largest (no rounding yet)
    layers: per site, `error` = |y_q - y|^2 / |y|^2 on calibration, `weight_error` the same with exact inputs,
        `channel_ratio`, `token_ratio`, `kurtosis` of its inputs, and what the method chose
    premise: why the method may have nothing to do here, or None
    loss, loss_before: mean cross entropy on held-out data, nats (perplexity = exp); loss_se of their difference
    """

    method: str
    target: dict[str, Any]
    knobs: dict[str, Any]
    bits_weights: float
    bits_acts: float | None
    bits_params: float
    bytes: int
    bytes_before: int
    flops: int
    extra_flops: int
    extra_bytes: int
    explicit: int
    fold_error: float
    layers: tuple[dict[str, Any], ...]
    premise: str | None
    seconds: float
    loss_before: float | None = None
    loss: float | None = None
    loss_se: float | None = None
    perplexity: float | None = None
    accuracy_before: float | None = None
    accuracy: float | None = None
    arithmetic: str = field(default="simulated", init=False)

    @property
    def error(self) -> float:
        """Mean over sites of the relative calibration error."""
        return sum(layer["error"] for layer in self.layers) / len(self.layers)

    @property
    def weight_error(self) -> float:
        """Mean over sites of the relative calibration error with exact inputs."""
        return sum(layer["weight_error"] for layer in self.layers) / len(self.layers)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"error": self.error, "weight_error": self.weight_error, "layers": list(self.layers)}

    def __str__(self) -> str:
        acts = "inputs not rounded" if self.bits_acts is None else f"{self.bits_acts:.2f} bits per input"
        lines = [
            f"{self.method}: {self.bits_weights:.2f} bits per weight, {acts}, in simulated arithmetic",
            f"model {self.bytes_before / 1e6:.2f} MB at 16 bits -> {self.bytes / 1e6:.2f} MB "
            f"({self.bits_params:.2f} bits per parameter)",
            f"run time adds {self.extra_flops / max(self.flops, 1):.2%} FLOPs and {self.extra_bytes} bytes; "
            f"{self.explicit} of {len(self.layers)} sites could not be folded",
            f"calibration error {self.error:.2e} (weights alone {self.weight_error:.2e}); folding changed "
            f"{self.fold_error:.0e}",
        ]
        if self.loss is not None and self.loss_before is not None:
            lines.append(f"held-out loss {self.loss_before:.4f} -> {self.loss:.4f} +- {self.loss_se:.4f}")
        if self.accuracy is not None:
            lines.append(f"held-out accuracy {self.accuracy_before:.4f} -> {self.accuracy:.4f}")
        lines.append(f"{self.seconds:.1f} s")
        return "\n".join([*lines, *([self.premise] if self.premise else [])])
