import numpy as np

from isoflop import meter
from isoflop.meters._checks import numbers, setting


@meter("drift", per="run")
def drift(loss, step=None, *, shift=1.0, alpha=0.05, degree=2, horizon=None, window=1000):
    """log LR(s) += shift g (z - shift g / 2) for each start s; drift where any reaches ln(2 horizon / alpha)

    Whether a streaming metric has left its course. z: the error of a forecast one row ahead over its standard error,
    the forecast being a polynomial of `degree` in log step through all rows so far; g: what a rise by one standard
    deviation at row s does to z, less and less as the forecast learns it. As long as the course is such a curve and the
    noise is independent and normal, z are independent standard normals. A sequential probability ratio test of a rise,
    and one of a fall, by `shift` standard deviations begins at every row and goes on for `window` rows; it has no lower
    bound, as "no drift" is never the last word. alpha: the chance of any alarm in `horizon` rows without drift (by
    default the rows there are), by Ville's inequality and the sum over the tests.

    Returns drift ("none", "rise", "fall"), at: the step of the first alarm, since: where the shift seems to have begun,
    and size: the shift in standard deviations. Give the rows behind the first steep fall, which no such curve follows;
    dependent noise (an averaged loss) raises more alarms than alpha.

    Source: Wald's sequential test, as in the drift monitor of the catalogue's entry `htm_sprt_drift` (from its
    abstract). There a hierarchical temporal memory (HTM) makes the errors; the polynomial stands here in its place.
    Raises ValueError for fewer than 20 rows, or a step below 0.
    """
    (values,) = numbers("drift", least=20, loss=loss)
    place = np.arange(len(values)) if step is None else numbers("drift", step=step)[0]
    setting("drift", shift > 0, "shift", "above 0, in standard deviations", shift)
    setting("drift", 0 < alpha < 1, "alpha", "between 0 and 1", alpha)
    setting("drift", degree in (0, 1, 2), "degree", "0, 1 or 2", degree)
    setting("drift", bool((place >= 0).all()), "step", "0 or more", place.min())
    setting("drift", window >= 10 and (horizon is None or horizon >= 1), "window, horizon", "10 and 1 at least", window)
    terms = np.vander(_unit(np.log1p(place)), degree + 1, increasing=True)
    bound = float(np.log(2 * (horizon or len(values)) / alpha))
    found = _watch(values, terms, shift, bound, window)
    if found is None:
        return {"drift": "none", "at": np.nan, "since": np.nan, "size": 0.0, "rows": len(values)}
    at, since, size = found
    return {"drift": "rise" if size > 0 else "fall", "at": float(place[at]), "since": float(place[since]), "size": size,
            "rows": len(values)}  # fmt: skip


def _unit(x):
    """x moved and scaled to lie from -1 to 1, so that its powers are about as large."""
    half = (x.max() - x.min()) / 2
    return (x - x.min()) / half - 1 if half > 0 else np.zeros_like(x)


def _watch(values, terms, shift, bound, window):
    """Row of the first alarm, row at which its shift began and the size of that; None where there is no alarm."""
    first = 2 * terms.shape[1] + 4
    course = _Course(terms[:first], values[:first], len(values))
    up, down, heard, weight = (np.zeros(len(values)) for _ in range(4))
    for row in range(first, len(values)):
        alive = slice(max(first, row - window + 1), row + 1)
        z, g = course.hear(terms[row], values[row], alive)
        up[alive] += shift * g * (z - shift * g / 2)
        down[alive] += shift * g * (-z - shift * g / 2)
        heard[alive] += g * z
        weight[alive] += g * g
        top = np.maximum(up[alive], down[alive])
        if (best := int(np.argmax(top))) >= 0 and top[best] >= bound:
            since = alive.start + best
            return row, since, float(heard[since] / weight[since])
    return None


class _Course:
    """Least squares on some rows, then row by row: the error of each forecast, and what a step at row s does to it."""

    def __init__(self, terms, values, rows):
        self.spread = np.linalg.pinv(terms.T @ terms)
        self.curve = self.spread @ (terms.T @ values)
        self.steps = np.zeros((rows, terms.shape[1]))
        left = values - terms @ self.curve
        self.free = float(len(values) - np.linalg.matrix_rank(terms))
        self.squares = max(float(left @ left), 1e-24 * max(float(values @ values), 1e-300))

    def hear(self, term, value, alive):
        """The row's error as a normal deviate, and the response of it to a step of one standard deviation."""
        gain = self.spread @ term
        more = 1.0 + float(term @ gain)
        error = (value - float(term @ self.curve)) / more**0.5
        response = (1.0 - self.steps[alive] @ term) / more**0.5
        scatter = (self.squares / self.free) ** 0.5
        t = error / scatter
        self.curve = self.curve + gain * error / more**0.5
        self.steps[alive] += response[:, None] * gain / more**0.5
        self.spread = self.spread - np.outer(gain, gain) / more
        z = np.sign(t) * np.sqrt((self.free - 0.5) * np.log1p(t * t / self.free))  # Student's t made normal
        self.squares += min(error**2, 9.0 * scatter**2)  # a shift should not pass for noise
        self.free += 1.0
        return float(z), response
