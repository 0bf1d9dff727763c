"""Depthwise convolutions with faster gradients on a CPU.

For 768 channels and 16 maps of 7 x 7, oneDNN's forward pass takes 0.7 ms, but its kernel gradient 27 + 9 ms. Here, one
matrix product per kernel row correlates all pairs of columns, and pairs at the same distance are summed to one weight,
which takes 4.5 ms. Training uses float32 also with bf16, in which oneDNN's gradients take four times as long.
"""

import functools

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

WIDEST = 16  # columns; the number of pairs grows quadratically, and oneDNN is faster for wider maps


class _FastTraining:
    """Training in float32 with faster gradients, mixed into depthwise convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps of shape (batch, channels, height, width)."""
        if x.device.type != "cpu" or not self.weight.requires_grad or not torch.is_grad_enabled():
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            if _is_plain(self) and x.shape[-1] <= WIDEST:
                return _Depthwise.apply(x.float(), self.weight, self.bias)
            return super().forward(x.float())


class FastDepthwise(_FastTraining, nn.Conv2d):
    """A depthwise `nn.Conv2d`."""


class FastDepthwiseSame(_FastTraining, Conv2dSame):
    """A depthwise convolution with TensorFlow's padding."""


def use_fast_depthwise(model: nn.Module) -> None:
    """Convert depthwise convolutions of a model in place, keeping names and weights."""
    for layer in model.modules():
        if type(layer) in (nn.Conv2d, Conv2dSame) and layer.groups == layer.in_channels == layer.out_channels:
            layer.__class__ = FastDepthwiseSame if type(layer) is Conv2dSame else FastDepthwise


def kernel_gradient(x: Tensor, grad: Tensor, size: int) -> Tensor:
    """Compute the gradient of a depthwise convolution's kernels: shape (channels, 1, size, size).

    Args:
        x: Input of the convolution, of shape (batch, channels, height, width).
        grad: Gradient of its output, of the same shape.
        size: Side of a kernel, odd.
    """
    batch, channels, height, width = x.shape
    padded = x.new_zeros(channels, height + size - 1, batch, width)
    padded[:, size // 2 : size // 2 + height] = x.permute(1, 2, 0, 3)
    columns = grad.permute(1, 2, 0, 3).reshape(channels, height * batch, width).transpose(1, 2)
    pairs = (
        torch.bmm(columns, padded[:, row : row + height].reshape(channels, height * batch, width))
        for row in range(size)
    )
    apart = _distances(width, size).to(x)
    return torch.stack([of_row.flatten(1) @ apart for of_row in pairs], 1)[:, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):  # noqa: ANN001, ANN205
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        x, weight = ctx.saved_tensors
        size, channels = weight.shape[-1], len(weight)
        needs_x, _, needs_bias = ctx.needs_input_grad
        of_x = None
        if needs_x:  # with stride 1 and odd kernels: the same convolution with flipped kernels
            of_x = F.conv2d(grad, weight.flip(2, 3), padding=size // 2, groups=channels)
        return of_x, kernel_gradient(x, grad, size), grad.sum((0, 2, 3)) if needs_bias else None


@functools.cache
def _distances(width: int, size: int) -> Tensor:
    """Return the mask of column pairs at each distance in a kernel's row: 0 and 1, of shape (width x width, size)."""
    column = torch.arange(width)
    distance = column[None] - column[:, None] + size // 2
    return F.one_hot(distance.flatten().clamp(-1, size) + 1, size + 2)[:, 1:-1].float()


def _is_plain(layer: nn.Conv2d) -> bool:
    """Return whether a convolution has stride 1 and pads its maps to keep their size."""
    size = layer.kernel_size[0]
    return (
        isinstance(layer, FastDepthwise)
        and size % 2 == 1
        and layer.kernel_size == (size, size)
        and layer.padding == (size // 2, size // 2)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
    )
