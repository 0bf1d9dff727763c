"""Grad-CAM on tails small enough to compute by hand."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from toy_models import Toy, Trunk

from trunkfold.config.schema import ModelConfig
from trunkfold.errors import MemoryFullError
from trunkfold.model.backbone import build_backbone
from trunkfold.model.gradcam import grad_cam, heat_maps
from trunkfold.model.layers import merge


def planted(channels: int, side: int = 4, **pixels: tuple[int, int, int]) -> torch.Tensor:
    """One photo's features: 1 at each named (channel, line, column), 0 elsewhere."""
    features = torch.zeros(1, channels, side, side)
    for place in pixels.values():
        features[0][place] = 1
    return features


def test_the_planted_pixel_of_the_classes_channel_lights_up_and_no_other():
    features = planted(2, one=(0, 1, 2), other=(1, 3, 0))
    tail = Toy([[1.0, 0.0], [0.0, 1.0]])
    for target, place in ((0, (1, 2)), (1, (3, 0))):
        heat = grad_cam(tail, features, torch.tensor([target]))[0]
        assert heat.nonzero().tolist() == [list(place)]


def test_each_part_of_the_formula():
    """alpha_c is the class's weight over 16 positions, the same at each; what counts against the class is cut."""
    features = planted(3, one=(0, 0, 0), two=(1, 0, 0), three=(1, 2, 2), four=(2, 3, 3))
    heat = grad_cam(Toy([[2.0, -1.0, 0.5]]), features, torch.tensor([0]))[0]
    expected = torch.zeros(4, 4)
    expected[0, 0], expected[3, 3] = (2 - 1) / 16, 0.5 / 16  # the sum over channels; (2, 2) would be negative
    torch.testing.assert_close(heat, expected)


def test_the_weight_is_the_mean_of_the_gradient_over_positions():
    """Behind a first stage that is looked at comes one that squares: d logit / d A = 2 A / 16 differs by position."""

    class Shrunk(nn.Module):
        def forward(self, features):
            return (features**2)[..., ::2, ::2]

    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    heat = grad_cam(Toy([[1.0]], nn.Identity(), Shrunk()), features, torch.tensor([0]))[0]
    kept = features[0, 0, ::2, ::2]
    alpha = (2 * kept / 4).sum() / 16
    torch.testing.assert_close(heat, alpha * features[0, 0])


def test_the_last_stage_with_maps_of_four_cells_is_looked_at():
    features = torch.rand(1, 1, 8, 8)
    pool = nn.AvgPool2d(2)
    fine = grad_cam(Toy([[1.0]], nn.Identity(), pool), features, torch.tensor([0]))
    assert fine.shape == (1, 4, 4)
    coarse = grad_cam(Toy([[1.0]], nn.Identity(), pool, nn.AvgPool2d(2)), features, torch.tensor([0]))
    assert coarse.shape == (1, 4, 4)
    alone = grad_cam(Toy([[1.0]], nn.AvgPool2d(4)), features, torch.tensor([0]))
    assert alone.shape == (1, 2, 2)


def test_maps_are_means_over_the_tails_that_predict_a_photo_and_largest_at_one(accelerator):
    photos = planted(2, one=(0, 1, 1), other=(1, 2, 2)).repeat(3, 1, 1, 1).to(torch.uint8)
    tails = [Toy([[3.0, 0.0]]), Toy([[0.0, 1.0]])]
    members = np.array([[True, False], [False, True], [True, True]])
    heat = heat_maps(accelerator, Trunk(), tails, photos, torch.zeros(3, dtype=torch.long), members)
    np.testing.assert_allclose(heat[:, [1, 2], [1, 2]], [[1, 0], [0, 1], [1, 1 / 3]], rtol=1e-6)


def test_photos_that_the_memory_cannot_hold_at_once_are_looked_at_in_smaller_pieces(accelerator, monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # half a second for each try that fails

    class SmallMemory(Trunk):
        def forward(self, photos):
            if len(photos) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().forward(photos)

    photos = torch.cat([planted(1, one=(0, row % 4, row // 4)) for row in range(8)]).to(torch.uint8)
    inputs = [Toy([[1.0]])], photos, torch.zeros(8, dtype=torch.long), np.ones((8, 1), bool)
    most = 8
    whole = heat_maps(accelerator, SmallMemory(), *inputs)
    most = 3
    np.testing.assert_array_equal(heat_maps(accelerator, SmallMemory(), *inputs), whole)
    most = 0
    with pytest.raises(MemoryFullError):
        heat_maps(accelerator, SmallMemory(), *inputs)


def test_maps_are_computed_in_the_precision_of_the_run():
    photos = planted(1, one=(0, 1, 1)).to(torch.uint8)
    seen = []
    convolution = nn.Conv2d(1, 1, 1)
    convolution.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    tail = Toy([[1.0]], convolution)
    half = Accelerator(cpu=True, mixed_precision="bf16")
    heat_maps(half, Trunk(), [tail], photos, torch.tensor([0]), np.ones((1, 1), bool))
    assert seen == [torch.bfloat16]


def test_where_nothing_speaks_for_the_class_there_is_no_heat(accelerator):
    photos = planted(1, one=(0, 1, 1)).to(torch.uint8)
    heat = heat_maps(accelerator, Trunk(), [Toy([[-1.0]])], photos, torch.tensor([0]), np.array([[True]]))
    assert (heat == 0).all()


def test_many_photos_have_each_their_own_map(accelerator):
    photos = torch.cat([planted(1, one=(0, row % 4, row // 4)) for row in range(16)]).to(torch.uint8)
    heat = heat_maps(
        accelerator, Trunk(), [Toy([[1.0]])], photos, torch.zeros(16, dtype=torch.long), np.ones((16, 1), bool)
    )
    assert [int(one.argmax()) for one in heat] == [4 * (row % 4) + row // 4 for row in range(16)]


@pytest.mark.parametrize("stages", [1, 4])
def test_a_real_tail_whose_parameters_need_no_gradients(accelerator, stages):
    config = ModelConfig(name="test_convnext", pretrained=False, tune_stages=stages, tune="all")
    backbone = build_backbone(config, 3, load_weights=False)
    tails = [merge(backbone.make_tail(seed)) for seed in range(2)]
    photos = torch.randint(0, 256, (9, 3, 128, 128), dtype=torch.uint8)
    heat = heat_maps(accelerator, backbone.trunk, tails, photos, torch.arange(9) % 3, np.ones((9, 2), bool))
    assert heat.shape == (9, 4, 4)
    assert np.isfinite(heat).all()
    assert heat.max() == pytest.approx(1)
    assert not any(parameter.requires_grad for tail in tails for parameter in tail.parameters())
    assert all(not module._forward_hooks for tail in tails for module in tail.modules())  # none is left behind
