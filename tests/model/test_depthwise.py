"""The faster kernel gradient of depthwise convolutions equals PyTorch's."""

import copy

import pytest
import torch
from torch import nn

from trunkfold.model.depthwise import FastDepthwise, use_fast_depthwise


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    ("size", "shape"), [(7, (3, 4, 7, 7)), (3, (2, 4, 5, 9)), (5, (1, 4, 1, 2)), (7, (2, 4, 3, 20))]
)
def test_results_and_gradients_are_those_of_pytorch(size, shape, bias):
    torch.manual_seed(0)
    theirs = nn.Conv2d(4, 4, size, padding=size // 2, groups=4, bias=bias)
    ours = copy.deepcopy(theirs)
    use_fast_depthwise(ours)
    assert isinstance(ours, FastDepthwise)
    x = torch.randn(shape)
    found = []
    for layer in (ours, theirs):
        own = x.clone().requires_grad_()
        result = layer(own)
        found.append((result, *torch.autograd.grad(result.square().sum(), [own, *layer.parameters()])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_other_convolutions_stay():
    layers = [
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 2, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1),
    ]
    for layer in layers:
        use_fast_depthwise(layer)
        assert type(layer) is nn.Conv2d
