"""An exported ensemble beside the run's own, measured before a file is written; and the torch.export format."""

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

EXACT = 1e-4  # largest difference of a probability between a float32 file and PyTorch
Probabilities = Callable[[np.ndarray], np.ndarray]  # of uint8 photos (batch, 3, side, side)


@dataclass(frozen=True)
class Comparison:
    """A model file beside PyTorch's float32 ensemble, on the held-out photos or, without any, on noise.

    Attributes:
        difference: The largest of any probability.
        same_label: Share of the photos that both predict the same label for.
        photos: Held-out photos that were scored; 0 without any.
        macro_f1: Of the file on them; None without any.
        macro_f1_pytorch: Of PyTorch on them; None without any.
    """

    difference: float
    same_label: float
    photos: int = 0
    macro_f1: float | None = None
    macro_f1_pytorch: float | None = None

    @property
    def loss(self) -> float:
        """Macro F1 that the file loses against PyTorch."""
        return 0.0 if self.macro_f1 is None else self.macro_f1_pytorch - self.macro_f1

    def describe(self) -> str:
        """One line for the console."""
        same = f"probabilities differ from PyTorch's by up to {self.difference:.1g}, {self.same_label:.1%} same labels"
        if self.macro_f1 is None:
            return f"{same}; score not measured"
        scores = f"macro F1 {self.macro_f1:.4f} on {self.photos} held-out photos (PyTorch {self.macro_f1_pytorch:.4f})"
        return f"{scores}; {same}"

    def metadata(self) -> dict[str, str]:
        """All of it, as texts."""
        return {f"holdout_{name}": json.dumps(value) for name, value in vars(self).items()}


def export_torch(run: FinishedRun, out: Path, held_out: PlainPhotos | None) -> Comparison:
    """Write a program for `torch.export.load`, with a dynamic batch; its metadata is the extra file metadata.json.

    Raises:
        InputError: The file differs from PyTorch, or cannot be written.
    """
    module = ensemble_module(run)
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(module, (example_photos(run),), dynamic_shapes=dynamic)
    exported = program.module()
    compared = compare(module, lambda photos: exported(torch.from_numpy(photos)).numpy(), held_out, run)
    check(compared, "fp32", 0.0)
    with whole_file(out) as partial, partial.open("wb") as file:
        metadata = json.dumps(describe(run) | compared.metadata(), indent=2)
        torch.export.save(program, file, extra_files={"metadata.json": metadata})
    return compared


@torch.no_grad()
def compare(
    module: EnsembleModule, exported: Probabilities, held_out: PlainPhotos | None, run: FinishedRun
) -> Comparison:
    """Run both on the held-out photos or, without any, on noise."""
    batches = [example_photos(run, 5).numpy()] if held_out is None else held_out.batches()
    pairs = [(module(torch.from_numpy(photos)).numpy(), exported(photos)) for photos in batches]
    expected, found = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    both = float(np.abs(expected - found).max()), float((expected.argmax(1) == found.argmax(1)).mean())
    if held_out is None:
        return Comparison(*both)
    scores = [validation_scores(held_out.targets, table)["val_macro_f1"] for table in (found, expected)]
    return Comparison(*both, len(held_out), *scores)


def check(compared: Comparison, precision: str, most_loss: float) -> None:
    """Raise an `InputError` unless a file is as good as its precision promises."""
    if precision == "fp32" and not compared.difference <= EXACT:
        raise InputError(
            f"the exported model's probabilities differ from PyTorch's by up to {compared.difference:.1g}: nothing is "
            "written; try another version of torch or onnxscript"
        )
    if compared.loss > most_loss:
        raise InputError(
            f"{precision} loses {compared.loss:.4f} of macro F1 on the {compared.photos} held-out photos "
            f"({compared.macro_f1_pytorch:.4f} to {compared.macro_f1:.4f}), more than --max_loss {most_loss}: nothing "
            "is written; export another --precision, or allow the loss"
        )
