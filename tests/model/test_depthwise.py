"""The faster kernel gradient of depthwise convolutions equals PyTorch's."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from trunkfold.model import depthwise
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


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 5, padding=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2),
        Conv2dSame(4, 4, 3, groups=4, stride=2, bias=False),
    ],
    ids=lambda layer: f"{type(layer).__name__}, stride {layer.stride[0]}",
)
@pytest.mark.parametrize("width", [8, 20])
def test_with_bf16_training_has_the_gradients_of_float32_and_prediction_the_bits_of_bf16(layer, width):
    torch.manual_seed(0)
    ours = copy.deepcopy(layer)
    use_fast_depthwise(ours)
    x = torch.randn(2, 4, 8, width).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = ours(x)
        with torch.no_grad():
            assert torch.equal(ours(x), layer(x))
    expected = layer(x.float())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)
    (ours_grad,), (their_grad,) = (
        torch.autograd.grad(y.square().sum(), model.weight) for y, model in ((result, ours), (expected, layer))
    )
    torch.testing.assert_close(ours_grad, their_grad, rtol=1e-4, atol=1e-4)


def test_other_convolutions_stay():
    layers = [
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1),
    ]
    for layer in layers:
        use_fast_depthwise(layer)
        assert type(layer) is nn.Conv2d


@pytest.mark.parametrize("options", [{"stride": 2, "padding": 1}, {"kernel_size": 2, "padding": 1}, {}])
def test_depthwise_convolutions_of_other_shapes_use_onednn(monkeypatch, options):
    monkeypatch.delattr(depthwise, "kernel_gradient")
    layer = nn.Conv2d(4, 4, **{"kernel_size": 3, "groups": 4, **options})
    use_fast_depthwise(layer)
    layer(torch.randn(2, 4, 8, 8)).sum().backward()
    assert layer.weight.grad is not None
