"""Grad-CAM heat maps of the evidence for a class (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391)."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from trunkfold.model.device_memory import PREDICTING, first_that_fits

LEAST = 4  # minimum side of a map; coarser maps do not localize
GAIN = 2.0**10  # loss scale against underflow in fp16; a power of two is exact
BATCH = 8  # photos per pass, as the backward pass of a whole network takes much memory


def grad_cam(tail: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
    """Compute relu(sum over channels c of mean(d logit / d A_c) A_c) for the last layer with sufficiently fine maps A.

    Args:
        tail: Tail in evaluation mode; its parameters need no gradients.
        features: Trunk features of the photos, in the tail's layout.
        targets: Class index to explain for each photo.

    Returns:
        Non-negative maps of shape (photos, height, width), not normalized.
    """
    features = features.detach().requires_grad_()
    # A transformer's tail may have a single block; its input is then the last usable map.
    outputs = [features] if features.ndim == 3 else []
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[-1])) for layer in tail.mapped_layers()]
    try:
        with torch.enable_grad():
            logits = tail(features)
            fine = [output for output in outputs if min(tail.as_map(output).shape[2:]) >= LEAST]
            output = (fine or outputs)[-1]
            (gradient,) = torch.autograd.grad(GAIN * logits.float().gather(1, targets[:, None]).sum(), output)
    finally:
        for hook in hooks:
            hook.remove()
    weights = tail.as_map(gradient).float().mean((2, 3), keepdim=True) / GAIN
    return (weights * tail.as_map(output.detach())).sum(1).relu()


def heat_maps(
    accelerator: Accelerator,
    trunk: nn.Module,
    tails: Sequence[nn.Module],
    photos: Tensor,
    targets: Tensor,
    members: np.ndarray,
) -> np.ndarray:
    """Average the Grad-CAM maps of the tails that predict a photo.

    Args:
        accelerator: Accelerator with device and precision; only this process computes.
        tails: K merged tails in evaluation mode on the device.
        photos: Plain views, uint8 of shape (photos, 3, side, side).
        members: bool of shape (photos, K): tails that predict a photo.

    Returns:
        Shape (photos, height, width), scaled to a maximum of 1; zeros without evidence for the class.

    Raises:
        MemoryFullError: Not even one photo fits the device's memory.
    """

    def maps_of(rows: slice) -> Tensor:
        heat = 0
        with accelerator.autocast():
            features, wanted = trunk(photos[rows].to(accelerator.device)).float(), targets[rows].to(accelerator.device)
            for tail, chosen in zip(tails, torch.from_numpy(members[rows].T), strict=True):
                if chosen.any():
                    chosen = chosen.nonzero()[:, 0].to(accelerator.device)
                    maps = grad_cam(tail, features[chosen], wanted[chosen])
                    heat = heat + maps.new_zeros(len(features), *maps.shape[1:]).index_put((chosen,), maps)
        return heat  # the sum suffices, because maps are rescaled to a maximum of 1

    def in_batches(size: int) -> Tensor:
        return torch.cat([maps_of(slice(start, start + size)).cpu() for start in range(0, len(photos), size)])

    heat = first_that_fits(in_batches, BATCH, PREDICTING)
    return (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()
