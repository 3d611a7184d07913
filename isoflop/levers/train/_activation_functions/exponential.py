"""Exponentials below zero or within."""

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.levers.train._claims import claims


@claims("monotone smooth", low=-2)
def celu(x: Tensor, *, a: float = 2.0) -> Tensor:
    """x above 0, a (exp(x / a) - 1) below. Source: arXiv:1704.07483."""
    return F.celu(x, a)


@claims("smooth", low=-0.1717)
def elish(x: Tensor) -> Tensor:
    """x sigmoid(x) above 0, (exp(x) - 1) sigmoid(x) below. Source: arXiv:1808.00783."""
    return torch.where(x > 0, x, torch.expm1(x.clamp(max=0.0))) * torch.sigmoid(x)


@claims("monotone smooth", low=-1)
def elu(x: Tensor, *, a: float = 1.0) -> Tensor:
    """x above 0, a (exp(x) - 1) below. Source: arXiv:1511.07289."""
    return F.elu(x, a)


@claims("even smooth", low=0, high=1, zero=1.0)
def exp_negative_square(x: Tensor) -> Tensor:
    """exp(-x^2). Source: Gaussian radial basis, Broomhead and Lowe 1988."""
    return torch.exp(-x * x)


@claims("monotone smooth", low=0, high=1, zero=0.36787944117144233)
def gompertz(x: Tensor) -> Tensor:
    """exp(-exp(-x)). Source: log-log link, Gomes et al. 2008."""
    return torch.exp(-torch.exp((-x).clamp(max=20.0)))


@claims("", low=-0.0997)
def hard_elish(x: Tensor) -> Tensor:
    """as elish, with min(1, max(0, (x + 1) / 2)) for the sigmoid. Source: arXiv:1808.00783."""
    return torch.where(x > 0, x, torch.expm1(x.clamp(max=0.0))) * ((x + 1) / 2).clamp(0, 1)


@claims("monotone smooth", low=-1)
def isrlu(x: Tensor, *, a: float = 1.0) -> Tensor:
    """x above 0, x / (1 + a x^2)^1/2 below. Source: arXiv:1710.09967."""
    return torch.where(x > 0, x, x * torch.rsqrt(1 + a * x * x))


@claims("monotone odd smooth", low=-1, high=1)
def isru(x: Tensor, *, a: float = 1.0) -> Tensor:
    """x / (1 + a x^2)^1/2. Source: arXiv:1710.09967."""
    return x * torch.rsqrt(1 + a * x * x)


@claims("smooth", low=-0.2528)
def logish(x: Tensor) -> Tensor:
    """x ln(1 + sigmoid(x)). Source: Zhu et al. 2021, Logish."""
    return x * torch.log1p(torch.sigmoid(x))


@claims("monotone smooth", low=0, high=1, zero=0.6321205588285577)
def loglog(x: Tensor) -> Tensor:
    """1 - exp(-exp(x)). Source: complementary log-log, Gomes et al. 2008."""
    return -torch.expm1(-torch.exp(x.clamp(max=20.0)))


@claims("monotone smooth", low=-2)
def pelu(x: Tensor, *, a: float = 2.0, b: float = 1.0) -> Tensor:
    """c x / b above 0, a (exp(x / b) - 1) below, with c = a. Source: arXiv:1605.09332, where they are learned."""
    return torch.where(x > 0, a / b * x, a * torch.expm1(x.clamp(max=0.0) / b))


@claims("monotone smooth", low=-1)
def rational_elu(x: Tensor) -> Tensor:
    """x above 0, x / (1 - x) below. Source: form from memory, of no known first use."""
    return torch.where(x > 0, x, x / (1 + x.abs()))


@claims("monotone", low=-1.7581)
def selu(x: Tensor) -> Tensor:
    """lambda x above 0, lambda alpha (exp(x) - 1) below, 1.0507 and 1.6733. Source: arXiv:1706.02515, eq. 2."""
    return F.selu(x)


@claims("monotone smooth", zero=0.1)
def soft_exponential(x: Tensor, *, a: float = 0.1) -> Tensor:
    """(exp(a x) - 1) / a + a. Source: arXiv:1602.01321, eq. 4, a > 0."""
    return torch.expm1(a * x.clamp(max=60.0)) / a + a


@claims("smooth", low=-0.3533)
def tanh_exp(x: Tensor) -> Tensor:
    """x tanh(exp(x)). Source: arXiv:2003.09855."""
    return x * torch.tanh(torch.exp(x.clamp(max=20.0)))
