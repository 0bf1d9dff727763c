"""Weights cast once give bit-identical results to autocast, which casts them in every call."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from trunkfold.config.schema import ModelConfig
from trunkfold.model.backbone import build_backbone
from trunkfold.model.half_precision import on_device
from trunkfold.model.layers import merge

MODELS = ("test_convnext", "tf_efficientnet_lite0")  # the second pads its convolutions itself; see test_families.py too


class Casts(TorchDispatchMode):
    """Remember the shapes of parameters that are cast."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.parameters, self.shapes = {parameter.data_ptr() for parameter in model.parameters()}, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name == "aten::_to_copy" and args[0].data_ptr() in self.parameters:
            self.shapes.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", MODELS)
def test_trunk_and_merged_tails_give_the_same_bits_and_cast_nothing(monkeypatch, name, precision):
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    monkeypatch.setattr(
        accelerator, "autocast", lambda: torch.autocast("cpu", dtype)
    )  # on a CPU Accelerate has no fp16
    torch.manual_seed(0)
    backbone = build_backbone(ModelConfig(name=name, pretrained=False), 3, load_weights=False)
    tail = merge(backbone.make_tail(0))
    photos = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    before = {name: weight.clone() for name, weight in backbone.trunk.state_dict().items()}
    with torch.no_grad(), accelerator.autocast():
        with Casts(backbone.trunk) as at_each_call:
            features = backbone.trunk(photos)
        logits = tail(features.float())
        trunk, tail = on_device(accelerator, backbone.trunk), on_device(accelerator, tail)
        with Casts(trunk) as of_trunk:
            assert torch.equal(trunk(photos), features)
        with Casts(tail) as of_tail:
            assert torch.equal(tail(features.float()), logits)
    assert at_each_call.shapes
    assert not of_trunk.shapes
    assert not of_tail.shapes
    for name, weight in backbone.trunk.state_dict().items():  # which the run saves
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)
    kept = {weight.data_ptr() for weight in backbone.trunk.parameters()}
    others = [weight for weight in trunk.parameters() if weight.dtype == torch.float32]
    assert all(weight.data_ptr() in kept for weight in others)


def test_in_full_precision_nothing_is_copied(accelerator):
    backbone = build_backbone(ModelConfig(name="test_convnext", pretrained=False), 3, load_weights=False)
    assert on_device(accelerator, backbone.trunk) is backbone.trunk


def test_a_copy_may_be_copied():
    backbone = build_backbone(ModelConfig(name="test_convnext", pretrained=False), 3, load_weights=False)
    trunk = on_device(Accelerator(cpu=True, mixed_precision="bf16"), backbone.trunk)
    again = copy.deepcopy(trunk)
    assert [p.dtype for p in again.parameters()] == [p.dtype for p in trunk.parameters()]
