"""A timm model cut in two: the trunk, frozen and shared by all folds, and the tail, tuned and there once a fold."""

import copy
import difflib
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from timm.models.convnext import ConvNeXt, checkpoint_filter_fn
from torch import Tensor, nn

from trunkfold.config.schema import ModelConfig, Normalization
from trunkfold.errors import InputError
from trunkfold.metrics import Parameters
from trunkfold.model.dora import use_exact_dora
from trunkfold.model.linear import use_fast_linear

logger = logging.getLogger(__name__)
ADAPTED = r"stages\.({})\.blocks\.\d+\.mlp\.fc[12]"  # peft adapts the layers whose whole name matches
HEAD = "head.fc."  # the classification layer, new in every run


class Trunk(nn.Module):
    """All that lies before the first tuned layer: uint8 photos (batch, 3, side, side) in, features out.

    Normalisation belongs to it, so that with the whole network tuned the features are the normalised photo.
    """

    def __init__(self, normalization: Normalization, stem: nn.Module, stages: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", _pixels(normalization.mean), persistent=False)
        self.register_buffer("std", _pixels(normalization.std), persistent=False)
        self.stem, self.stages = stem, stages
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Trunk":
        """Stays in evaluation mode: the trunk must be the same function at all times."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, photos: Tensor) -> Tensor:
        normalised = (photos.to(self.mean.dtype) - self.mean) / self.std
        features = self.stem(normalised.to(memory_format=torch.channels_last))
        for stage in self.stages.values():
            features = stage(features)
        return features


class Tail(nn.Module):
    """The tuned stages and the head: features in, logits (batch, classes) out; parameters have timm's names."""

    def __init__(self, stem: nn.Module, stages: nn.ModuleDict, norm_pre: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.stages, self.norm_pre, self.head = stem, stages, norm_pre, head

    def forward(self, features: Tensor) -> Tensor:
        features = self.stem(features)
        for stage in self.stages.values():
            features = stage(features)
        return self.head(self.norm_pre(features))


@dataclass
class Backbone:
    """A model ready to be tuned in folds.

    Attributes:
        trunk: The shared part.
        tail: The part that is tuned, as it was before tuning and without adapters.
        config: What is tuned.
    """

    trunk: Trunk
    tail: Tail
    config: ModelConfig

    def frozen(self) -> dict[str, nn.Parameter]:
        """What of the tail stays as it was, by name; adapters come on top and always learn."""
        chosen = {id(parameter) for parameter in _frozen_parameters(self.tail, self.config.tune)}
        return {name: parameter for name, parameter in self.tail.named_parameters() if id(parameter) in chosen}

    def make_tail(self, seed: int) -> Tail:
        """A tail of its own for one fold: new head, new adapters, and the frozen weights shared with all others.

        Args:
            seed: Decides the initial head and adapters, whatever was drawn before.
        """
        shared = {id(parameter): parameter for parameter in self.frozen().values()}
        tail = copy.deepcopy(self.tail, dict(shared))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nn.init.trunc_normal_(tail.head.fc.weight, std=0.02)
            nn.init.zeros_(tail.head.fc.bias)
            add_adapters(tail, self.config)
        for parameter in tail.parameters():
            parameter.requires_grad_(id(parameter) not in shared)
        return tail

    def shared_state(self) -> dict[str, Tensor]:
        """What all folds share, by timm's names: the trunk, and the frozen weights of the tails."""
        return {**self.trunk.state_dict(), **{name: parameter.data for name, parameter in self.frozen().items()}}

    def load_shared_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `shared_state` gave.

        Raises:
            ValueError: Names or shapes are not those of this backbone.
        """
        own = self.shared_state()
        check_tensors(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])


def build_backbone(
    config: ModelConfig, classes: int, load_weights: bool = True, normalize: Normalization | str = "model"
) -> Backbone:
    """Create the timm model with its weights and cut it at the first tuned layer.

    Args:
        config: Name, weights, what is tuned.
        classes: Number of classes of the new head.
        load_weights: Whether to load the weights that `config` names, and to warn where it names none; a run that
            is read back brings its own.
        normalize: What pixels are normalised by; "model" takes the model's own.

    Raises:
        InputError: Unknown name, weights that cannot be had or do not fit, or a model of another architecture.
    """
    model = _create(config, classes, load_weights)
    for part in ("stem", "stages", "head.fc"):
        if part not in dict(model.named_modules()):
            raise InputError(f"model.name {config.name} has no {part}: only models of stem, stages and head can be cut")
    own = resolve_model_data_config(model)
    normalization = Normalization(list(own["mean"]), list(own["std"])) if normalize == "model" else normalize
    model.eval().to(memory_format=torch.channels_last)
    probe = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = model((probe - _pixels(normalization.mean)) / _pixels(normalization.std))
        use_fast_linear(model)
        trunk, tail = _cut(model, config.tune_stages, normalization)
        if not torch.allclose(tail(trunk(probe)), expected, atol=1e-4, rtol=1e-4):
            raise InputError(
                f"model.name {config.name} does more than stem, stages and head in turn: "
                "choose a ConvNeXt or ConvNeXtV2"
            )
    return Backbone(trunk, tail, config)


def native_image_size(name: str) -> int:
    """Side in pixels of the photos that a timm model was made for.

    Raises:
        InputError: timm has no such model.
    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), cutoff=0.4)
        raise InputError(f"model.name: timm has no model {name!r}; near it: {', '.join(near)}")
    return timm.get_pretrained_cfg(name).input_size[-1]


def check_weights(config: ModelConfig) -> None:
    """Raise an `InputError` where local weights cannot be loaded into the model."""
    native_image_size(config.name)
    if config.weights is not None:
        _load_weights(timm.create_model(config.name), config)


def add_adapters(tail: Tail, config: ModelConfig) -> None:
    """Put DoRA on the fully connected layers of the tail's blocks, in place.

    Raises:
        InputError: The model has no such layers.
    """
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.rank * config.scale,  # peft's factor is lora_alpha / r
        target_modules=ADAPTED.format("|".join(tail.stages)),
        use_dora=True,
    )
    try:
        inject_adapter_in_model(lora, tail)
    except ValueError as error:
        raise InputError(
            f"model.name {config.name} has no mlp.fc1 and mlp.fc2 in its blocks that DoRA could adapt"
        ) from error
    use_exact_dora(tail)


def merge(tail: Tail) -> Tail:
    """A copy of a tuned tail with the adapters merged into plain layers: the same function, twice as fast."""
    merged = copy.deepcopy(tail).requires_grad_(False).eval()  # peft merges in place, and frozen weights are shared
    adapted = [(name, layer) for name, layer in merged.named_modules() if isinstance(layer, LoraLayer)]
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, layer.get_base_layer())
    return merged


def trained_parameters(tail: Tail) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of a tail that learn."""
    return ((name, parameter) for name, parameter in tail.named_parameters() if parameter.requires_grad)


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise a ValueError that names the first differences, unless names and shapes are the same and all is finite."""
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    common = [name for name in expected if name in found]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in common
        if expected[name].shape != found[name].shape
    ]
    infinite = [name for name in common if not torch.isfinite(found[name]).all()]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": shapes, "not finite": infinite}
    wrong = {kind: names for kind, names in kinds.items() if names}
    if wrong:
        raise ValueError(
            "; ".join(f"{len(names)} are {kind} ({', '.join(names[:3])})" for kind, names in wrong.items())
        )


def count_parameters(backbone: Backbone, tail: Tail) -> Parameters:
    """How many numbers one fold's model has, and how many of them learn."""
    trunk = sum(parameter.numel() for parameter in backbone.trunk.parameters())
    return Parameters(
        trainable=sum(parameter.numel() for _, parameter in trained_parameters(tail)),
        total=trunk + sum(parameter.numel() for parameter in tail.parameters()),
    )


def _pixels(values: list[float]) -> Tensor:
    return 255 * torch.tensor(values).view(1, -1, 1, 1)


def _create(config: ModelConfig, classes: int, load_weights: bool) -> nn.Module:
    from_timm = load_weights and config.pretrained and config.weights is None
    native_image_size(config.name)  # the name is checked
    try:
        model = timm.create_model(
            config.name, pretrained=from_timm, num_classes=classes, drop_path_rate=config.drop_path
        )
    except Exception as error:  # whatever the hub's client raises without a network
        raise InputError(_no_weights(config, error)) from error
    if load_weights and config.weights is not None:
        _load_weights(model, config)
    elif load_weights and not from_timm:
        logger.warning(
            "%s starts from RANDOM weights (model.pretrained false): expect far less than from pretrained ones",
            config.name,
        )
    return model


def _no_weights(config: ModelConfig, error: Exception) -> str:
    return (
        f"timm's weights of {config.name} cannot be had ({type(error).__name__}: {str(error).splitlines()[0]}): "
        "without a network give model.weights FILE, or start from random weights with model.pretrained false"
    )


def _load_weights(model: nn.Module, config: ModelConfig) -> None:
    """Load a local file of timm's or the original authors' layout, all but its classification layer."""
    path = config.weights
    state = _read_weights(path)
    try:
        if isinstance(model, ConvNeXt):
            state = checkpoint_filter_fn(state, model)
    except Exception as error:  # of names or shapes that it does not expect
        raise InputError(f"model.weights {path} is of another architecture: {error}") from error
    state = {name: tensor for name, tensor in state.items() if not name.startswith(HEAD)}
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(HEAD)}
    try:
        check_tensors(own, state)
    except ValueError as error:
        raise InputError(f"model.weights {path} do not fit model.name {config.name}: {error}") from error
    model.load_state_dict(state, strict=False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"model.weights {path} does not exist, or is no file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # each format has its own errors
        raise InputError(f"model.weights {path} cannot be loaded: {_why_unreadable(path, error)}") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):  # the original authors' layout
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"model.weights {path} holds no state dict: a mapping of names to tensors")
    return state


def _why_unreadable(path: Path, error: Exception) -> str:
    """In our words, because PyTorch advises to load it in a way that runs its code."""
    with path.open("rb") as file:
        begin = file.read(512).lstrip()
    if begin.startswith(b"<"):
        return "it is a web page: download the weights again"
    if path.suffix == ".safetensors":
        return f"it is no safetensors file, or was copied in part ({str(error).splitlines()[0]})"
    if type(error).__name__ == "UnpicklingError" and begin.startswith((b"PK", b"\x80")):
        return "it holds more than tensors, which could be code: save its state dict alone, best as safetensors"
    return "it is no PyTorch state dict, or was copied in part"


def _cut(model: nn.Module, tune_stages: int, normalization: Normalization) -> tuple[Trunk, Tail]:
    """Divide the model behind the downsampling of the first tuned stage; its layers move, they are not copied."""
    numbers = [str(number) for number in range(len(model.stages))]
    first = max(len(numbers) - tune_stages, 0)
    stages = dict(zip(numbers, model.stages, strict=True))
    whole = nn.ModuleDict({number: stages[number] for number in numbers[:first]})
    trunk_stem, tail_stem = (model.stem, nn.Identity()) if first else (nn.Identity(), model.stem)
    if first and isinstance(getattr(stages[numbers[first]], "downsample", None), nn.Module):
        # Behind the downsampling a photo's features are half as large, and its work is shared too.
        opened = stages[numbers[first]]
        whole[numbers[first]] = nn.Sequential(OrderedDict(downsample=opened.downsample))
        opened.downsample = nn.Identity()
    trunk = Trunk(normalization, trunk_stem, whole)
    tuned = nn.ModuleDict({number: stages[number] for number in numbers[first:]})
    norm_pre = getattr(model, "norm_pre", nn.Identity())
    return trunk, Tail(tail_stem, tuned, norm_pre, model.head)


def _frozen_parameters(tail: Tail, tune: str) -> Iterator[nn.Parameter]:
    if tune == "all":
        return
    for part in (tail.stem, tail.stages):
        if tune == "adapters":
            yield from part.parameters()
            continue
        for layer in part.modules():
            depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
            if isinstance(layer, nn.Linear | nn.Conv2d) and not depthwise:
                yield from layer.parameters()
