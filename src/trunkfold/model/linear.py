"""Linear layers with the faster of PyTorch's two CPU libraries.

This is MKL, except on AMD processors with AVX-512: MKL does not use AVX-512 there and may take twice as long as oneDNN,
which PyTorch uses for convolutions. On AMD processors without it, oneDNN may take four times as long as MKL.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, register_flop_formula

ONEDNN = torch.ops.aten.mkldnn_convolution


def _is_amd_with_avx512() -> bool:
    try:
        about = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in about and "avx512f" in about


BY_CONVOLUTION = _is_amd_with_avx512()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `F.linear` of x (..., in), weight (out, in) and bias (out,), up to rounding: shape (..., out)."""
    if not _convolve(x, weight):
        return F.linear(x, weight, bias)
    # Rows become pixels of one channels-last image, without copies.
    picture = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    rows = _pointwise(picture, weight, bias).permute(0, 2, 3, 1)
    return rows.reshape(*x.shape[:-1], -1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Compute `a @ b` of matrices, up to rounding, without the copy of b that `linear(a, b.T)` would make."""
    if not _convolve(a, b):
        return a @ b
    return _pointwise(b.reshape(1, len(b), -1, 1), a, None)[0, :, :, 0]


def _convolve(x: Tensor, weight: Tensor) -> bool:
    if not BY_CONVOLUTION or torch.compiler.is_compiling():  # exported graphs must not depend on oneDNN
        return False
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and not torch.is_autocast_enabled("cpu")


def _pointwise(picture: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # With one thread, F.conv2d would use MKL.
    return ONEDNN(picture, weight[:, :, None, None], bias, (0, 0), (1, 1), (1, 1), 1)


def _operations(_: list[int], weight: list[int], *__: object, out_shape: list[int], **___: object) -> int:
    """Return the operations of a convolution, from the shapes of its weight and result."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


if ONEDNN not in flop_registry:  # PyTorch's counter of operations would count 0, so a tail would not be worth a thread
    register_flop_formula(ONEDNN)(_operations)


class FastLinear(nn.Linear):
    """`nn.Linear` computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_fast_linear(model: nn.Module) -> None:
    """Convert all plain linear layers of a model to `FastLinear`, in place."""
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = FastLinear
