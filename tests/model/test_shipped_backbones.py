"""The models of all shipped configurations can be built and cut as configured."""

from pathlib import Path

import pytest
import torch

from trunkfold.config.parsing import load_config
from trunkfold.model.backbone import build_backbone

SHIPPED = sorted(path for path in (Path(__file__).parents[2] / "configs").glob("*.yaml") if path.stem != "tune")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_model_of_a_shipped_config_is_cut(path, monkeypatch):
    """Its initial numbers do not matter here, and drawing them takes most of the time."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor.data.normal_(0, 0.02))
    config = load_config(path)
    backbone = build_backbone(config.model, 6, load_weights=False)
    assert bool(list(backbone.trunk.parameters())) == (config.model.tune_stages < 4)
    tail = backbone.make_tail(0)
    assert any(".lora_" in name for name, _ in tail.named_parameters())
    assert tail.get_classifier().out_features == 6
