"""DoRA on linear layers and pointwise convolutions, with one matrix product instead of three.

DoRA (https://arxiv.org/abs/2402.09353) scales each row of W + sBA to a trained magnitude m. In each call, peft builds
this matrix only to compute its row norms, and multiplies the batch by W, A and B separately. Here, the norms are
computed from small products (A is r x in, B is out x r, s is a scale),

    ||W + sBA||² = ||W||² + 2s rowsum((W Aᵀ) ∘ B) + s² rowsum((B A Aᵀ) ∘ B)

with ||W||² cached if W is frozen, and the batch is multiplied by the adapted V = m / ||W + sBA|| ∘ (W + sBA) only.
The backward pass needs no matrix of V's size: with G = gᵀx for the batch x and the gradient g of its output,
dB ~ gᵀ(xAᵀ), dA ~ (gB)ᵀx and dm ~ rowsum(G ∘ V) = colsum(g ∘ xVᵀ). Initialization, file format and merging are peft's.
"""

import copy
import re
from collections.abc import Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Conv2d, Linear
from torch import Tensor, nn

from trunkfold.model.linear import linear, product


def use_exact_dora(model: nn.Module) -> None:
    """Use the faster forward pass in all DoRA layers on linear layers and 1 x 1 convolutions, in place."""
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.__class__ = ExactLinear
        elif isinstance(layer, Conv2d):
            base = layer.get_base_layer()
            if is_pointwise(base) and base.stride == (1, 1):
                layer.__class__ = ExactConv2d


def squared_row_norms(
    weight: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float, squared_weight: Tensor | None = None
) -> Tensor:
    """Compute the squared row norms of W + sBA, of shape (out,); `squared_weight` are those of W, if known."""
    if squared_weight is None:
        squared_weight = weight.square().sum(1)
    cross = ((weight @ lora_a.T) * lora_b).sum(1)
    update = ((lora_b @ (lora_a @ lora_a.T)) * lora_b).sum(1)
    return squared_weight + 2 * scale * cross + scale**2 * update


class AdaptedLinear(torch.autograd.Function):
    """Multiplication by V, with gradients for x, W, its bias, A, B and m; norms are constants, as in section 4.3 of the
    paper and in peft."""

    @staticmethod
    def forward(ctx, x, weight, bias, lora_a, lora_b, magnitude, scale, squared_weight):  # noqa: ANN001, ANN205
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        # V is built in full precision, because half precision would round the small update away.
        with torch.autocast(device, enabled=False):
            ratio = magnitude / squared_row_norms(weight, lora_a, lora_b, scale, squared_weight).sqrt()
            adapted = torch.addmm(weight, lora_b, lora_a, alpha=scale).mul_(ratio[:, None]).to(dtype)
            rows = x.reshape(-1, x.shape[-1]).to(dtype)
            result = linear(rows, adapted, None if bias is None else bias.to(dtype))
        ctx.save_for_backward(rows, weight, bias, lora_a, lora_b, magnitude, ratio, adapted, result)
        ctx.scale, ctx.of_x = scale, (x.shape, x.dtype)
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        rows, weight, bias, lora_a, lora_b, magnitude, ratio, adapted, result = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        shape, dtype = ctx.of_x
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        of_x = product(grad, adapted).view(shape).to(dtype) if needs_x else None
        of_bias = grad.sum(0, dtype=weight.dtype) if bias is not None else None
        factor = ctx.scale * ratio[:, None]
        if needs_weight:
            whole = product(grad.T, rows).to(weight.dtype)
            of_weight = whole * ratio[:, None]
            of_b, of_a = factor * (whole @ lora_a.T), (factor * lora_b).T @ whole
        else:
            of_weight = None
            # Products are ordered so that the long side is contiguous.
            of_b = factor * ((rows @ lora_a.T.to(rows.dtype)).T @ grad).T
            of_a = (grad @ (factor * lora_b).to(grad.dtype)).T @ rows
        of_magnitude = (grad * result.to(weight.dtype)).sum(0)  # loss scaling would overflow the sum in half precision
        if bias is not None:
            of_magnitude -= bias * of_bias
        return (
            of_x,
            of_weight,
            of_bias if needs_bias else None,
            of_a.to(lora_a.dtype),
            of_b.to(lora_b.dtype),
            of_magnitude / magnitude,
            None,
            None,
        )


class _Exact:
    """The faster forward pass, mixed into peft's layer."""

    _kept: tuple = (None, None)

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Return DoRA's output, of the base layer's shape."""
        if self.merged or self.disable_adapters:
            return super().forward(x, *args, **kwargs)
        (adapter,) = self.active_adapters
        base, is_conv = self.get_base_layer(), isinstance(self, Conv2d)
        result = AdaptedLinear.apply(
            x.permute(0, 2, 3, 1) if is_conv else x,
            base.weight.flatten(1),
            base.bias,
            self.lora_A[adapter].weight.flatten(1),
            self.lora_B[adapter].weight.flatten(1),
            self.lora_magnitude_vector[adapter].weight.flatten(),
            self.scaling[adapter],
            self._kept_squares(base.weight),
        )
        return result.permute(0, 3, 1, 2) if is_conv else result

    def _kept_squares(self, weight: Tensor) -> Tensor | None:
        if weight.requires_grad:
            return None
        # The version detects in-place changes, such as loading weights.
        identity = weight.data_ptr(), weight._version, weight.device
        if identity != self._kept[0]:
            self._kept = identity, weight.flatten(1).square().sum(1)
        return self._kept[1]


class ExactLinear(_Exact, Linear):
    """peft's DoRA of a linear layer with the faster forward pass."""


class ExactConv2d(_Exact, Conv2d):
    """peft's DoRA of a 1 x 1 convolution with the faster forward pass."""


def is_pointwise(layer: nn.Module) -> bool:
    """Return whether a layer is a linear layer or a 1 x 1 convolution."""
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def add_adapters(model: nn.Module, names: Sequence[str], rank: int, scale: float) -> None:
    """Add DoRA adapters to linear layers and ungrouped convolutions, in place; updates are scaled by `scale`."""
    lora = LoraConfig(
        r=rank,
        lora_alpha=rank * scale,  # peft's factor is lora_alpha / r
        target_modules="|".join(re.escape(name) for name in names),  # names in a list would match as suffixes
        use_dora=True,
    )
    inject_adapter_in_model(lora, model)
    use_exact_dora(model)


def merge(model: nn.Module) -> nn.Module:
    """Return a copy of a tuned model with adapters merged into plain layers, which is twice as fast."""
    merged = copy.deepcopy(model).requires_grad_(False).eval()  # peft merges in place, but frozen weights are shared
    adapted = [(name, layer) for name, layer in merged.named_modules() if isinstance(layer, LoraLayer)]
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, layer.get_base_layer())
    return merged
