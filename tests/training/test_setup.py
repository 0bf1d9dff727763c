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
    ("model", "chosen", "expected"),
    [
        ({"name": "convnext_tiny"}, None, 1e-3),
        ({"name": "convnext_tiny", "tune": "all"}, None, 1e-4),
        ({"name": "tf_efficientnet_lite0", "tune": "adapters"}, None, 2e-3),
        ({"name": "tf_efficientnet_lite0", "rank": 64}, None, 5e-4),
        ({"name": "tf_efficientnet_lite0", "rank": 64, "tune": "all"}, 3e-4, 3e-4),
    ],
)
def test_the_learning_rate_of_the_tail_is_that_of_the_model_unless_it_is_chosen(model, chosen, expected):
    config = complete(Config(model=ModelConfig(**model), train=TrainConfig(tail_lr=chosen)))
    assert config.train.tail_lr == pytest.approx(expected)
