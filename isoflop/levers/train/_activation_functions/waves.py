"""Waves, bumps and powers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.levers.train._claims import claims


@claims("even smooth", low=0, high=1, zero=1.0)
def cauchy(x: Tensor) -> Tensor:
    """1 / (1 + x^2). Source: radial basis; form from memory."""
    return 1 / (1 + x * x)


@claims("even smooth", low=-1, high=1, zero=1.0)
def cosine(x: Tensor) -> Tensor:
    """cos(x). Source: Rahimi and Recht 2007, Fourier features without phase."""
    return torch.cos(x)


@claims("monotone odd smooth")
def cubic(x: Tensor) -> Tensor:
    """x^3. Source: Chen and Manning 2014."""
    return x**3


@claims("odd smooth")
def dsu(x: Tensor) -> Tensor:
    """pi / 2 (sinc(x - pi) - sinc(x + pi)). Source: decaying sine unit, arXiv:2108.12943."""
    return torch.pi / 2 * (torch.sinc(x / torch.pi - 1) - torch.sinc(x / torch.pi + 1))


@claims("odd smooth", low=-0.6066, high=0.6066)
def gaussian_slope(x: Tensor) -> Tensor:
    """x exp(-x^2 / 2). Source: Zhang and Benveniste 1992, wavelet networks."""
    return x * torch.exp(-x * x / 2)


@claims("odd smooth")
def gcu(x: Tensor) -> Tensor:
    """x cos(x). Source: arXiv:2108.12943."""
    return x * torch.cos(x)


@claims("even smooth", low=0, high=1, zero=1.0)
def inverse_multiquadric(x: Tensor) -> Tensor:
    """(1 + x^2)^-1/2. Source: Hardy 1971, radial basis."""
    return torch.rsqrt(1 + x * x)


@claims("even smooth", low=-0.4463, high=1, zero=1.0)
def mexican_hat(x: Tensor) -> Tensor:
    """(1 - x^2) exp(-x^2 / 2). Source: Zhang and Benveniste 1992, wavelet networks."""
    return (1 - x * x) * torch.exp(-x * x / 2)


@claims("even smooth", low=-0.8272, high=1, zero=1.0)
def morlet(x: Tensor) -> Tensor:
    """cos(5 x) exp(-x^2 / 2). Source: Zhang and Benveniste 1992, wavelet networks."""
    return torch.cos(5 * x) * torch.exp(-x * x / 2)


@claims("even smooth", low=1, zero=1.0)
def multiquadric(x: Tensor) -> Tensor:
    """(1 + x^2)^1/2. Source: Hardy 1971, radial basis."""
    return torch.sqrt(1 + x * x)


@claims("even smooth", low=0)
def quadratic(x: Tensor) -> Tensor:
    """x^2. Source: Livni et al. 2014."""
    return x * x


@claims("even smooth", low=0, high=1, zero=1.0)
def sech(x: Tensor) -> Tensor:
    """1 / cosh(x). Source: hyperbolic secant; form from memory."""
    return 2 / (torch.exp(x.clamp(-50, 50)) + torch.exp(-x.clamp(-50, 50)))


@claims("even smooth", low=-0.2173, high=1, zero=1.0)
def sinc(x: Tensor) -> Tensor:
    """sin(x) / x. Source: Parascandolo et al. 2016; form unverified."""
    return torch.sinc(x / torch.pi)


@claims("odd smooth", low=-1, high=1)
def sine(x: Tensor) -> Tensor:
    """sin(x). Source: arXiv:2006.09661, with omega 1."""
    return torch.sin(x)


@claims("monotone smooth")
def snake(x: Tensor, *, a: float = 1.0) -> Tensor:
    """x + sin(a x)^2 / a. Source: arXiv:2006.08195."""
    return x + torch.sin(a * x) ** 2 / a


@claims("smooth")
def ssu(x: Tensor) -> Tensor:
    """pi sinc(x - pi). Source: shifted sinc unit, arXiv:2108.12943."""
    return torch.pi * torch.sinc(x / torch.pi - 1)


@claims("even", low=0, high=1, zero=1.0)
def triangle(x: Tensor) -> Tensor:
    """max(0, 1 - |x|). Source: hat function, linear finite elements."""
    return F.relu(1 - x.abs())


@claims("monotone odd smooth", low=-1, high=1)
def truncated_sine(x: Tensor) -> Tensor:
    """sin(x) within [-pi / 2, pi / 2], else its ends. Source: Parascandolo et al. 2016; form unverified."""
    return torch.sin(x.clamp(-torch.pi / 2, torch.pi / 2))


@claims("monotone odd smooth")
def x_plus_sin(x: Tensor) -> Tensor:
    """x + sin(x). Source: arXiv:2006.08195."""
    return x + torch.sin(x)
