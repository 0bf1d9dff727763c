"""Comparison of an exported model with PyTorch before the file is written, and export with torch.export."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trunkfold.deploy.finished import FinishedRun
from trunkfold.deploy.graph import EnsembleModule, describe, ensemble_module, example_photos
from trunkfold.deploy.labelled import PlainPhotos
from trunkfold.errors import InputError
from trunkfold.evaluation.scores import validation_scores
from trunkfold.files import whole_file

EXACT = 1e-4  # largest accepted difference between probabilities of a float32 file and of PyTorch
Probabilities = Callable[[np.ndarray], np.ndarray]  # of uint8 photos (batch, 3, side, side)


@dataclass(frozen=True)
class Comparison:
    """Comparison of a model file with PyTorch's float32 ensemble, on the held-out photos or on noise.

    Attributes:
        difference: Largest absolute difference between probabilities.
        same_label: Share of photos with the same predicted label.
        photos: Number of scored held-out photos; 0 without a hold-out.
        macro_f1: Macro F1 of the file on these photos; None without a hold-out.
        macro_f1_pytorch: Macro F1 of PyTorch on these photos; None without a hold-out.
    """

    difference: float
    same_label: float
    photos: int = 0
    macro_f1: float | None = None
    macro_f1_pytorch: float | None = None

    @property
    def loss(self) -> float:
        """Loss of macro F1 relative to PyTorch."""
        return 0.0 if self.macro_f1 is None else self.macro_f1_pytorch - self.macro_f1

    def describe(self) -> str:
        """Describe the comparison in one line."""
        same = f"probabilities differ from PyTorch's by up to {self.difference:.1g}, {self.same_label:.1%} equal labels"
        if self.macro_f1 is None:
            return f"{same}; score not measured"
        scores = f"macro F1 {self.macro_f1:.4f} on {self.photos} held-out photos (PyTorch {self.macro_f1_pytorch:.4f})"
        return f"{scores}; {same}"

    def metadata(self) -> dict[str, str]:
        """Return all attributes as strings for the metadata of the file."""
        return {f"holdout_{name}": json.dumps(value) for name, value in vars(self).items()}


def export_torch(run: FinishedRun, out: Path, held_out: PlainPhotos | None) -> Comparison:
    """Write a file for `torch.export.load` with a dynamic batch size; metadata is in its extra file metadata.json.

    Raises:
        InputError: The exported model differs from PyTorch, or the file cannot be written.
    """
    module = ensemble_module(run)
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(module, (example_photos(run),), dynamic_shapes=dynamic)
    exported = program.module()
    compared = compare(module, lambda photos: exported(torch.from_numpy(photos)).numpy(), held_out, run)
    check(compared, "fp32")
    with whole_file(out) as partial, partial.open("wb") as file:
        metadata = json.dumps(describe(run) | compared.metadata(), indent=2)
        torch.export.save(program, file, extra_files={"metadata.json": metadata})
    return compared


@torch.no_grad()
def compare(
    module: EnsembleModule, exported: Probabilities, held_out: PlainPhotos | None, run: FinishedRun
) -> Comparison:
    """Run both models on the held-out photos or, without a hold-out, on noise."""
    batches = [example_photos(run, 5).numpy()] if held_out is None else held_out.batches()
    pairs = [(module(torch.from_numpy(photos)).numpy(), exported(photos)) for photos in batches]
    expected, found = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    both = float(np.abs(expected - found).max()), float((expected.argmax(1) == found.argmax(1)).mean())
    if held_out is None:
        return Comparison(*both)
    scores = [validation_scores(held_out.targets, table)["val_macro_f1"] for table in (found, expected)]
    return Comparison(*both, len(held_out), *scores)


def check(compared: Comparison, precision: str, most_loss: float = 0.0) -> None:
    """Raise an `InputError` if an exported model deviates too much for its precision.

    Probabilities decide for fp32, since rounding may change the label of a photo with almost equal probabilities.
    """
    if precision == "fp32":
        if compared.difference <= EXACT:
            return
        raise InputError(
            f"the exported model's probabilities differ from PyTorch's by up to {compared.difference:.1g}, so no file "
            "was written: try another version of torch or onnxscript"
        )
    if compared.loss > most_loss:
        raise InputError(
            f"{precision} loses {compared.loss:.4f} of macro F1 on the {compared.photos} held-out photos "
            f"({compared.macro_f1_pytorch:.4f} to {compared.macro_f1:.4f}), more than --max_loss {most_loss}, so no "
            "file was written: choose another --precision or raise --max_loss"
        )
