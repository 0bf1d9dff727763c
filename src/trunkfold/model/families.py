"""Backbone families as data: the sequence of timm's layers, and the division of blocks into stages."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import timm
from torch import nn

from trunkfold.errors import InputError

STAGES = 4


@dataclass(frozen=True)
class Family:
    """Structure of timm's models of one family: stem, units, neck, then timm's own `forward_head`.

    Attributes:
        title: Name in error messages.
        stem: Layers and methods that run before the units.
        units: Container whose children run in sequence, or names of the units.
        neck: Layers between the units and the head.
        head: Layers used by `forward_head`. All remaining layers belong to the stem.
        stages: Division into stages: by unit, by change of resolution (timm's feature_info), or into quarters.
        options: Arguments of timm.create_model that enable arbitrary input sizes.
        tail_lr: Learning rate of DoRA tails of the default rank. That of EfficientNet is measured
            (src/trunkfold/README.md); the other is ten times a usual rate of full fine-tuning.
    """

    title: str
    stem: tuple[str, ...]
    units: str | tuple[str, ...]
    neck: tuple[str, ...]
    head: tuple[str, ...]
    stages: Literal["unit", "resolution", "quarter"] = "unit"
    options: dict[str, Any] = field(default_factory=dict)
    tail_lr: float = 1e-3

    def find_stages(self, model: nn.Module) -> list[list[str]]:
        """Return the names of the units of each stage, in order."""
        if isinstance(self.units, tuple):
            units = list(self.units)
        else:
            units = [f"{self.units}.{name}" for name, _ in model.get_submodule(self.units).named_children()]
        if self.stages == "resolution":
            ends = [units.index(info["module"]) + 1 for info in model.feature_info[:-1]]
            starts = [0, *ends[1 - STAGES :]]
        elif self.stages == "quarter":
            starts = [len(units) * stage // STAGES for stage in range(STAGES)]
        else:
            starts = list(range(len(units)))
        return [units[start:end] for start, end in zip(starts, [*starts[1:], len(units)], strict=True)]


_VIT = Family(
    title="ViT",
    stem=("patch_embed", "_pos_embed", "patch_drop", "norm_pre"),
    units="blocks",
    neck=("norm",),
    head=("attn_pool", "fc_norm", "head_drop", "head"),
    stages="quarter",
    options={"dynamic_img_size": True, "dynamic_img_pad": True},
)
FAMILIES = {  # by the timm module that defines the model
    "convnext": Family("ConvNeXt", ("stem",), "stages", ("norm_pre",), ("head",)),
    "vision_transformer": _VIT,
    "deit": _VIT,
    "eva": replace(_VIT, title="EVA and DINOv3", stem=("patch_embed", "_pos_embed", "norm_pre")),
    "swin_transformer": Family(
        "Swin", ("patch_embed",), "layers", ("norm",), ("head",), options={"strict_img_size": False}
    ),
    "efficientnet": Family(
        title="EfficientNet",
        stem=("conv_stem", "bn1"),
        units="blocks",
        neck=("conv_head", "bn2"),
        head=("global_pool", "classifier"),
        stages="resolution",
        tail_lr=2e-3,
    ),
    "resnet": Family(
        title="ResNet",
        stem=("conv1", "bn1", "act1", "maxpool"),
        units=("layer1", "layer2", "layer3", "layer4"),
        neck=(),
        head=("global_pool", "fc"),
    ),
}
KNOWN = ", ".join(sorted({family.title for family in FAMILIES.values()}))


def family_of(name: str) -> Family:
    """Return the family of a timm model.

    Raises:
        InputError: The model belongs to none of `FAMILIES`.
    """
    module = timm.model_entrypoint(name.split(".")[0]).__module__.rpartition(".")[2]
    if module not in FAMILIES:
        raise InputError(f"model.name {name} cannot be cut into trunk and tail: choose a model of {KNOWN}")
    return FAMILIES[module]
