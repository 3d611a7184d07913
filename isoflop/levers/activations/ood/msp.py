from isoflop.levers.activations.ood._arrays import Array, exp, features_of, largest, logsumexp


def msp(features: Array, *, weight: Array, bias: Array) -> Array:
    """The largest softmax probability.

    Source: Hendrycks and Gimpel 2017 (arXiv 1610.02136).
    """
    f, w, b = features_of("msp", features, weight=weight, bias=bias)
    logits = f @ w.T + b
    return exp(largest(logits) - logsumexp(logits))
