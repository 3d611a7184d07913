"""x times something between 0 and 1, or nearly."""

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.levers.train._claims import claims


@claims("smooth", low=-0.3481)
def eswish(x: Tensor, *, b: float = 1.25) -> Tensor:
    """b x sigmoid(x). Source: arXiv:1801.07145."""
    return b * F.silu(x)


@claims("monotone", low=-0.2, zero=-0.2)
def flatten_swish(x: Tensor, *, t: float = -0.2) -> Tensor:
    """max(0, x) sigmoid(x) + t. Source: arXiv:1812.06247, t = -0.2."""
    return F.relu(x) * torch.sigmoid(x) + t


@claims("smooth", low=-0.17)
def gelu(x: Tensor) -> Tensor:
    """x Phi(x). Source: arXiv:1606.08415."""
    return F.gelu(x)


@claims("even smooth", low=0)
def gelu_symmetric(x: Tensor) -> Tensor:
    """x erf(x). Source: symmetrical GELU, arXiv:1911.03925."""
    return x * torch.erf(x)


@claims("smooth", low=-0.1701)
def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh((2 / pi)^1/2 (x + 0.044715 x^3))) / 2. Source: arXiv:1606.08415."""
    return F.gelu(x, approximate="tanh")


@claims("smooth", low=-0.0973)
def golu(x: Tensor) -> Tensor:
    """x exp(-exp(-x)). Source: arXiv:2502.03654."""
    return x * torch.exp(-torch.exp((-x).clamp(max=20.0)))


@claims("", low=-0.375)
def hard_swish(x: Tensor) -> Tensor:
    """x min(6, max(0, x + 3)) / 6. Source: arXiv:1905.02244."""
    return F.hardswish(x)


@claims("smooth", low=-0.3089)
def mish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + exp(x))). Source: arXiv:1908.08681."""
    return F.mish(x)


@claims("smooth", low=0)
def phish(x: Tensor) -> Tensor:
    """x tanh(gelu(x)). Source: Naveen 2022, Phish."""
    return x * torch.tanh(F.gelu(x))


@claims("smooth", low=-0.1637)
def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x). Source: arXiv:1606.08415."""
    return x * torch.sigmoid(1.702 * x)


@claims("smooth", low=-0.3484)
def serf(x: Tensor) -> Tensor:
    """x erf(ln(1 + exp(x))). Source: arXiv:2108.09598."""
    return x * torch.erf(F.softplus(x))


@claims("smooth", low=-0.2785)
def silu(x: Tensor) -> Tensor:
    """x sigmoid(x). Source: arXiv:1702.03118; arXiv:1606.08415."""
    return F.silu(x)


@claims("smooth", low=-0.25)
def smish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + sigmoid(x))). Source: Wang et al. 2022, Smish."""
    return x * torch.tanh(torch.log1p(torch.sigmoid(x)))


@claims("smooth", low=-0.1393)
def stanhplus(x: Tensor) -> Tensor:
    """x (1 + tanh(x)) / 2: silu of 2x, halved. Source: arXiv:1710.05941, b = 2."""
    return 0.5 * x * (1 + torch.tanh(x))


@claims("monotone smooth", low=-0.4472, zero=-0.4472)
def star_relu(x: Tensor) -> Tensor:
    """s max(0, x)^2 + b, 0.8944 and -0.4472. Source: arXiv:2210.13452."""
    return 0.8944 * F.relu(x).square() - 0.4472


@claims("smooth", low=-0.1857)
def swish(x: Tensor, *, b: float = 1.5) -> Tensor:
    """x sigmoid(b x), the fixed b of the paper's search. Source: arXiv:1710.05941."""
    return x * torch.sigmoid(b * x)


@claims("rowwise")
def velu(x: Tensor, *, size: Tensor | float | None = None) -> Tensor:
    """x sigmoid(0.1 (atan(x / 10) + asin(clip(x / 10)))) (1 + 0.1 tanh(0.9 / size)): near x / 2 where |x| < 10.

    size: RMS of x over its last axis where none is given. The clip is a millionth short of [-1, 1], where the slope
    of asin is infinite.
    Source: arXiv:2504.15051; form and defaults of the authors' released notebook (AshkanShakarami/VeLU), whose
    learned factor, 1 at the start, is left out, as is its penalty, 0.1 (mean^2 + (deviation - 1)^2) of what leaves.
    """
    size = x.square().mean(dim=-1, keepdim=True).sqrt() if size is None else torch.as_tensor(size, dtype=x.dtype)
    mix = torch.atan(0.1 * x) + torch.asin((0.1 * x).clamp(1e-6 - 1, 1 - 1e-6))
    return x * torch.sigmoid(0.1 * mix) * (1 + 0.1 * torch.tanh(0.9 / (size + 1e-12)))


@claims("smooth", low=-0.3184)
def xiphi_arctan(x: Tensor) -> Tensor:
    """x (atan(x) + pi / 2) / pi. Source: arXiv:2405.20768 (xATLU without its parameter)."""
    return x * (torch.atan(x) + torch.pi / 2) / torch.pi
