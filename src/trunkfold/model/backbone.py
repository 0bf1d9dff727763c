"""Cutting a timm model into trunk and tail, and creating the tails of all folds."""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from trunkfold.config.schema import ModelConfig, Normalization
from trunkfold.errors import InputError
from trunkfold.metrics import Parameters
from trunkfold.model.families import KNOWN, Family, family_of
from trunkfold.model.layers import add_adapters, is_pointwise
from trunkfold.model.linear import use_fast_linear
from trunkfold.model.parts import Part, Tail, Trunk, trained_parameters
from trunkfold.model.pretrained import create_model, digest_weights


@dataclass
class Backbone:
    """A model cut into trunk and tail.

    Attributes:
        trunk: Shared, frozen part.
        tail: Tuned part, with initial weights and without adapters.
        digest: SHA-256 of the initial weights; None for a saved run, which loads its own weights.
    """

    trunk: Trunk
    tail: Tail
    config: ModelConfig
    digest: str | None = None

    def frozen(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the tail that are not trained, by name."""
        frozen, tail, tune = {}, self.tail, self.config.tune
        for path, layer in tail.named_modules():
            closing = path.split(".")[0] in tail.closing  # norms of neck and head are always trained
            fixed = tune != "all" and (_is_matrix(layer) or (tune == "adapters" and not closing))
            if fixed and layer is not tail.get_classifier():
                frozen |= layer.named_parameters(path, recurse=False)
        return frozen

    def make_tail(self, seed: int) -> Tail:
        """Create a fold's tail: head and adapters drawn from `seed` alone, frozen weights shared by all tails."""
        shared = {id(parameter): parameter for parameter in self.frozen().values()}
        tail = copy.deepcopy(self.tail, dict(shared))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = tail.get_classifier()
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
            add_adapters(tail, tail.adapted, self.config.rank, self.config.scale)
        for parameter in tail.parameters():
            parameter.requires_grad_(id(parameter) not in shared)
        return tail

    def shared_state(self) -> dict[str, Tensor]:
        """Return the tensors shared by all folds, by timm's names: the trunk, and frozen weights of the tails."""
        learned = {name for name, _ in self.tail.named_parameters()} - self.frozen().keys()
        tail = {name: tensor for name, tensor in self.tail.state_dict().items() if name not in learned}
        return {**self.trunk.state_dict(), **tail}

    def load_shared_state(self, state: dict[str, Tensor]) -> None:
        """Load the result of `shared_state`."""
        for name, tensor in self.shared_state().items():
            tensor.copy_(state[name])


def build_backbone(
    config: ModelConfig,
    classes: int,
    load_weights: bool = True,
    normalize: Normalization | str = "model",
    model: nn.Module | None = None,
) -> Backbone:
    """Create the timm model with its weights and cut it at the first tuned layer.

    Args:
        load_weights: See `trunkfold.model.pretrained.create_model`.
        normalize: Normalization of pixels; "model" uses the model's own.
        model: Result of `trunkfold.model.pretrained.local_model`; None creates the model.

    Raises:
        InputError: Unknown name, missing or incompatible weights, or a model that cannot be cut.
    """
    if model is None:
        model = create_model(config, classes, load_weights)
    else:
        model.reset_classifier(classes)
    digest = digest_weights(model) if load_weights else None
    own = resolve_model_data_config(model)
    normalization = Normalization(list(own["mean"]), list(own["std"])) if normalize == "model" else normalize
    model.eval().to(memory_format=torch.channels_last)
    probe = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = model((probe - _pixels(normalization.mean)) / _pixels(normalization.std))
        use_fast_linear(model)
        try:
            trunk, tail = _cut(model, family_of(config.name), config.tune_stages, normalization)
            tail.adapted, logits = _find_adapted(tail, trunk(probe))
            fits = torch.allclose(logits, expected, atol=1e-4, rtol=1e-4) and tail.adapted
        except (AttributeError, TypeError, ValueError, RuntimeError):  # timm runs the layers differently
            fits = False
    if not fits:
        raise InputError(
            f"model.name {config.name} does not run stem, blocks and head in sequence: choose a model of {KNOWN}"
        )
    return Backbone(trunk, tail, config, digest)


def count_parameters(backbone: Backbone, tail: Tail) -> Parameters:
    """Count the total and trainable parameters of one fold's model."""
    trunk = sum(parameter.numel() for parameter in backbone.trunk.parameters())
    return Parameters(
        trainable=sum(parameter.numel() for _, parameter in trained_parameters(tail)),
        total=trunk + sum(parameter.numel() for parameter in tail.parameters()),
    )


def _pixels(values: list[float]) -> Tensor:
    return 255 * torch.tensor(values).view(1, -1, 1, 1)


def _cut(model: nn.Module, family: Family, tune_stages: int, normalization: Normalization) -> tuple[Trunk, Tail]:
    """Cut the model before the first tuned stage, or after its initial downsampling. The model becomes the trunk."""
    stages = family.find_stages(model)
    first = max(len(stages) - tune_stages, 0)
    trunk_units, tail_units = sum(stages[:first], []), sum(stages[first:], [])
    # Weights are shared, and units of the trunk are not copied, because copying a module takes a millisecond.
    kept = {id(parameter): parameter for parameter in model.parameters()}
    left_out = {id(model.get_submodule(name)): None for name in trunk_units}
    tail = _as_part(copy.deepcopy(model, kept | left_out), Tail)
    trunk = _as_part(model, Trunk)
    containers = [family.units] if isinstance(family.units, str) else family.units
    of_tail = {*containers, *family.neck, *family.head, "rope"}
    of_stem = {name for name, _ in (*model.named_children(), *model.named_parameters(recurse=False))} - of_tail
    _delete(trunk, [*family.neck, *family.head, *([] if first else of_stem), *tail_units])
    _delete(tail, [*(of_stem if first else []), *trunk_units])
    tail.before, tail.units, tail.after = ([] if first else family.stem), tail_units, family.neck
    tail.closing = [name for name in (*family.neck, *family.head) if hasattr(tail, name)]
    for layer in tail.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # the backward pass of an adapted layer needs its output
    opened = tail.get_submodule(tail_units[0])
    if first and isinstance(getattr(opened, "downsample", None), nn.Module):
        # After the downsampling, features are half as large, and its computation is shared as well.
        parent, _, child = tail_units[0].rpartition(".")
        shared = nn.Sequential(OrderedDict(downsample=opened.downsample))
        trunk.get_submodule(parent).add_module(child, shared)
        trunk_units, opened.downsample = [*trunk_units, tail_units[0]], nn.Identity()
    trunk.before, trunk.units, trunk.after = (family.stem if first else []), trunk_units, []
    trunk.register_buffer("mean", _pixels(normalization.mean), persistent=False)
    trunk.register_buffer("std", _pixels(normalization.std), persistent=False)
    trunk.requires_grad_(False).eval()
    return trunk, tail


def _as_part(model: nn.Module, kind: type[Part]) -> Part:
    """Convert a model to a part, in place."""
    model.__class__ = type(kind.__name__, (kind, type(model)), {})
    return model


def _delete(part: Part, names: Sequence[str]) -> None:
    for name in names:
        parent, _, child = name.rpartition(".")
        if hasattr(part.get_submodule(parent), child):
            delattr(part.get_submodule(parent), child)


def _find_adapted(tail: Tail, features: Tensor) -> tuple[list[str], Tensor]:
    """Find the layers DoRA adapts, and return their names and the logits of the features.

    These are linear layers and pointwise convolutions after the stem, and all ungrouped convolutions of units whose
    blocks have neither (ResNet-18). Layers that timm never calls are excluded, such as EVA layers of which it reads
    only the weights.
    """
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in tail.modules()]
    logits = tail(features)
    for hook in hooks:
        hook.remove()
    matrices = {name: layer for name, layer in tail.named_modules() if layer in called and _is_matrix(layer)}
    names = []
    for part in (*tail.units, *tail.closing):
        inside = [name for name in matrices if f"{name}.".startswith(f"{part}.")]
        pointwise = [name for name in inside if is_pointwise(matrices[name])]
        names += pointwise if any("downsample" not in name for name in pointwise) else inside
    return [name for name in names if matrices[name] is not tail.get_classifier()], logits


def _is_matrix(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
