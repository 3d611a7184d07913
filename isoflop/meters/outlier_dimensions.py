import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, setting


@meter("outlier_dimensions", per="run", stack=("x",))
def outlier_dimensions(x, layer=None, *, above=6.0, tokens=0.06, layers=0.25):
    """number of dimensions d with |x_d| >= above in a share `tokens` of tokens, in a share `layers` of layers

    Hidden dimensions that break coarse quantisation: a row is a token (in a `layer`, where there are several), x_1,
    x_2, ... its hidden state. Returns the count, their share of all dimensions, and largest: the greatest |x|.

    Source: the threshold of Dettmers et al. 2022 (LLM.int8(), arXiv 2208.07339: 6.0, 6 % of tokens, 25 % of layers),
    which Ahmadian et al. 2023 (Intriguing Properties of Quantization at Scale, arXiv 2305.19268) count.
    """
    (hidden,) = matrix("outlier_dimensions", x=x)
    for name, value in (("tokens", tokens), ("layers", layers)):
        setting("outlier_dimensions", 0 < value <= 1, name, "a share above 0", value)
    group = np.zeros(len(hidden), int) if layer is None else np.unique(np.asarray(layer), return_inverse=True)[1]
    big = np.stack([(np.abs(hidden[group == k]) >= above).mean(axis=0) >= tokens for k in np.unique(group)])
    found = int((big.mean(axis=0) >= layers).sum())
    return {"outlier_dimensions": found, "share": found / hidden.shape[1], "largest": float(np.abs(hidden).max()),
            "layers": len(big)}  # fmt: skip
