"""From one level to another."""

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.levers.train._claims import claims


@claims("monotone odd smooth")
def arcsinh(x: Tensor) -> Tensor:
    """asinh(x). Source: arXiv:1910.09293; form unverified."""
    return torch.asinh(x)


@claims("monotone odd smooth", low=-1.5708, high=1.5708)
def arctan(x: Tensor) -> Tensor:
    """atan(x). Source: Campbell et al. 1999; form unverified."""
    return torch.atan(x)


@claims("monotone odd smooth", low=-1, high=1)
def bipolar_sigmoid(x: Tensor) -> Tensor:
    """2 sigmoid(x) - 1. Source: the logistic function, shifted."""
    return 2 * torch.sigmoid(x) - 1


@claims("monotone smooth", low=-1, high=1, zero=0.006829392417)
def cloglogm(x: Tensor) -> Tensor:
    """1 - 2 exp(-0.7 exp(x)). Source: Gomes et al. 2008."""
    return 1 - 2 * torch.exp(-0.7 * torch.exp(x.clamp(max=20.0)))


@claims("smooth", low=-0.0999, high=1.0999, zero=0.5)
def dsilu(x: Tensor) -> Tensor:
    """sigmoid(x) (1 + x (1 - sigmoid(x))). Source: arXiv:1702.03118, the derivative of silu."""
    return torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))


@claims("monotone smooth", low=0, high=1, zero=0.5)
def elliott(x: Tensor) -> Tensor:
    """(1 + x / (1 + |x|)) / 2. Source: Elliott 1993."""
    return 0.5 + 0.5 * F.softsign(x)


@claims("monotone odd smooth", low=-1, high=1)
def erf_unit(x: Tensor) -> Tensor:
    """erf(x). Source: Williams 1996, infinite networks."""
    return torch.erf(x)


@claims("monotone odd smooth", low=-1.5708, high=1.5708)
def gudermannian(x: Tensor) -> Tensor:
    """2 atan(tanh(x / 2)). Source: Gudermann 1830; form unverified as an activation."""
    return 2 * torch.atan(torch.tanh(x / 2))


@claims("monotone", low=0, high=1, zero=0.5)
def hard_sigmoid(x: Tensor) -> Tensor:
    """min(1, max(0, x / 6 + 1 / 2)). Source: arXiv:1511.00363, with the slope of common libraries."""
    return F.hardsigmoid(x)


@claims("monotone step", low=0, high=1, zero=0.5)
def heaviside(x: Tensor) -> Tensor:
    """1 above 0, 1/2 at it, 0 below. Source: McCulloch and Pitts 1943."""
    return 0.5 + 0.5 * torch.sign(x)


@claims("monotone odd smooth", low=-1.7159, high=1.7159)
def lecun_tanh(x: Tensor) -> Tensor:
    """1.7159 tanh(2 x / 3). Source: LeCun et al. 1998, Efficient BackProp."""
    return 1.7159 * torch.tanh(2 / 3 * x)


@claims("monotone smooth", high=0, zero=-0.6931471805599453)
def log_sigmoid(x: Tensor) -> Tensor:
    """ln sigmoid(x). Source: the logistic likelihood."""
    return F.logsigmoid(x)


@claims("monotone smooth", low=0, high=1, zero=0.5)
def normal_cdf(x: Tensor) -> Tensor:
    """Phi(x), the normal distribution function. Source: probit link."""
    return 0.5 * torch.erfc(-x / 2**0.5)


@claims("monotone", low=-0.25, high=1)
def penalized_tanh(x: Tensor, *, a: float = 0.25) -> Tensor:
    """tanh(x) above 0, a tanh(x) below. Source: arXiv:1602.05980."""
    return torch.where(x > 0, 1.0, a) * torch.tanh(x)


@claims("monotone odd smooth", low=-1, high=1)
def rootsig(x: Tensor, *, a: float = 1.0) -> Tensor:
    """a x / (1 + (1 + a^2 x^2)^1/2). Source: rootsig; form unverified."""
    return a * x / (1 + torch.sqrt(1 + (a * x) ** 2))


@claims("monotone smooth", low=0, high=1, zero=0.673041)
def serf_gate(x: Tensor) -> Tensor:
    """erf(ln(1 + exp(x))): the gate of serf. Source: arXiv:2108.09598."""
    return torch.erf(F.softplus(x))


@claims("monotone smooth", low=0, high=1, zero=0.5)
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)). Source: the logistic function, Verhulst 1845."""
    return torch.sigmoid(x)


@claims("monotone odd step", low=-1, high=1)
def sign(x: Tensor) -> Tensor:
    """-1, 0, 1. Source: Rosenblatt 1958, symmetric."""
    return torch.sign(x)


@claims("monotone odd smooth", low=-1, high=1)
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|). Source: Bergstra et al. 2009."""
    return F.softsign(x)


@claims("monotone odd smooth", low=-1, high=1)
def sqnl(x: Tensor) -> Tensor:
    """x - sign(x) x^2 / 4 within [-2, 2], else sign(x). Source: Wuraola and Patel 2018."""
    return x.clamp(-2, 2) * (1 - x.clamp(-2, 2).abs() / 4)


@claims("monotone odd smooth", low=-1, high=1)
def squash(x: Tensor) -> Tensor:
    """x |x| / (1 + x^2): one coordinate of the capsules' squash. Source: arXiv:1710.09829, eq. 1."""
    return x * x.abs() / (1 + x * x)


@claims("monotone odd smooth")
def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|). Source: arXiv:2301.04104."""
    return torch.sign(x) * torch.log1p(x.abs())


@claims("monotone odd smooth", low=-1, high=1)
def tanh(x: Tensor) -> Tensor:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)). Source: LeCun et al. 1989."""
    return torch.tanh(x)


@claims("monotone odd smooth")
def tanh_shrink(x: Tensor) -> Tensor:
    """x - tanh(x). Source: PyTorch, of no known first use."""
    return F.tanhshrink(x)
