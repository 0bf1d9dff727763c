"""Frozen weights in half precision, cast once instead of at every call."""

import copy
from typing import TypeVar

import torch
from accelerate import Accelerator
from timm.layers import Conv2dSame
from torch import nn

from trunkfold.model.depthwise import FastDepthwise, FastDepthwiseSame
from trunkfold.model.linear import FastLinear

# Of these, autocast casts weights and biases.
CAST = (nn.Linear, FastLinear, nn.Conv2d, FastDepthwise, Conv2dSame, FastDepthwiseSame)

Model = TypeVar("Model", bound=nn.Module)


def on_device(accelerator: Accelerator, model: Model) -> Model:
    """Move a frozen model to the accelerator's device, for calls under its autocast.

    In half precision, autocast would cast the weights of convolutions and linear layers in every call. The returned
    copy stores them in that precision; its outputs are bit-identical.

    Returns:
        The model, moved in place; in half precision a copy that shares all other parameters and buffers.
    """
    model = model.to(accelerator.device)
    device = accelerator.device.type
    with accelerator.autocast():
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    if dtype == torch.float32:
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for layer in model.modules():
        if type(layer) in CAST:
            for weight in layer.parameters(recurse=False):
                shared[id(weight)] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    return copy.deepcopy(model, shared)
