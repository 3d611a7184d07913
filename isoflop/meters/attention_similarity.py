import numpy as np

from isoflop import meter
from isoflop.meters._checks import matrix, numbers


@meter("similarity", per="run", stack=("trivial",))
def attention_similarity(model, human, trivial=None):
    """correlation of model and human after both are regressed on the trivial patterns

    How far a model's attention from word to word goes the way of human eyes (a row a pair of words), beyond what needs
    no language: trivial_1, trivial_2, ... are patterns such as attention to the first word, to itself, to the word
    before. raw is the plain correlation; trivial_share the share of the model's variance that the trivial patterns
    explain.

    Source: Gao et al. 2023 (Roles of Scaling and Instruction Tuning in Language Perception, arXiv 2310.19084, its
    number from memory): the question; the partial correlation is this package's form. Raises ValueError where nothing
    is left of model or human beside the trivial patterns.
    """
    y, z = numbers("attention_similarity", least=4, model=model, human=human)
    x = np.ones((len(y), 1))
    if trivial is not None:
        x = np.hstack([x, matrix("attention_similarity", trivial=trivial)[0]])
    centred = [v - v.mean() for v in (y, z)]
    left = [v - x @ np.linalg.lstsq(x, v, rcond=None)[0] for v in (y, z)]
    sizes = [float(v @ v) for v in left]
    if min(s / max(float(c @ c), 1e-300) for s, c in zip(sizes, centred, strict=True)) < 1e-12:
        raise ValueError("attention_similarity: the trivial patterns explain model or human altogether")
    raw = float(centred[0] @ centred[1] / np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return {"similarity": float(left[0] @ left[1] / np.sqrt(sizes[0] * sizes[1])), "raw": raw,
            "trivial_share": 1.0 - sizes[0] / float(centred[0] @ centred[0]), "rows": len(y)}  # fmt: skip
