"""Defaults that depend on model, photos or device."""

import pytest
import torch

from trunkfold.config.schema import Config, ModelConfig, TrainConfig
from trunkfold.training.setup import cached_views, complete


@pytest.mark.parametrize(
    ("device", "epochs", "chosen", "expected"),
    [
        ("cpu", 30, None, 7),
        ("cpu", 8, None, 2),
        ("cpu", 10_000, None, 8),
        ("cpu", 7, None, 0),
        ("cuda", 30, None, 0),
        ("cuda", 30, 2, 2),
        ("cpu", 30, 0, 0),
    ],
)
def test_views_are_cached_on_a_cpu_and_where_they_are_asked_for(device, epochs, chosen, expected):
    config = TrainConfig(epochs=epochs, cached_views=chosen)
    assert cached_views(config, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("name", "tune", "chosen", "expected"),
    [
        ("convnext_tiny", "block", None, 1e-3),
        ("convnext_tiny", "all", None, 1e-4),
        ("tf_efficientnet_lite0", "adapters", None, 3e-3),
        ("tf_efficientnet_lite0", "all", 2e-4, 2e-4),
    ],
)
def test_the_learning_rate_of_the_tail_is_that_of_the_family_unless_it_is_chosen(name, tune, chosen, expected):
    config = complete(Config(model=ModelConfig(name, tune=tune), train=TrainConfig(tail_lr=chosen)))
    assert config.train.tail_lr == pytest.approx(expected)
