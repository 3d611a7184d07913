"""The shape of a model and its exact parameter counts (needs no PyTorch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isoflop.levers.train._design import Design


@dataclass(frozen=True)
class Shape:
    """width: residual stream; depth: blocks; heads divide width into even head sizes; vocab: distinct tokens.

    design: everything of the model that is not its size; None is the ladder's own, `Design()`.
    """

    width: int
    depth: int
    vocab: int
    heads: int = 0
    tied: bool = True
    design: Design | None = None

    def __post_init__(self) -> None:
        if self.heads == 0:
            object.__setattr__(self, "heads", default_heads(self.width))
        if self.width < 2 or self.depth < 1 or self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"size width={self.width} depth={self.depth} heads={self.heads} cannot be built: "
                "heads must divide width into an even head size, and depth must be at least 1"
            )

    @property
    def hidden(self) -> int:
        """Inner width of the SwiGLU, 8/3 of the width (arXiv:2002.05202: 2/3 of 4) rounded to a multiple of 8."""
        return max(8, 8 * round(self.width / 3))

    @property
    def gains(self) -> int:
        """Trained numbers of a norm."""
        return 1 if self.design is not None and self.design.norm == "scale" else self.width

    @property
    def params_nonembed(self) -> int:
        """Exact count without the embedding and unembedding tables; the gains of the norms are counted."""
        block = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.gains
        return self.depth * block + self.gains

    @property
    def params(self) -> int:
        """Exact count of all trained numbers; tied tables are counted once."""
        return self.params_nonembed + (1 if self.tied else 2) * self.vocab * self.width


def default_heads(width: int) -> int:
    """About one head per 32 of width, so that heads divide the width into even sizes."""
    options = [h for h in range(1, width // 16 + 1) if width % h == 0 and (width // h) % 2 == 0]
    return min(options, key=lambda h: abs(width / h - 32), default=1)
