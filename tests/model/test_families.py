"""Every family can be cut, tuned, saved and explained, on the smallest models of timm's classes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, inject_adapter_in_model
from safetensors.torch import load_file
from torch import nn
from toys import cache_photos

from trunkfold.config.schema import CacheConfig, Config, DataConfig, ModelConfig, SplitConfig, TrainConfig
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.model.ensemble import load_ensemble, save_fold, save_shared
from trunkfold.model.families import FAMILIES, family_of
from trunkfold.model.features import FeatureSource
from trunkfold.model.gradcam import heat_maps
from trunkfold.model.half_precision import on_device
from trunkfold.model.layers import merge
from trunkfold.model.parts import Tail, trained_parameters
from trunkfold.run_folder import RunFolder
from trunkfold.training.gradients import learned_shares
from trunkfold.training.lockstep import Lockstep

TINY = {  # arguments that make a small model of a large one
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 3, 4)},
    "eva02_tiny_patch14_224": {"embed_dim": 48, "depth": 4, "num_heads": 3},
    "vit_small_patch16_dinov3": {"embed_dim": 48, "depth": 5, "num_heads": 3, "init_values": 1.0},
    "vit_small_patch14_reg4_dinov2": {"embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
    "vit_base_patch16_siglip_224": {"embed_dim": 48, "depth": 4, "num_heads": 3},
    "deit_tiny_patch16_224": {"embed_dim": 48, "depth": 4, "num_heads": 3},
    "resnet50d": {"layers": (1, 1, 1, 1), "channels": (16, 16, 24, 32)},
    "resnext50_32x4d": {"layers": (1, 1, 1, 1)},
    "resnet18": {"channels": (16, 16, 24, 32)},
}
MODELS = ["test_convnext", "test_convnext3", "test_vit", "test_efficientnet", "test_resnet", *TINY]
CLASSES, SIDE = 3, 64


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options, **TINY.get(name, {})))


def photos(count: int = 2, side: int = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def timms(name: str) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES, **family_of(name).options).eval()


def normalised(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    numbers = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(numbers[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pictures / 255 - mean) / std


def made(name: str, tune: str = "block", tune_stages: int = 1) -> Backbone:
    """A backbone whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    config = ModelConfig(name, False, tune=tune, tune_stages=tune_stages)
    backbone = build_backbone(config, CLASSES, load_weights=False)
    for layer in (*backbone.trunk.modules(), *backbone.tail.modules()):
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return backbone


def moved(backbone: Backbone) -> Tail:
    """A tail whose every trained number has moved."""
    tail = backbone.make_tail(0).eval()
    with torch.no_grad():
        for _, parameter in trained_parameters(tail):
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return tail


def test_every_family_is_among_the_models():
    assert {id(family_of(name)) for name in MODELS} == {id(family) for family in FAMILIES.values()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tune_stages", [1, 2, 4])
def test_trunk_and_new_tail_are_the_timm_model_at_any_size(name, tune_stages):
    backbone, whole = made(name, tune_stages=tune_stages), timms(name)
    tail = backbone.make_tail(0).eval()
    parts = {name.replace("base_layer.", ""): t for name, t in tail.state_dict().items() if ".lora_" not in name}
    whole.load_state_dict({**backbone.trunk.state_dict(), **parts})
    for side in (64, 96):
        expected = whole(normalised(whole, photos(side=side)))
        torch.testing.assert_close(tail(backbone.trunk(photos(side=side))), expected, rtol=1e-4, atol=1e-4)
    names = [name for name, _ in backbone.trunk.named_parameters()]
    assert bool(names) == (tune_stages < 4)
    assert not set(names) & set(parts)


@pytest.mark.parametrize("name", MODELS)
def test_every_adapter_is_used_and_equals_pefts(name):
    """Ours against the same tail with peft's own forward: logits and gradients."""
    backbone = made(name)
    features, ours, theirs = backbone.trunk(photos()), moved(backbone), copy.deepcopy(backbone.tail)
    targets = ours.peft_config["default"].target_modules
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=32, target_modules=targets, use_dora=True), theirs)
    theirs.load_state_dict(ours.state_dict())
    logits = []
    for tail in (ours, theirs):
        logits.append(tail.requires_grad_(True).eval()(features))
        logits[-1].square().sum().backward()
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    expected = dict(theirs.named_parameters())
    for parameter, own in ours.named_parameters():
        if ".lora_" in parameter:
            assert own.grad.abs().max() > 0, parameter
            scale = expected[parameter].grad.abs().max().item()
            torch.testing.assert_close(own.grad, expected[parameter].grad, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_fold_is_loaded_and_merged_by_us_and_by_peft(name, tmp_path: Path):
    backbone = made(name, tune_stages=2)
    tail = moved(backbone)
    save_shared(RunFolder(tmp_path, write=True), backbone)
    save_fold(RunFolder(tmp_path, write=True), 0, tail)
    expected = tail(backbone.trunk(photos()))
    config = Config(DataConfig(image_size=SIDE), SplitConfig(folds=1), backbone.config)
    loaded, (merged,) = load_ensemble(RunFolder(tmp_path), config, CLASSES)
    torch.testing.assert_close(merged(loaded.trunk(photos())), expected, rtol=1e-4, atol=1e-4)

    whole, read = timms(name), PeftModel.from_pretrained(timms(name), tmp_path / "fold_0")
    wrapped = {name.replace("base_layer.", ""): name for name in read.base_model.model.state_dict()}
    for file in (tmp_path / "shared.safetensors", tmp_path / "fold_0" / "tail.safetensors"):
        state = {wrapped[name.replace("base_layer.", "")]: tensor for name, tensor in load_file(file).items()}
        read.base_model.model.load_state_dict(state, strict=False)
    found = read.merge_and_unload().eval()(normalised(whole, photos()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tune", ["adapters", "block", "all"])
def test_what_is_trained_and_batch_norms_keep_their_statistics(name, tune):
    backbone = made(name, tune)
    tail = backbone.make_tail(0)
    trained, head = {name for name, _ in trained_parameters(tail)}, tail.get_classifier()
    matrices = {
        f"{layer_name}.weight"
        for layer_name, layer in tail.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and getattr(layer, "groups", 1) == 1
        if ".lora_" not in layer_name and layer is not head
    }
    assert matrices
    assert trained & matrices == (matrices if tune == "all" else set())
    assert all(parameter.requires_grad for parameter in head.parameters())
    others = {name for name in trained - matrices if name.startswith(tuple(tail.units)) and ".lora_" not in name}
    assert bool(others) == (tune != "adapters")
    before = {name: buffer.clone() for name, buffer in tail.named_buffers()}
    tail.train()(backbone.trunk(photos()))
    assert all(torch.equal(before[name], buffer) for name, buffer in tail.named_buffers())


@pytest.mark.parametrize("name", MODELS)
def test_lockstep_equals_whole_models_with_pefts_adapters(accelerator, name):
    backbone, folds, rate = made(name), 2, 0.05
    config = TrainConfig(
        epochs=1, batch_size=4, tail_lr=rate, head_lr=rate, tail_weight_decay=0, head_weight_decay=0, label_smoothing=0
    )
    pictures, targets = photos(4), torch.tensor([0, 1, 2, 0])
    batches = FoldBalancedBatches(np.arange(4) % folds, 4, 0, accelerator)
    lockstep = Lockstep(accelerator, config, copy.deepcopy(backbone), batches)
    whole = timms(name)
    tail = backbone.make_tail(1)
    targets_of_dora = tail.peft_config["default"].target_modules
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=32, target_modules=targets_of_dora, use_dora=True), whole)
    whole.load_state_dict({**backbone.trunk.state_dict(), **tail.state_dict()})
    whole.requires_grad_(True)
    own, labels = (learned_shares(batch, folds)[1] for batch in (pictures, targets))
    nn.functional.cross_entropy(whole(normalised(whole, own)), labels).backward()
    expected = dict(whole.named_parameters())
    lockstep._by_threads(pictures, targets)
    for parameter, found in trained_parameters(lockstep.tails[1]):
        scale = expected[parameter].grad.abs().max().item()
        torch.testing.assert_close(found.grad, expected[parameter].grad, rtol=1e-3, atol=1e-3 * scale, msg=parameter)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tune_stages", [1, 4])
def test_grad_cam_gives_a_map(accelerator, name, tune_stages):
    backbone = made(name, tune_stages=tune_stages)
    tails = [merge(moved(backbone))]
    heat = heat_maps(accelerator, backbone.trunk, tails, photos(3, 128), torch.arange(3), np.ones((3, 1), bool))
    assert heat.shape[1] == heat.shape[2] >= 4
    assert np.isfinite(heat).all()
    assert heat.max() == pytest.approx(1)
    assert heat.std() > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_weights_cast_once_give_the_same_bits(name):
    backbone = made(name)
    accelerator, whole = Accelerator(cpu=True, mixed_precision="bf16"), [backbone.trunk, merge(moved(backbone))]
    trunk, tail = (on_device(accelerator, part) for part in whole)
    assert torch.bfloat16 in {weight.dtype for weight in trunk.parameters()}
    with torch.no_grad(), accelerator.autocast():
        features = backbone.trunk(photos())
        assert torch.equal(trunk(photos()), features)
        assert torch.equal(tail(features.float()), whole[1](features.float()))


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224", "resnet18"])
def test_features_are_kept_in_the_familys_layout(accelerator, tmp_path, name):
    backbone, pictures = made(name), [photo.permute(1, 2, 0).numpy() for photo in photos(3)]
    config = Config(DataConfig(image_size=SIDE, workers=0), model=backbone.config, cache=CacheConfig(tmp_path / "kept"))
    source = FeatureSource(accelerator, backbone.trunk, cache_photos(tmp_path, pictures), config)
    kept = torch.cat([features for _, features in source.clean(np.arange(3))]).float()
    fresh = torch.cat([features for _, features in source.batches(np.arange(3))])
    torch.testing.assert_close(kept, fresh, rtol=1e-3, atol=1e-3 * fresh.abs().max().item())
