from isoflop import meter


@meter("flops")
def train_flops(
    params, tokens, params_nonembed=None, vocab=None, width=None, depth=None, context=None, *,
    size="total", attention="none",
):  # fmt: skip
    """C = 6 N D

    Training FLOPs of a dense transformer: 2 forward and 4 backward a parameter and token. The two settings are the
    choices over which published laws disagree (Porian et al. 2024, arXiv 2406.19146, table 1):

    size: which parameters count as N.
        "total": `params`, all of them, tied embeddings once (Hoffmann et al. 2022, arXiv 2203.15556, section 3).
        "nonembed": `params_nonembed` (Kaplan et al. 2020, arXiv 2001.08361, eq. 2.2).
        "linear": `params_nonembed` + `vocab` x `width`: with the output head, without the input embedding (Porian).
    attention: the cost of the scores themselves, beyond the parameters, a token.
        "none": 0.
        "causal": 6 x `depth` x `context` x `width` (Kaplan, table 1, times three for training; Porian, eq. 4).
        "full": 12 x `depth` x `context` x `width` (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).

    Returns FLOPs. Raises ValueError for other settings or where a column that a setting needs is missing.
    """
    given = {"params_nonembed": params_nonembed, "vocab": vocab, "width": width, "depth": depth, "context": context}

    def take(name, why):
        if given[name] is None:
            raise ValueError(f"train_flops with {why} needs column {name!r}")
        return given[name]

    if size == "total":
        n = params
    elif size == "nonembed":
        n = take("params_nonembed", "size='nonembed'")
    elif size == "linear":
        n = take("params_nonembed", "size='linear'") + take("vocab", "size='linear'") * take("width", "size='linear'")
    else:
        raise ValueError(f"train_flops has no size={size!r}; there are total, nonembed, linear")
    shares = {"none": 0.0, "causal": 1.0, "full": 2.0}
    if attention not in shares:
        raise ValueError(f"train_flops has no attention={attention!r}; there are none, causal, full")
    if attention != "none":
        why = f"attention={attention!r}"
        n = n + shares[attention] * take("depth", why) * take("context", why) * take("width", why)
    return 6.0 * n * tokens
