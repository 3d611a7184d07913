import numpy as np

from isoflop import meter
from isoflop.meters._checks import level_setting, positive, setting, t_of


@meter("noise_scale", per="run")
def gradient_noise_scale(
    grad_sq_small, grad_sq_big, batch_small, batch_big, step=None, *, decay=0.99, level=90.0
):  # fmt: skip
    """B_simple = tr(Sigma) / |G|^2

    The batch size at which the gradient's noise is as large as the gradient, from the squared norms of two gradients of
    one step, over `batch_small` and over `batch_big` examples (any unit of batch; the answer is in it):

        |G|^2 = (B_big g_big - B_small g_small) / (B_big - B_small),
        tr(Sigma) = (g_small - g_big) / (1 / B_small - 1 / B_big).

    Both are unbiased and averaged over the steps before one is divided by the other: noise_scale over all steps, with
    Fieller's interval; latest by running means with `decay` a step. Norms of micro-batches:
    a row each with its own grad_sq_small and, repeated, its step's grad_sq_big; rows of one `step` are averaged.
    extra_examples and extra_steps: what the last batch_big costs over the least possible of each, noise_scale taken as
    the critical batch of (S / S_min - 1)(E / E_min - 1) = 1. verdict: "measured", or "lost in noise" where |G|^2 may be
    0 at this level; high is then infinite, and noise_scale too where the mean of |G|^2 is not above 0.

    Source: McCandlish et al. 2018 (arXiv 1812.06162), sections 2.2 and 2.3, appendix A.1; the interval is this
    package's. Raises ValueError where batch_small is not below batch_big, or for fewer than 2 steps.
    """
    small, big, b_small, b_big = positive(
        "gradient_noise_scale", least=2, grad_sq_small=grad_sq_small, grad_sq_big=grad_sq_big,
        batch_small=batch_small, batch_big=batch_big,
    )  # fmt: skip
    if not (b_small < b_big).all():
        raise ValueError("gradient_noise_scale needs batch_small below batch_big in every row")
    level_setting("gradient_noise_scale", level)
    setting("gradient_noise_scale", 0 <= decay < 1, "decay", "from 0 to below 1", decay)
    signal = (b_big * big - b_small * small) / (b_big - b_small)
    noise = (small - big) / (1 / b_small - 1 / b_big)
    signal, noise = _by_step(np.stack([signal, noise]), step)
    if len(signal) < 2:
        raise ValueError("gradient_noise_scale needs at least 2 steps, got 1")
    scale, low, high = _interval(noise, signal, level)
    recent = decay ** np.arange(len(signal) - 1, -1, -1.0)
    batch = float(b_big[-1])
    return {
        "noise_scale": scale, "low": low, "high": high, "latest": _ratio(recent @ noise, recent @ signal),
        "noise": float(noise.mean()), "signal": float(signal.mean()), "steps": len(signal),
        "extra_examples": batch / scale if scale > 0 else np.inf, "extra_steps": scale / batch,
        "verdict": "measured" if np.isfinite(high) else "lost in noise",
    }  # fmt: skip


def _ratio(noise, signal):
    """Noise below 0 is none; without a gradient above 0 the ratio has no end."""
    return max(float(noise), 0.0) / float(signal) if signal > 0 else np.inf


def _by_step(values, step):
    """Means of columns (2, rows) over the rows of each step, in the order of the steps."""
    if step is None:
        return values
    group = np.unique(np.asarray(step, float), return_inverse=True)[1]
    return np.stack([np.bincount(group, v) / np.bincount(group) for v in values])


def _interval(noise, signal, level):
    """Fieller's interval of the ratio of two means: all r with |mean(noise - r signal)| within t standard errors.

    Steps may be alike up to n^(1/3) apart (Bartlett's weights). The upper end is infinite where mean(signal) may be 0.
    """
    n = len(signal)
    t2 = t_of(level, n - 1) ** 2
    centred = np.stack([noise - noise.mean(), signal - signal.mean()])
    spread = centred @ centred.T / (n - 1)
    for lag in range(1, round(n ** (1 / 3))):
        cross = centred[:, lag:] @ centred[:, :-lag].T / (n - 1)
        spread += (1 - lag / round(n ** (1 / 3))) * (cross + cross.T)
    spread *= t2 / n
    a = signal.mean() ** 2 - spread[1, 1]
    b = noise.mean() * signal.mean() - spread[0, 1]
    root = np.sqrt(max(b * b - a * (noise.mean() ** 2 - spread[0, 0]), 0.0))
    if a <= 0 or signal.mean() <= 0:
        return _ratio(noise.mean(), signal.mean()), 0.0, np.inf
    return _ratio(noise.mean(), signal.mean()), max(float((b - root) / a), 0.0), max(float((b + root) / a), 0.0)
