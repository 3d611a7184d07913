"""Sizes of the ladder's own transformer at its start, beside the recursion for infinite width.

    python -m isoflop.levers.architecture._at_start --out at_start.csv

A row is a block of one start: mean square of the stream that leaves it, over 8 windows, and the recursion's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from isoflop.levers.train._design import Design
from isoflop.levers.train._gpt import GPT
from isoflop.levers.train._shape import Shape
from isoflop.theory.transformer_at_start import recursion

VOCAB = 4096  # windows of few repeated tokens, as the recursion has them


def measured(*, widths: Sequence[int], depth: int, context: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Rows width, seed, block, measured, predicted, ratio."""
    stream = recursion(0.02**2, depth=depth, context=context, shrink=1 / (2 * depth), scores=1.0)
    predicted = np.diagonal(stream, axis1=1, axis2=2).mean(axis=1)[2::2]
    for width in widths:
        for seed in range(seeds):
            shape = Shape(width=width, depth=depth, vocab=VOCAB, tied=False, design=Design())
            model, sizes = GPT(shape, context=context, seed=seed), list[float]()
            for part in model.blocks:
                part.register_forward_hook(lambda _, __, out, sizes=sizes: sizes.append(float(out.square().mean())))
            with torch.no_grad():
                model(torch.randint(VOCAB, (8, context), generator=torch.Generator().manual_seed(seed)))
            for block, (found, made) in enumerate(zip(sizes, predicted, strict=True)):
                yield {"width": width, "seed": seed, "block": block, "measured": found, "predicted": made,
                       "ratio": found / made}  # fmt: skip


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv")
    rows = pd.DataFrame(measured(widths=(32, 64, 128, 256, 512), depth=4, context=32, seeds=8))
    rows.to_csv(parser.parse_args().out, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
