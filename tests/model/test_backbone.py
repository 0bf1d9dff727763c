from dataclasses import replace

import pytest
import timm
import torch

from trunkfold.config.schema import ModelConfig, Normalization
from trunkfold.errors import InputError
from trunkfold.metrics import Parameters
from trunkfold.model.backbone import build_backbone, count_parameters
from trunkfold.model.layers import merge
from trunkfold.model.parts import trained_parameters

TOY = ModelConfig(name="test_convnext", pretrained=False)


def uint8_photos(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def away_from_the_start(tail: torch.nn.Module) -> None:
    with torch.no_grad():
        for _, parameter in trained_parameters(tail):
            parameter.add_(torch.randn_like(parameter) * 0.05)


def test_the_seeds_number_of_parameters():
    backbone = build_backbone(ModelConfig(pretrained=False, tune="all"), 6)
    # ConvNeXt-Tiny has 28,589,128 with a head of 1000 x 769; six classes take 6 x 769, DoRA 103,680
    total = 28_589_128 - 994 * 769 + 103_680
    assert count_parameters(backbone, backbone.make_tail(0)) == Parameters(trainable=14_399_238, total=total)


@pytest.mark.parametrize(
    ("tune", "trainable"),
    [
        # DoRA of three blocks 3 x (4 x 768 + 3072 x 4 + 3072 + 4 x 3072 + 768 x 4 + 768), norm 2 x 768, head 769 x 6
        ("adapters", 103_680 + 1_536 + 4_614),
        # and depthwise convolutions, norms and layer scales of three blocks
        ("block", 103_680 + 1_536 + 4_614 + 3 * (768 * 49 + 768 + 2 * 768 + 768)),
    ],
)
def test_what_learns_in_convnext_tiny(tune, trainable):
    backbone = build_backbone(ModelConfig(pretrained=False, tune=tune), 6)
    assert count_parameters(backbone, backbone.make_tail(0)).trainable == trainable


@pytest.mark.parametrize("name", ["test_convnext", "convnext_atto", "convnextv2_atto"])
@pytest.mark.parametrize("tune_stages", [1, 2, 3, 4])
def test_trunk_and_new_tail_are_the_timm_model(name, tune_stages):
    """A new tail has B = 0 and unit ratios, so that with timm's head it must give timm's logits."""
    config = ModelConfig(name=name, pretrained=False, tune_stages=tune_stages)
    torch.manual_seed(3)
    whole = timm.create_model(name, num_classes=5).eval()
    torch.manual_seed(3)
    backbone = build_backbone(config, 5)
    tail = backbone.make_tail(0).eval()
    tail.head.fc.load_state_dict(whole.head.fc.state_dict())
    photos = uint8_photos()
    mean, std = (torch.tensor(timm.data.resolve_model_data_config(whole)[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = whole((photos / 255 - mean) / std)
    torch.testing.assert_close(tail(backbone.trunk(photos)), expected, rtol=1e-4, atol=1e-4)


def test_four_tuned_stages_leave_only_normalisation_in_the_trunk():
    backbone = build_backbone(replace(TOY, tune_stages=4, tune="all"), 3)
    assert not list(backbone.trunk.parameters())
    assert all(parameter.requires_grad for parameter in backbone.make_tail(0).parameters())


def test_the_trunk_never_learns_nor_leaves_evaluation_mode():
    trunk = build_backbone(TOY, 3).trunk.train()
    assert not trunk.training
    assert not trunk.stem.training
    assert not trunk(uint8_photos()).requires_grad


@pytest.mark.parametrize(("tune", "shared"), [("adapters", True), ("block", True), ("all", False)])
def test_folds_share_frozen_weights_and_nothing_else(tune, shared):
    backbone = build_backbone(replace(TOY, tune=tune), 3)
    one, two = (dict(backbone.make_tail(seed).named_parameters()) for seed in (0, 1))
    same = {name for name in one if one[name].data_ptr() == two[name].data_ptr()}
    assert bool(same) == shared
    assert same == {name for name, parameter in one.items() if not parameter.requires_grad}


def test_a_tail_depends_on_its_seed_alone():
    backbone = build_backbone(TOY, 3)
    torch.manual_seed(1)
    one = backbone.make_tail(5).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.rand(1), drawn)  # making a tail draws nothing from the global generator
    two, three = backbone.make_tail(5).state_dict(), backbone.make_tail(6).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.fc.weight"], three["head.fc.weight"])


@pytest.mark.parametrize("name", ["test_convnext", "convnext_atto"])
@pytest.mark.parametrize("tune", ["block", "all"])
def test_merging_keeps_the_logits_and_leaves_the_tails_alone(name, tune):
    backbone = build_backbone(ModelConfig(name=name, pretrained=False, tune=tune, tune_stages=2), 3)
    tails = [backbone.make_tail(fold).eval() for fold in range(2)]
    for tail in tails:
        away_from_the_start(tail)
    features = backbone.trunk(uint8_photos())
    expected = [tail(features) for tail in tails]
    merged = merge(tails[0])
    assert not any("lora_" in parameter for parameter in merged.state_dict())
    torch.testing.assert_close(merged(features), expected[0], rtol=1e-4, atol=1e-4)
    for tail, before in zip(tails, expected, strict=True):
        torch.testing.assert_close(tail(features), before)


@pytest.mark.parametrize("name", ["test_mambaout", "test_nfnet", "deit_tiny_distilled_patch16_224"])
def test_a_model_that_cannot_be_cut_is_refused(name):
    with pytest.raises(InputError, match=f"{name} .*choose a model of ConvNeXt, .*ViT"):
        build_backbone(ModelConfig(name=name, pretrained=False), 3)


@pytest.mark.parametrize("normalize", ["model", Normalization([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])], ids=["own", "given"])
def test_pixels_are_normalised_by_the_models_numbers_or_the_given_ones(normalize):
    trunk = build_backbone(replace(TOY, tune_stages=4), 3, load_weights=False, normalize=normalize).trunk
    photos = uint8_photos()
    own = timm.data.resolve_model_data_config(timm.create_model("test_convnext"))
    mean, std = (own["mean"], own["std"]) if normalize == "model" else (normalize.mean, normalize.std)
    expected = (photos / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(trunk(photos), expected, rtol=1e-5, atol=1e-5)


def test_blocks_are_left_out_while_learning_when_asked_and_never_afterwards():
    for drop_path, differs in ((0.0, False), (0.6, True)):
        backbone = build_backbone(replace(TOY, tune_stages=2, drop_path=drop_path), 3, load_weights=False)
        features, tail = backbone.trunk(uint8_photos(8)), backbone.make_tail(0)
        away_from_the_start(tail)
        assert torch.equal(tail.eval()(features), tail(features))
        torch.manual_seed(0)
        assert torch.equal(tail.train()(features), tail(features)) != differs
