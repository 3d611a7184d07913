import numpy as np

from isoflop import meter
from isoflop.meters._checks import numbers, setting


@meter("unstable_step", per="run")
def instability(step, loss, max_attention_logit, log_z, *, attention=100.0, output=20.0, rise=0.3):
    """the first step at which a watched training has gone wrong, and in what

    attention logits: max_attention_logit above `attention`, where a softmax has become one-hot (e^-100 is 0 in any
    short float). output logits: |log_z| above `output`, log Z having drifted from 0, which softmax leaves free.
    loss: more than `rise` above the lowest before it. The limits are this package's, for small models; the paper has
    1e4 for attention logits, past which its large models diverged.

    Returns unstable_step, infinite where nothing went wrong; verdict: "attention logits", "output logits" or "loss",
    whichever was first (the one named earlier here, of two at one step), or "stable"; and the step of each.

    Source: Wortsman et al. 2023 (arXiv 2309.14322), sections 3.1 and 3.4. Raises ValueError for fewer than 2 rows.
    """
    at, y, attend, z = numbers(
        "instability", least=2, step=step, loss=loss, max_attention_logit=max_attention_logit, log_z=log_z
    )
    for name, value in (("attention", attention), ("output", output), ("rise", rise)):
        setting("instability", value > 0, name, "above 0", value)
    wrong = {
        "attention logits": attend > attention,
        "output logits": np.abs(z) > output,
        "loss": y > np.minimum.accumulate(y) + rise,
    }
    first = {name: float(at[np.argmax(bad)]) if bad.any() else np.inf for name, bad in wrong.items()}
    earliest = min(first, key=first.__getitem__)
    return {
        "unstable_step": first[earliest], "verdict": earliest if np.isfinite(first[earliest]) else "stable",
        "attention_step": first["attention logits"], "output_step": first["output logits"], "loss_step": first["loss"],
    }  # fmt: skip
