"""The ensemble of K tails on one trunk: saving, loading (without pickle), merging and prediction."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trunkfold.config.schema import Config
from trunkfold.cores import in_threads
from trunkfold.errors import InputError, first_few
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.model.device_memory import PREDICTING, in_pieces, told_of_memory
from trunkfold.model.features import FeatureBatches
from trunkfold.model.layers import merge
from trunkfold.model.parts import Tail, trained_parameters
from trunkfold.model.pretrained import check_tensors
from trunkfold.run_folder import FoldFiles, RunFolder

PEFT_PREFIX = "base_model.model."  # so that peft.PeftModel.from_pretrained(timm_model, fold_0) can load the adapter


@torch.no_grad()
@told_of_memory(PREDICTING)
def predict(
    accelerator: Accelerator, tails: Sequence[nn.Module], members: np.ndarray, views: Sequence[FeatureBatches]
) -> np.ndarray:
    """Predict probabilities of each row with its tails in each view.

    Args:
        accelerator: Accelerator that gathers the rows of all processes.
        tails: K tails, in evaluation mode.
        members: bool of shape (rows, K), the tails that predict a row: the tail not trained on it for an out-of-fold
            photo, all tails for a held-out or unlabelled photo.
        views: Feature batches of each view.

    Returns:
        float32 of shape (views, rows, K, classes); NaN where `members` is False.

    Raises:
        RuntimeError: A row was not predicted exactly once per view.
        MemoryFullError: The device's memory is too small.
    """
    classes, device = tails[0].get_classifier().out_features, accelerator.device
    by_cores = in_threads if device.type == "cpu" else map
    found = torch.zeros(len(views), *members.shape, classes, device=device)
    visits = torch.zeros(len(views), len(members), device=device)
    for batches, found_in_view, visits_in_view in zip(views, found, visits, strict=True):
        for rows, features in batches:
            features = features.to(device).float()

            def logits_of(place: int, rows: np.ndarray = rows, features: Tensor = features) -> Tensor:
                chosen = members[rows, place]
                with torch.no_grad(), accelerator.autocast():
                    own = features if chosen.all() else features[torch.from_numpy(chosen)]
                    return in_pieces(tails[place], own, PREDICTING)

            visits_in_view += torch.bincount(torch.from_numpy(rows), minlength=len(members)).to(visits)
            places = [place for place, of_tail in enumerate(members[rows].T) if of_tail.any()]
            for place, logits in zip(places, by_cores(logits_of, places), strict=True):
                found_in_view[torch.from_numpy(rows[members[rows, place]]), place] = logits.float().softmax(1)
    found, visits = accelerator.reduce(found, "sum").cpu().numpy(), accelerator.reduce(visits, "sum").cpu().numpy()
    if not (visits[:, members.any(1)] == 1).all():
        raise RuntimeError("a photo was predicted twice or not at all")
    return np.where(members[:, :, None], found, np.float32(np.nan))


def save_shared(run: RunFolder, backbone: Backbone) -> None:
    """Write the weights shared by all folds, so that the run can be used without downloading initial weights."""
    run.save(_packed(backbone.shared_state()), run.shared)


def save_fold(run: RunFolder, fold: int, tail: Tail) -> None:
    """Write a tuned tail: peft's adapter files, and the other trained parameters."""
    files, adapter = run.fold(fold), get_peft_model_state_dict(tail)
    run.save(_packed({PEFT_PREFIX + name: tensor for name, tensor in adapter.items()}), files.adapter)
    options = tail.peft_config["default"].to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in options.items()}
    run.save(json.dumps(config, indent=2, default=str) + "\n", files.adapter_config)
    run.save(_packed(_without_adapters(tail)), files.tail)


def load_ensemble(run: RunFolder, config: Config, classes: int) -> tuple[Backbone, list[Tail]]:
    """Load a run's model from its folder.

    Returns:
        The backbone, and the merged tails in order of folds.

    Raises:
        InputError: A file is missing, damaged, or does not fit the model.
    """
    backbone = build_backbone(config.model, classes, load_weights=False, normalize=config.data.normalize)
    backbone.load_shared_state(_load(run.shared, backbone.shared_state(), run.config.name))
    folds = range(config.split.folds)
    more = run.saved_folds() - {f"fold_{fold}" for fold in folds}
    if more:
        raise InputError(f"{run} has {first_few(sorted(more))}, but {run.config.name} has split.folds {len(folds)}")
    return backbone, [merge(_load_fold(run.fold(fold), run.config.name, backbone)) for fold in folds]


def _load_fold(files: FoldFiles, config_name: str, backbone: Backbone) -> Tail:
    tail = backbone.make_tail(seed=0)
    set_peft_model_state_dict(tail, _load(files.adapter, get_peft_model_state_dict(tail), config_name))
    tail.load_state_dict(_load(files.tail, _without_adapters(tail), config_name), strict=False)
    return tail


def _without_adapters(tail: Tail) -> dict[str, Tensor]:
    return {name: p.data for name, p in trained_parameters(tail) if ".lora_" not in name}


def _packed(tensors: dict[str, Tensor]) -> bytes:
    """Serialize to safetensors; its save_file does not raise OSError for a full disk."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _load(path: Path, expected: dict[str, Tensor], config_name: str) -> dict[str, Tensor]:
    """Read tensors without peft's prefix; their names and shapes must be those of the expected ones."""
    try:
        found = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in load_file(path).items()}
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the run did not finish, or was copied incompletely") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    try:
        check_tensors(expected, found)
    except ValueError as error:
        raise InputError(f"{path} does not fit the model of {config_name}: {error}") from error
    return found
