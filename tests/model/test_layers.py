"""Layers compute the same functions and gradients as PyTorch's and peft's, and keep names and weights."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from trunkfold.model.layers import (
    ExactConv2d,
    ExactLinear,
    squared_row_norms,
    use_exact_dora,
)


def adapted(layer: nn.Module, frozen: bool = True) -> tuple[nn.Module, nn.Module]:
    """The same layer with DoRA twice, peft's forward and ours, away from the initial B = 0."""
    model = inject_adapter_in_model(
        LoraConfig(r=4, lora_alpha=32, target_modules=["0"], use_dora=True), nn.Sequential(layer)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.add_(torch.rand_like(parameter) * 0.1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or not frozen)
    ours = copy.deepcopy(model)
    use_exact_dora(ours)
    return model, ours


def test_row_norms_equal_those_of_the_built_matrix():
    weight, a, b = torch.randn(12, 7).double(), torch.randn(3, 7).double(), torch.randn(12, 3).double()
    expected = (weight + 8 * b @ a).square().sum(1)
    torch.testing.assert_close(squared_row_norms(weight, a, b, 8.0), expected)
    torch.testing.assert_close(squared_row_norms(weight, a, b, 8.0, weight.square().sum(1)), expected)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen weights", "tuned weights"])
@pytest.mark.parametrize(
    ("layer", "shape", "variant"),
    [
        (nn.Linear(10, 16), (2, 5, 5, 10), ExactLinear),
        (nn.Linear(10, 16, bias=False), (2, 10), ExactLinear),
        (nn.Conv2d(10, 16, 1), (2, 10, 5, 5), ExactConv2d),
    ],
    ids=["linear", "linear without bias", "1 x 1 convolution"],
)
def test_output_and_gradients_equal_pefts(layer, shape, variant, frozen):
    torch.manual_seed(0)
    theirs, ours = adapted(layer, frozen)
    assert isinstance(ours[0], variant)
    inputs = [torch.randn(shape).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    results = [model(x) for model, x in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    for result in results:
        result.square().sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-4)
    for (name, expected), (_, found) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        if expected.requires_grad:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_the_kept_norm_follows_loaded_weights():
    theirs, ours = adapted(nn.Linear(10, 16))
    x = torch.randn(3, 10)
    ours(x)
    other = torch.randn(16, 10) * 3
    for model in (theirs, ours):
        model[0].base_layer.load_state_dict({"weight": other, "bias": torch.zeros(16)})
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_the_kept_norm_is_not_that_of_another_layers_copy():
    """Copies of a layer share nothing: after a deep copy gets new weights, both are right."""
    theirs, ours = adapted(nn.Linear(10, 16))
    x = torch.randn(3, 10)
    before = ours(x)
    clone = copy.deepcopy(ours)
    with torch.no_grad():
        clone[0].base_layer.weight.mul_(2)
    assert not torch.allclose(clone(x), before)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_other_convolutions_keep_pefts_forward():
    model = inject_adapter_in_model(
        LoraConfig(r=2, target_modules=["0"], use_dora=True), nn.Sequential(nn.Conv2d(4, 6, 3, padding=1))
    )
    use_exact_dora(model)
    assert not isinstance(model[0], ExactConv2d)


def test_merging_gives_the_same_function():
    _, ours = adapted(nn.Linear(10, 16))
    x = torch.randn(3, 10)
    before = ours(x)
    for layer in ours.modules():
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)
    torch.testing.assert_close(ours[0].base_layer(x), before, rtol=1e-5, atol=1e-5)


def test_a_merged_layer_and_one_without_its_adapter_are_as_pefts():
    theirs, ours = adapted(nn.Linear(10, 16))
    x = torch.randn(3, 10)
    expected = ours(x)
    for model in (theirs, ours):
        model[0].merge()
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    for model in (theirs, ours):
        model[0].unmerge()
        model[0].enable_adapters(False)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not torch.allclose(ours(x), expected, atol=1e-2)


def test_mixed_precision_rounds_and_its_gradients_stay_in_full():
    _, ours = adapted(nn.Linear(64, 32))
    x = torch.randn(8, 64)
    expected = ours(x)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in ours.parameters() if p.grad is not None]
    ours.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        result = ours(x)
    result.float().square().sum().backward()
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=0.05, atol=0.5)
    for parameter, gradient in zip((p for p in ours.parameters() if p.grad is not None), gradients, strict=True):
        assert parameter.grad.dtype == torch.float32
        torch.testing.assert_close(parameter.grad, gradient, rtol=0.05, atol=0.02 * gradient.abs().max().item())
