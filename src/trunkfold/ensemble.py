"""K tails behind one trunk: saved and loaded without unpickling, merged, and averaged over folds and views."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trunkfold.backbone import Backbone, Tail, build_backbone, check_tensors, merge, trained_parameters
from trunkfold.config import Config
from trunkfold.errors import InputError, first_few
from trunkfold.features import FeatureBatches
from trunkfold.runs import whole_file, write_text
from trunkfold.splits import HELD_OUT

SHARED, ADAPTER, ADAPTER_CONFIG, TAIL = (
    "shared.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
    "tail.safetensors",
)
PEFT_PREFIX = "base_model.model."  # lets peft.PeftModel.from_pretrained(timm_model, fold_0) read the adapter too


@torch.no_grad()
def average_probabilities(
    accelerator: Accelerator, tails: Sequence[nn.Module], members: np.ndarray, views: Iterable[FeatureBatches]
) -> np.ndarray:
    """Mean probabilities of each row over its tails and over the views.

    Args:
        accelerator: Sums what the processes found, each for its own rows.
        tails: K tails, in evaluation mode.
        members: bool of shape (rows, K): which tails predict a row. Out-of-fold, it is the one that did not learn
            from it; of a held-out or unlabelled photo, all.
        views: Feature batches for each view.

    Returns:
        float64 of shape (rows, classes); NaN where a row has no tail.

    Raises:
        RuntimeError: A row was not predicted exactly once a view.
    """
    classes = tails[0].head.fc.out_features
    sums = torch.zeros(len(members), classes, device=accelerator.device)
    visits = torch.zeros(len(members), device=accelerator.device)
    seen_views = 0
    for batches in views:
        seen_views += 1
        for rows, features in batches:
            features = features.to(accelerator.device).float()
            visits += torch.bincount(torch.from_numpy(rows), minlength=len(visits)).to(visits)
            for tail, chosen in zip(tails, members[rows].T, strict=True):
                if chosen.any():
                    with accelerator.autocast():
                        logits = tail(features if chosen.all() else features[torch.from_numpy(chosen)])
                    sums[torch.from_numpy(rows[chosen])] += logits.float().softmax(1)
    sums, visits = accelerator.reduce(sums, "sum"), accelerator.reduce(visits, "sum")
    counts = members.sum(1)
    if not np.array_equal(visits.cpu().numpy()[counts > 0], np.full((counts > 0).sum(), seen_views)):
        raise RuntimeError("a photo was predicted twice or not at all")
    with np.errstate(invalid="ignore"):
        return sums.cpu().numpy().astype(np.float64) / (counts * seen_views)[:, None]


def scoring_members(fold_of_row: np.ndarray, folds: int) -> np.ndarray:
    """Which tails score a labelled photo without having seen it, for `average_probabilities`.

    Args:
        fold_of_row: Fold of each row, -1 for held-out ones, -2 for those that no tail scores.
        folds: Number of tails.

    Returns:
        bool of shape (rows, folds): the tail of its own fold, and of a held-out photo all.
    """
    return (fold_of_row[:, None] == np.arange(folds)) | (fold_of_row[:, None] == HELD_OUT)


def save_shared(folder: Path, backbone: Backbone) -> None:
    """Write what all folds share, once a run, so that the run needs neither a network nor the first weights."""
    with whole_file(folder / SHARED) as partial:
        save_file({name: tensor.contiguous() for name, tensor in backbone.shared_state().items()}, partial)


def save_fold(folder: Path, tail: Tail) -> None:
    """Write a tuned tail: peft's own adapter files, and the other numbers that learned in tail.safetensors."""
    folder.mkdir(exist_ok=True)
    adapter = get_peft_model_state_dict(tail)
    with whole_file(folder / ADAPTER) as partial:
        save_file({PEFT_PREFIX + name: tensor.contiguous() for name, tensor in adapter.items()}, partial)
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in _adapter_config(tail).items()}
    write_text(json.dumps(config, indent=2, default=str) + "\n", folder / ADAPTER_CONFIG)
    with whole_file(folder / TAIL) as partial:
        save_file(_without_adapters(tail), partial)


def load_ensemble(folder: Path, config: Config, classes: int) -> tuple[Backbone, list[Tail]]:
    """Rebuild a run's model from its folder alone.

    Args:
        folder: The run.
        config: Its configuration.
        classes: Its number of classes.

    Returns:
        The backbone, and the merged tails in the order of the folds.

    Raises:
        InputError: A file is missing, damaged, or of another model.
    """
    backbone = build_backbone(config.model, classes, load_weights=False, normalize=config.data.normalize)
    try:
        backbone.load_shared_state(_load(folder / SHARED))
    except ValueError as error:
        raise InputError(f"{folder / SHARED} does not fit the model of config.yaml: {error}") from error
    folds = range(config.split.folds)
    more = [path.name for path in folder.glob("fold_*") if path.name not in {f"fold_{fold}" for fold in folds}]
    if more:
        raise InputError(f"{folder} has {first_few(sorted(more))}, but config.yaml has split.folds {len(folds)}")
    return backbone, [merge(_load_fold(folder / f"fold_{fold}", backbone)) for fold in folds]


def _load_fold(folder: Path, backbone: Backbone) -> Tail:
    tail = backbone.make_tail(seed=0)
    adapter = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in _load(folder / ADAPTER).items()}
    others = _load(folder / TAIL)
    for file, own, found in (
        (ADAPTER, get_peft_model_state_dict(tail), adapter),
        (TAIL, _without_adapters(tail), others),
    ):
        try:
            check_tensors(own, found)
        except ValueError as error:
            raise InputError(f"{folder / file} does not fit the model of config.yaml: {error}") from error
    set_peft_model_state_dict(tail, adapter)
    tail.load_state_dict(others, strict=False)
    return tail


def _without_adapters(tail: Tail) -> dict[str, Tensor]:
    state = {name: p.data for name, p in trained_parameters(tail) if ".lora_" not in name}
    return {name: tensor.contiguous() for name, tensor in {**state, **dict(tail.named_buffers())}.items()}


def _adapter_config(tail: Tail) -> dict:
    return tail.peft_config["default"].to_dict()


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the run did not finish, or was copied in part") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
