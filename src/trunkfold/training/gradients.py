"""Gradients of all tails on a CPU, by a thread for each core, and the same to the bit on any number of cores."""

import copy
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trunkfold.cores import in_threads
from trunkfold.model.backbone import Tail, Trunk, trained_parameters
from trunkfold.model.drop_path import drawn_from
from trunkfold.model.features import through_trunk
from trunkfold.training.shares import learned_shares

# Forward operations of a tail's rows. Threads that run less than the first do nothing but wait for Python's lock. Above
# the second the last of an odd number of tails is halved, so that two cores share the work evenly. No more than that
# one, because each half builds the adapted matrices.
WORTH_A_THREAD, WORTH_HALVING = 1e9, 8e9


class GradientsByThreads:
    """Adds the gradients of a batch to the tails' parameters."""

    def __init__(
        self,
        accelerator: Accelerator,
        trunk: Trunk,
        tails: Sequence[Tail],
        loss_of: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Take the model.

        Args:
            accelerator: Its processes each give a share of a batch, and exchange gradients.
            trunk: On the CPU.
            tails: K of them, there too.
            loss_of: The loss of some logits (rows, classes) and class numbers (rows,), a sum over the rows.
        """
        self.accelerator, self.trunk, self.tails, self.loss_of = accelerator, trunk, tails, loss_of
        self.learning = [[parameter for _, parameter in trained_parameters(tail)] for tail in tails]
        self._operations_of_row: dict[torch.Size, int] = {}

    def __call__(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Each tail's loss, of shape (K,), from what `Lockstep.step` takes."""
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
        for (fold, *_), (loss, gradients) in zip(work, found, strict=True):  # in this order, so that bits repeat
            losses[fold] += loss
            for parameter, gradient in zip(self.learning[fold], gradients, strict=True):
                if parameter.grad is None:  # laid out as the parameter is, as fused optimizers take for granted
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.add_(gradient)
        if self.accelerator.num_processes > 1:
            self._exchange()
        return losses

    def _learn(self, work: tuple[int, Tensor, Tensor, int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss and gradients of one tail from some of its rows."""
        fold, features, targets, seed = work
        with self.accelerator.autocast(), drawn_from(seed):
            logits = self.tails[fold](features.float())
        loss = self.loss_of(logits.float(), targets)
        return loss.detach(), torch.autograd.grad(loss, self.learning[fold])

    def _exchange(self) -> None:
        """Sum the gradients over all processes, in one message."""
        parameters = [parameter for own in self.learning for parameter in own]
        summed = self.accelerator.reduce(torch.cat([parameter.grad.flatten() for parameter in parameters]), "sum")
        for parameter, gradient in zip(parameters, summed.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(gradient.view_as(parameter))

    def _count_operations(self, rows: Tensor) -> int:
        """Of a tail's forward pass."""
        shape = rows.shape[1:]
        if shape not in self._operations_of_row:
            # The counter's hooks fail where an input is a parameter that requires gradients, as in SigLIP's pool.
            tail = copy.deepcopy(self.tails[0]).requires_grad_(False).eval()
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                tail(rows[:1].float())
            self._operations_of_row[shape] = counter.get_total_flops()
        return self._operations_of_row[shape] * len(rows)
