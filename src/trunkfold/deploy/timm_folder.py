"""Export of one plain timm model, as a folder for `timm.create_model("local-dir:PATH")` and the Hugging Face Hub."""

from pathlib import Path

import numpy as np
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from trunkfold.assessment import Scores
from trunkfold.config.schema import ModelConfig
from trunkfold.deploy.finished import FinishedRun
from trunkfold.deploy.labelled import PlainPhotos
from trunkfold.errors import InputError
from trunkfold.evaluation.scores import validation_scores
from trunkfold.files import whole_folder, write_text
from trunkfold.model.families import family_of
from trunkfold.model.pretrained import PACKAGE, create_model
from trunkfold.split.folds import learned_from

AVERAGE = "average"
CARD = """---
library_name: timm
tags:
- image-classification
- timm
license: {license_tag}
---
# {name}: {which} of a k-fold ensemble

{model} fine-tuned on {photos} photos with {classes} classes: {labels}.

| property | value |
|---|---|
| hold-out macro F1 of this model (argmax) | {own} |
| hold-out macro F1 of the whole ensemble (95 % interval) | {holdout} |
| out-of-fold macro F1 (95 % interval) | {oof} |
| split | {split} |
| input | {side} x {side} pixels, the whole photo squeezed to a square, RGB |
| license of the pretrained weights | {license} |

Copies of one photo are never divided between training and evaluation, unless the split says `groups: none`. Scores are
for photos similar to the training photos; expect lower scores on others.

```python
import timm

model = timm.create_model("local-dir:PATH", pretrained=True).eval()  # or "hf-hub:USER/REPOSITORY"
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```
"""


def export_timm(run: FinishedRun, out: Path, fold: str | None, held_out: PlainPhotos | None) -> str:
    """Write a folder with safetensors weights, timm's config.json with the class names, and a model card.

    Args:
        out: Folder to write; must not exist.
        fold: Number of a fold, or "average" for the average of the tails' weights. None selects the average if its
            hold-out macro F1 is at least the mean of the folds', otherwise fold 0.
        held_out: Photos to evaluate on; None skips the evaluation.

    Returns:
        Description of the model and its score.

    Raises:
        InputError: There is no such fold, or the folder exists or cannot be written.
    """
    folds = [str(number) for number in range(len(run.tails))]
    if fold not in (None, AVERAGE, *folds):
        raise InputError(f"--fold {fold}: choose one of {', '.join(folds)}, or {AVERAGE}")
    if out.exists():
        raise InputError(f"--out {out} exists: remove it, or choose another folder")
    trunk = run.trunk.state_dict()
    states = {name: {**trunk, **tail.state_dict()} for name, tail in zip(folds, run.tails, strict=True)}
    states[AVERAGE] = _average(list(states.values()))
    scores = {} if held_out is None else {name: _macro_f1(run, state, held_out) for name, state in states.items()}
    if fold is None:
        good = scores and scores[AVERAGE] >= np.mean([scores[name] for name in folds])
        fold = AVERAGE if good else "0"
    which = "the average of the tails" if fold == AVERAGE else f"fold {fold}"
    model = _model(run, states[fold])
    labels, options = {"label_names": list(run.classes.values())}, family_of(run.config.model.name).options
    with whole_folder(out) as partial:
        save_for_hf(model, str(partial), model_config=labels, model_args=options or None, safe_serialization=True)
        write_text(_card(run, which, fold, scores.get(fold)), partial / "README.md")
    measured = f", macro F1 {scores[fold]:.4f} on {len(held_out)} held-out photos" if scores else ", not measured"
    return which + measured


def _average(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Average floating-point tensors; integer tensors (counters) are copied from the first state."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if first.is_floating_point() else first
        for name, first in states[0].items()
    }


def _model(run: FinishedRun, state: dict[str, torch.Tensor]) -> nn.Module:
    """Return a plain timm model with these weights and the run's input size and normalization."""
    model = create_model(run.config.model, len(run.classes), load_weights=False)
    model.load_state_dict(state)
    side = run.config.data.image_size
    mean, std = ((numbers.flatten() / 255).tolist() for numbers in (run.trunk.mean, run.trunk.std))
    shown = {"mean": tuple(mean), "std": tuple(std), "input_size": (3, side, side), "crop_pct": 1.0}
    shown |= {"crop_mode": "squash", "interpolation": "bilinear", "num_classes": len(run.classes)}
    model.pretrained_cfg = {**model.pretrained_cfg, **shown}
    return model.eval()


@torch.no_grad()
def _macro_f1(run: FinishedRun, state: dict[str, torch.Tensor], held_out: PlainPhotos) -> float:
    model, probabilities = _model(run, state), []
    for photos in held_out.batches():
        features = (torch.from_numpy(photos).float() - run.trunk.mean) / run.trunk.std
        probabilities.append(model(features).softmax(1).numpy())
    return validation_scores(held_out.targets, np.concatenate(probabilities))["val_macro_f1"]


def _card(run: FinishedRun, which: str, fold: str, own: float | None) -> str:
    model, fold_of_row = run.config.model, run.folds["fold"].to_numpy()
    learned = learned_from(fold_of_row) & (fold_of_row.astype(str) != fold)  # of a fold or, by all, of the average
    license_name, license_text = _license(model)
    split = ", ".join(f"{name}: {value}" for name, value in vars(run.metrics.split).items())
    return CARD.format(
        name=run.folder.name,
        which=which,
        model=model.name,
        photos=learned.sum(),
        classes=len(run.classes),
        labels=", ".join(run.classes.values()),
        own="not measured" if own is None else f"{own:.4f}",
        holdout=_score(run.metrics.holdout),
        oof=_score(run.metrics.oof),
        split=split,
        side=run.config.data.image_size,
        license=license_text,
        license_tag=license_name or "other",
    )


def _license(model: ModelConfig) -> tuple[str | None, str]:
    """Return the license of the pretrained weights, None if unknown, and its description."""
    if model.weights is not None:
        package = model.weights.removeprefix(PACKAGE)
        origin = "a local file" if package == model.weights else f"from the Python package {package}"
        return None, f"unknown (model.weights is {origin})"
    if not model.pretrained:
        return None, "none (trained from random weights)"
    name = timm.get_pretrained_cfg(model.name).license
    return name, name or "not stated by timm"


def _score(scores: Scores | None) -> str:
    if scores is None:
        return "none held out"
    low, high = scores.intervals.macro_f1
    return f"{scores.macro_f1:.4f} ({low:.4f} to {high:.4f})"
