"""DoRA as peft has it, with a forward pass that takes the exact norm of the adapted weights without building them.

DoRA (https://arxiv.org/abs/2402.09353) scales each row of W + sBA to a learned magnitude. peft builds that matrix in
every call only to take its row norms; they follow from small products (A is r x in, B is out x r, s a scale):

    ||W + sBA||² = ||W||² + 2s rowsum((W Aᵀ) ∘ B) + s² rowsum((B A Aᵀ) ∘ B)

and ||W||² is kept where W is frozen. Initialisation, files and merging stay peft's own.
"""

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraConv2dVariant, DoraLinearVariant
from torch import Tensor, nn
from torch.nn import functional as F


def use_exact_norm(model: nn.Module) -> None:
    """Give all DoRA layers of `model` over linear maps and 1 x 1 convolutions the cheaper forward pass, in place."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for adapter, variant in layer.lora_variant.items():
                if isinstance(variant, DoraLinearVariant):
                    layer.lora_variant[adapter] = ExactNormLinear()
                elif isinstance(variant, DoraConv2dVariant) and _is_pointwise(layer.get_base_layer()):
                    layer.lora_variant[adapter] = ExactNormConv2d()


def squared_row_norms(
    weight: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float, squared_weight: Tensor | None = None
) -> Tensor:
    """Squared norms of the rows of W + sBA.

    Args:
        weight: W, of shape (out, in).
        lora_a: A, of shape (r, in).
        lora_b: B, of shape (out, r).
        scale: s.
        squared_weight: Squared row norms of W, of shape (out,), where they are known.

    Returns:
        Shape (out,).
    """
    if squared_weight is None:
        squared_weight = weight.square().sum(1)
    cross = ((weight @ lora_a.T) * lora_b).sum(1)
    update = ((lora_b @ (lora_a @ lora_a.T)) * lora_b).sum(1)
    return squared_weight + 2 * scale * cross + scale**2 * update


class _ExactNorm:
    """The forward pass; mixed into peft's variant of the layer's kind."""

    def __init__(self) -> None:
        self._of_weight: tuple | None = None
        self._squared_weight: Tensor | None = None

    def forward(self, module: LoraLayer, active_adapter: str, x: Tensor, result: Tensor, **_: object) -> Tensor:
        """DoRA's output.

        Args:
            module: peft's layer around the linear map or 1 x 1 convolution.
            active_adapter: Name of the adapter.
            x: What went into the layer, (..., in) or (batch, in, height, width).
            result: What the base layer made of it, bias included.

        Returns:
            Of the shape of `result`.
        """
        base = module.get_base_layer()
        lora_a, lora_b = module.lora_A[active_adapter].weight, module.lora_B[active_adapter].weight
        scale = module.scaling[active_adapter]
        magnitude = module.lora_magnitude_vector[active_adapter].weight.flatten()
        # The norm counts as a constant: no gradient flows through it (section 4.3 of the paper, and peft).
        ratio = magnitude / self._norm(base.weight, lora_a, lora_b, scale)

        is_conv = base.weight.ndim == 4
        apply = F.conv2d if is_conv else F.linear
        scaled_b = lora_b * (scale * ratio).view(-1, *[1] * (lora_b.ndim - 1))
        bias = None if base.bias is None else base.bias * (1 - ratio)
        update = apply(apply(x.to(lora_a.dtype), lora_a), scaled_b, bias)
        return torch.addcmul(update, result, ratio.view(-1, 1, 1) if is_conv else ratio)

    @torch.no_grad()
    def _norm(self, weight: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float) -> Tensor:
        # Half precision would lose the small update beside the large weight.
        with torch.autocast(weight.device.type, enabled=False):
            flat = [_at_least_single(matrix.flatten(1)) for matrix in (weight, lora_a, lora_b)]
            return squared_row_norms(*flat, scale, self._kept_squares(weight)).sqrt()

    def _kept_squares(self, weight: Tensor) -> Tensor | None:
        if weight.requires_grad:
            return None
        # The version counts changes in place, such as loading other weights.
        identity = weight.data_ptr(), weight._version, weight.device
        if identity != self._of_weight:
            self._of_weight, self._squared_weight = identity, _at_least_single(weight.flatten(1)).square().sum(1)
        return self._squared_weight


class ExactNormLinear(_ExactNorm, DoraLinearVariant):
    """peft's DoRA of a linear map with the exact, cheaper norm."""


class ExactNormConv2d(_ExactNorm, DoraConv2dVariant):
    """peft's DoRA of a 1 x 1 convolution with the exact, cheaper norm."""


def _at_least_single(matrix: Tensor) -> Tensor:
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32))


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1
