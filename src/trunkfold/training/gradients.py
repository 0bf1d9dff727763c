"""The rows of a batch that each tail trains on, and gradients of all tails on a CPU.

There, one thread per core processes its tails; results are bit-identical on any number of cores.
"""

import copy
import threading
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from timm.layers import DropPath
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trunkfold.cores import in_threads
from trunkfold.model.features import through_trunk
from trunkfold.model.parts import Tail, Trunk, trained_parameters

# FLOPs of a tail's forward pass for its rows of a batch. Below the first threshold, threads mostly wait for the GIL.
# Above the second, the rows of the last of an odd number of tails are halved, so that two cores share the work evenly.
# Only this tail is halved, because each half has to build the adapted matrices.
WORTH_A_THREAD, WORTH_HALVING = 1e9, 8e9
_of_thread = threading.local()


class GradientsByThreads:
    """Compute gradients of a batch, one tail per thread, and add them to the tails' parameters."""

    def __init__(
        self,
        accelerator: Accelerator,
        trunk: Trunk,
        tails: Sequence[Tail],
        loss_of: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Store the model, and convert its `DropPath` layers to `SeededDropPath`.

        Args:
            loss_of: Loss of logits (rows, classes) and class indices (rows,), summed over rows.
        """
        self.accelerator, self.trunk, self.tails, self.loss_of = accelerator, trunk, tails, loss_of
        self.learning = [[parameter for _, parameter in trained_parameters(tail)] for tail in tails]
        for layer in (layer for tail in tails for layer in tail.modules()):
            if type(layer) is DropPath:
                layer.__class__ = SeededDropPath
        self._operations_of_row: dict[torch.Size, int] = {}

    def __call__(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Return each tail's loss, of shape (K,), for the arguments of `Lockstep.step`."""
        features = through_trunk(self.accelerator, self.trunk, photos) if photos.dtype == torch.uint8 else photos
        folds = len(self.tails)
        shares = list(zip(learned_shares(features, folds), learned_shares(targets, folds), strict=True))
        operations = self._count_operations(shares[0][0])
        halved = folds % 2 and operations > WORTH_HALVING and len(shares[-1][0]) > 1
        parts = [(fold, share) for fold, share in enumerate(shares[: folds - 1 if halved else folds])]
        if halved:
            parts += [(folds - 1, half) for half in zip(*(each.tensor_split(2) for each in shares[-1]), strict=True)]
        seeds = torch.randint(2**62, (len(parts),)).tolist()
        work = [(fold, *share, seed) for (fold, share), seed in zip(parts, seeds, strict=True)]
        found = (in_threads if operations > WORTH_A_THREAD else map)(self._learn, work)
        losses = torch.zeros(folds)
        for (fold, *_), (loss, gradients) in zip(work, found, strict=True):  # a fixed order, for bit-identical sums
            losses[fold] += loss
            for parameter, gradient in zip(self.learning[fold], gradients, strict=True):
                if parameter.grad is None:  # zeros_like keeps the parameter's layout, as fused optimizers require
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.add_(gradient)
        return losses

    def _learn(self, work: tuple[int, Tensor, Tensor, int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return loss and gradients of one tail for some of its rows."""
        fold, features, targets, seed = work
        _of_thread.generator = torch.Generator().manual_seed(seed)
        with self.accelerator.autocast():
            logits = self.tails[fold](features.float())
        _of_thread.generator = None
        loss = self.loss_of(logits.float(), targets)
        return loss.detach(), torch.autograd.grad(loss, self.learning[fold])

    def _count_operations(self, rows: Tensor) -> int:
        """Count the operations of a tail's forward pass."""
        shape = rows.shape[1:]
        if shape not in self._operations_of_row:
            # The counter's hooks fail if an input is a parameter that requires gradients, as in SigLIP's pooling.
            tail = copy.deepcopy(self.tails[0]).requires_grad_(False).eval()
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                tail(rows[:1].float())
            self._operations_of_row[shape] = counter.get_total_flops()
        return self._operations_of_row[shape] * len(rows)


class SeededDropPath(DropPath):
    """timm's `DropPath`; for `GradientsByThreads`, with one generator per thread instead of one that all share."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop the residual branch of random rows."""
        generator = getattr(_of_thread, "generator", None)
        if generator is None or not self.training or not self.drop_prob:
            return super().forward(x)
        kept = 1 - self.drop_prob
        mask = torch.empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(kept, generator=generator)
        return x * (mask / kept if self.scale_by_keep and kept else mask).to(x.dtype)


def learned_shares(batch: Tensor, folds: int) -> list[Tensor]:
    """Return the rows each tail trains on: a batch, ordered by fold, without its own fold; all with a single fold."""
    rows = len(batch) // folds if folds > 1 else 0  # left out
    return [torch.cat([batch[: fold * rows], batch[(fold + 1) * rows :]]) for fold in range(folds)]


def rows_of_each_fold(batch: Tensor, folds: int, chosen: slice) -> Tensor:
    """Return the chosen rows of each fold of a batch ordered by fold."""
    return batch.unflatten(0, (folds, -1))[:, chosen].flatten(0, 1)
