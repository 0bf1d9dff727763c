"""Linear maps by the faster of PyTorch's two CPU libraries: oneDNN, which it keeps for convolutions, instead of MKL.

On processors of AMD, MKL does without AVX-512 and takes about twice as long (`tests/benchmarks/bench_lockstep.py`).
"""

from torch import Tensor, nn
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `F.linear` gives, within rounding.

    Args:
        x: Shape (..., in).
        weight: Shape (out, in).
        bias: Shape (out,).

    Returns:
        Shape (..., out).
    """
    if x.device.type != "cpu":
        return F.linear(x, weight, bias)
    # Rows as the pixels of one picture, channels last: neither way copies anything.
    picture = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    rows = F.conv2d(picture, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return rows.reshape(*x.shape[:-1], -1)


class FastLinear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_fast_linear(model: nn.Module) -> None:
    """Turn all plain linear layers of a model into `FastLinear`, in place; their names and weights stay."""
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = FastLinear
