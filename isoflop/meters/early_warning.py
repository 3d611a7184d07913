import numpy as np

from isoflop import meter
from isoflop.meters._checks import numbers, setting


@meter("p_value", per="run")
def early_warning(loss, step=None, *, window=0.5, smooth=0.1, alpha=0.05, surrogates=400, seed=0):
    """tau of variance and of lag-1 autocorrelation in a sliding window, against surrogates AR(1)

    Critical slowing down before a transition: what is left of the curve after smoothing (local straight lines, Gaussian
    weights of `smooth` of its length) recovers more slowly, so that its variance and its lag-1 autocorrelation in a
    sliding window (`window` of the length) rise. Kendall's tau of each with time is compared with that of series
    without a trend: autoregressions of order 1 with the residual's own coefficient, smoothed and windowed alike.
    p_value is twice the smaller of the two p-values, at most 1; verdict "warning" where it is at most alpha.

    Returns p_value, tau_variance, tau_ar1, p_variance, p_ar1, ar1 (of the whole residual) and verdict. A quiet curve is
    no proof of safety: not all transitions slow down first, and noise alone may throw a run over the edge. Rows must be
    evenly spaced in time.

    Source: Boettiger, Ross and Hastings 2013 (arXiv 1305.6700), a review; the indicators are the usual ones. Raises
    ValueError for fewer than 50 rows, or where nothing is left after smoothing.
    """
    (values,) = numbers("early_warning", least=50, loss=loss)
    setting(
        "early_warning", 0 < window < 1 and 0 < smooth < 1, "window, smooth", "shares of the length", (window, smooth)
    )
    setting("early_warning", surrogates >= 19, "surrogates", "at least 19", surrogates)
    n = len(values)
    left = _detrended(values[:, None], smooth)
    spread = float(np.std(left))
    if spread <= 1e-12 * max(float(np.abs(values).max()), 1e-300):
        raise ValueError("early_warning: nothing is left of the curve after smoothing it; there is no noise to judge")
    phi = float(np.clip(left[1:, 0] @ left[:-1, 0] / (left[:-1, 0] @ left[:-1, 0]), -0.99, 0.99))
    fake = _ar1(phi, n, surrogates, np.random.default_rng(seed)) * spread * np.sqrt(1 - phi * phi)
    width = max(int(window * n), 10)
    seen, null = _taus(left, width), _taus(_detrended(fake, smooth), width)
    p = [float((1 + (null[k] >= seen[k] - 1e-12).sum()) / (surrogates + 1)) for k in (0, 1)]
    both = min(1.0, 2 * min(p))
    return {
        "p_value": both, "verdict": "warning" if both <= alpha else "quiet", "tau_variance": float(seen[0][0]),
        "tau_ar1": float(seen[1][0]), "p_variance": p[0], "p_ar1": p[1], "ar1": phi, "rows": n,
    }  # fmt: skip


def _detrended(x, smooth):
    """Columns less a straight line drawn locally, with Gaussian weights, at each point: unbiased at the ends too."""
    n = len(x)
    lag = np.arange(-n + 1, n) / (smooth * n)
    kernel = np.exp(-0.5 * lag**2)
    size = 2 ** int(np.ceil(np.log2(3 * n)))
    whole = np.fft.rfft(np.concatenate([x, np.ones((n, 1))], axis=1), size, axis=0)

    def moment(power):  # sums over s of (t - s)^power k(t - s) times a column; the last column gives the weights'
        k = np.fft.rfft(kernel * lag**power, size)[:, None]
        return np.fft.irfft(whole * k, size, axis=0)[n - 1 : 2 * n - 1]

    zeroth, first, second = moment(0), moment(1), moment(2)
    s0, s1, s2 = (m[:, -1:] for m in (zeroth, first, second))
    return x - (s2 * zeroth[:, :-1] - s1 * first[:, :-1]) / (s0 * s2 - s1**2)


def _ar1(phi, n, series, rng):
    """Stationary autoregressions (n, series) with unit innovations."""
    out = rng.standard_normal((n, series))
    out[0] /= np.sqrt(1 - phi * phi)
    for i in range(1, n):
        out[i] += phi * out[i - 1]
    return out


def _taus(x, width, points=40):
    """Kendall's tau with time of variance and of lag-1 autocorrelation in `points` windows, for each column."""
    ends = np.unique(np.linspace(width, len(x), points).astype(int))
    starts = ends - width
    sums = [np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(v, axis=0)]) for v in (x, x * x, x[1:] * x[:-1])]
    mean = (sums[0][ends] - sums[0][starts]) / width
    variance = (sums[1][ends] - sums[1][starts]) / width - mean**2
    cross = (sums[2][ends - 1] - sums[2][starts]) / (width - 1) - mean**2
    return [_tau(variance), _tau(cross / np.maximum(variance, 1e-300))]


def _tau(x):
    """Kendall's tau of each column with time; ties count 0."""
    first, second = np.triu_indices(len(x), 1)
    return np.sign(x[second] - x[first]).mean(axis=0)
