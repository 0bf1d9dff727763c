"""Defaults that depend on model, photos or device."""

import pytest
import torch

from trunkfold.config.schema import TrainConfig
from trunkfold.training.setup import cached_views


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
