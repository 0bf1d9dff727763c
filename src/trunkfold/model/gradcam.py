"""Where in a photo the evidence for a class lies (Grad-CAM, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

LEAST = 4  # cells along a map's side; a coarser one says nothing of where
BATCH = 8  # photos a pass: what is kept for the gradients of a whole network is large


def grad_cam(tail: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
    """relu(sum over channels c of mean(d logit / d A_c) A_c) of the last layer whose maps A are fine enough.

    Args:
        tail: In evaluation mode; its parameters need no gradients.
        features: Trunk features of the photos, of the tail's own layout.
        targets: Class number that each photo's map is about.

    Returns:
        Maps of shape (photos, height, width), not negative, on no common scale.
    """
    features = features.detach().requires_grad_()
    outputs = [features] if features.ndim == 3 else []  # a transformer's tail may have a single block, behind its map
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[-1])) for layer in tail.mapped_layers()]
    try:
        with torch.enable_grad():
            logits = tail(features)
            fine = [output for output in outputs if min(tail.as_map(output).shape[2:]) >= LEAST]
            output = (fine or outputs)[-1]
            (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), output)
    finally:
        for hook in hooks:
            hook.remove()
    return (tail.as_map(gradient).mean((2, 3), keepdim=True) * tail.as_map(output.detach())).sum(1).relu()


def heat_maps(
    trunk: nn.Module, tails: Sequence[nn.Module], photos: Tensor, targets: Tensor, members: np.ndarray
) -> np.ndarray:
    """Mean Grad-CAM of the tails that predict a photo.

    Args:
        trunk: On the device of the tails.
        tails: K tails, merged, in evaluation mode.
        photos: uint8 of shape (photos, 3, side, side): the plain view.
        targets: Class number of each.
        members: bool of shape (photos, K): which tails predict it.

    Returns:
        Shape (photos, height, width), each photo's largest value 1; zeros where nothing speaks for the class.
    """
    device = next(trunk.buffers()).device
    heats = []
    for start in range(0, len(photos), BATCH):
        rows = slice(start, start + BATCH)
        features, wanted = trunk(photos[rows].to(device)).float(), targets[rows].to(device)
        heat = 0
        for tail, chosen in zip(tails, torch.from_numpy(members[rows].T).to(device), strict=True):
            if chosen.any():
                maps = grad_cam(tail, features[chosen], wanted[chosen])
                heat = heat + maps.new_zeros(len(features), *maps.shape[1:]).index_put((chosen,), maps)
        heats.append(heat)  # a sum is a mean, once its largest value is 1
    heat = torch.cat(heats)
    return (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).cpu().numpy()
