"""Linear, or a power, above zero."""

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.levers.train._claims import claims


@claims("even", low=0)
def absolute(x: Tensor) -> Tensor:
    """|x|. Source: absolute value rectification, Jarrett et al. 2009."""
    return x.abs()


@claims("monotone smooth")
def bent_identity(x: Tensor) -> Tensor:
    """((x^2 + 1)^1/2 - 1) / 2 + x. Source: form from memory, of no known first use."""
    return 0.5 * (torch.sqrt(x * x + 1) - 1) + x


@claims("monotone", low=0, high=1)
def brelu(x: Tensor, *, a: float = 1.0) -> Tensor:
    """min(max(0, x), a). Source: bounded ReLU, arXiv:1504.04658."""
    return x.clamp(0, a)


@claims("monotone", low=-0.05)
def displaced_relu(x: Tensor, *, d: float = 0.05) -> Tensor:
    """max(-d, x). Source: DReLU; form unverified."""
    return x.clamp(min=-d)


@claims("monotone odd step")
def hard_shrink(x: Tensor, *, a: float = 0.5) -> Tensor:
    """x where |x| > a, else 0. Source: Donoho and Johnstone 1994."""
    return F.hardshrink(x, a)


@claims("monotone odd", low=-1, high=1)
def hard_tanh(x: Tensor) -> Tensor:
    """x within [-1, 1], else the nearer end. Source: Collobert 2004."""
    return F.hardtanh(x)


@claims("monotone odd smooth")
def identity(x: Tensor) -> Tensor:
    """x. Source: the linear unit."""
    return x


@claims("monotone")
def leaky_relu(x: Tensor, *, a: float = 0.01) -> Tensor:
    """x above 0, a x below. Source: Maas et al. 2013."""
    return F.leaky_relu(x, a)


@claims("smooth", low=0)
def leaky_relu_squared(x: Tensor, *, a: float = 0.5) -> Tensor:
    """leaky_relu(x, a)^2. Source: used in public speed runs of small transformers; form unverified."""
    return F.leaky_relu(x, a) ** 2


@claims("even smooth", low=0)
def lisht(x: Tensor) -> Tensor:
    """x tanh(x). Source: arXiv:1901.05894."""
    return x * torch.tanh(x)


@claims("monotone", low=0)
def nlrelu(x: Tensor, *, b: float = 1.0) -> Tensor:
    """ln(1 + b max(0, x)). Source: natural logarithm ReLU, arXiv:1908.03682."""
    return torch.log1p(b * F.relu(x))


@claims("monotone", low=0)
def relu(x: Tensor) -> Tensor:
    """max(0, x). Source: Nair and Hinton 2010."""
    return F.relu(x)


@claims("monotone", low=0, high=6)
def relu6(x: Tensor) -> Tensor:
    """min(max(0, x), 6). Source: Krizhevsky 2010, CIFAR-10 technical report."""
    return F.relu6(x)


@claims("monotone smooth", low=0)
def relu_cubed(x: Tensor) -> Tensor:
    """max(0, x)^3. Source: rectified power units, arXiv:1909.05136."""
    return F.relu(x) ** 3


@claims("monotone smooth", low=0)
def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)^2. Source: Primer, arXiv:2109.08668."""
    return F.relu(x).square()


@claims("monotone")
def rrelu_mean(x: Tensor) -> Tensor:
    """x above 0, below x / 5.5, the mean slope in use. Source: RReLU, arXiv:1505.00853."""
    return F.leaky_relu(x, 1 / 5.5)


@claims("monotone", low=-1)
def shifted_relu(x: Tensor) -> Tensor:
    """max(-1, x). Source: arXiv:1511.07289, a comparison there."""
    return x.clamp(min=-1.0)


@claims("monotone smooth", low=-0.6931471805599453)
def shifted_softplus(x: Tensor) -> Tensor:
    """ln(1/2 + exp(x)/2). Source: SchNet, arXiv:1706.08566."""
    return F.softplus(x) - 0.6931471805599453


@claims("monotone smooth", low=0, zero=0.25)
def smelu(x: Tensor, *, b: float = 1.0) -> Tensor:
    """0 below -b, x above b, (x + b)^2 / (4 b) between. Source: arXiv:2202.06499."""
    return torch.where(x.abs() <= b, (x + b) ** 2 / (4 * b), F.relu(x))


@claims("monotone odd")
def soft_shrink(x: Tensor, *, a: float = 0.5) -> Tensor:
    """sign(x) max(|x| - a, 0). Source: Donoho and Johnstone 1994."""
    return F.softshrink(x, a)


@claims("monotone smooth", low=0, zero=0.6931471805599453)
def softplus(x: Tensor) -> Tensor:
    """ln(1 + exp(x)). Source: Dugas et al. 2001."""
    return F.softplus(x)


@claims("monotone smooth", low=0, zero=1.0)
def squareplus(x: Tensor, *, b: float = 4.0) -> Tensor:
    """(x + (x^2 + b)^1/2) / 2. Source: arXiv:2112.11687."""
    return 0.5 * (x + torch.sqrt(x * x + b))


@claims("monotone step", low=0)
def thresholded_relu(x: Tensor, *, theta: float = 1.0) -> Tensor:
    """x where x > theta, else 0. Source: arXiv:1402.3337."""
    return torch.where(x > theta, x, 0.0)


@claims("monotone")
def very_leaky_relu(x: Tensor, *, a: float = 1 / 3) -> Tensor:
    """x above 0, a x below, a = 1/3. Source: Graham 2014 (arXiv:1409.6070)."""
    return F.leaky_relu(x, a)
