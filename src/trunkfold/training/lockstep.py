"""Lockstep training of K tails: one batch, one forward pass of the trunk, and one step of every fold's tail."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from trunkfold.config.schema import TrainConfig
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import Backbone
from trunkfold.model.depthwise import use_fast_depthwise
from trunkfold.model.device_memory import LEARNING, fewest_pieces, told_of_memory
from trunkfold.model.half_precision import on_device
from trunkfold.model.parts import Tail, Trunk
from trunkfold.training.gradients import GradientsByThreads, learned_shares, rows_of_each_fold
from trunkfold.training.optimizers import make_optimizer, make_scheduler, restore_schedule, schedule_state

logger = logging.getLogger(__name__)
BY_THREADS = 0  # `Lockstep.pieces` on a CPU
NUMBERS_A_WEIGHT = 3  # values per weight besides the gradient: Adam's two moments and a communication buffer


class Lockstep:
    """K tails trained together, one step at a time.

    Attributes:
        tails: One tail per fold, on the accelerator's device.
        trunk: The shared trunk, on the same device.
        scheduler: timm's scheduler, stepped once per update.
        best: Trained parameters of each fold's best epoch, concatenated over folds; None until selected.
        pieces: Number of pieces each batch is split into to fit memory. Gradients equal those of the whole batch,
            except that `model.drop_path` drops different blocks. None until the first step on a GPU; `BY_THREADS` on a
            CPU, where exhausted memory is reported too late to react, see `GradientsByThreads`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: TrainConfig,
        backbone: Backbone,
        batches: FoldBalancedBatches,
        class_weights: Tensor | None = None,
    ) -> None:
        """Create the tails, their optimizer and its schedule.

        Args:
            class_weights: Weight of each class in the loss, with mean 1 over the training photos; None for no weights.

        Raises:
            InputError: timm has no such optimizer or schedule, or it rejects the arguments.
        """
        self.accelerator, self.config, self.batches = accelerator, config, batches
        self.trunk: Trunk = on_device(accelerator, backbone.trunk)
        # Spaced seeds, so that no other seed or fold has the same initial weights.
        tails = [backbone.make_tail(1000 * config.seed + fold) for fold in range(batches.folds)]
        self.tails = nn.ModuleList(tails).to(accelerator.device).train()
        optimizer = make_optimizer(tails, config)
        use_fast_depthwise(self.tails)
        # The schedule is not passed to accelerator.prepare, which would step it once per process.
        self.scheduler = make_scheduler(optimizer, config, len(batches))
        self.optimizer = accelerator.prepare(optimizer)
        self._by_threads = GradientsByThreads(accelerator, self.trunk, self.tails, self._loss)
        self.learning = nn.ParameterList(p for own in self._by_threads.learning for p in own)
        self.ema = None
        if config.ema_decay is not None:  # without exclude_buffers, timm would build state dicts in each step
            self.ema = ModelEmaV3(self.learning, config.ema_decay, use_warmup=True, exclude_buffers=True)
        self.class_weights = None if class_weights is None else class_weights.to(accelerator.device)
        self.best: list[Tensor] | None = None
        self.steps_done = 0
        self.pieces: int | None = None if accelerator.device.type == "cuda" else BY_THREADS

    def step(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Train on one batch of photos.

        Args:
            photos: uint8 of shape (K x rows_per_fold, 3, side, side), ordered by fold, on the device; or their trunk
                features, in any precision.
            targets: Class indices, of shape (K x rows_per_fold,).

        Returns:
            Mean loss of each fold, of shape (K,); with several processes, this process's share of it.

        Raises:
            MemoryFullError: The device's memory is too small.
        """
        if self.pieces is None:
            self.pieces = self._find_pieces(photos, targets)
        with told_of_memory(LEARNING):
            learn = self._by_threads if self.pieces == BY_THREADS else self._add_up_gradients
            losses = learn(photos, targets)
            if self.accelerator.num_processes > 1:
                self._exchange_gradients()
        if self.config.clip_grad is not None:
            self.accelerator.unscale_gradients(self.optimizer)
            for own in self._by_threads.learning:
                nn.utils.clip_grad_norm_(own, self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        self.scheduler.step_update(self.steps_done)
        if self.ema is not None:
            self.ema.update(self.learning, self.steps_done)
        return losses

    @contextmanager
    def weights(self, raw: bool = False) -> Iterator[Sequence[Tail]]:
        """Yield the tails in evaluation mode with the selected weights, and restore the current ones afterwards.

        Args:
            raw: Use the weights of the last step; otherwise those to keep: the best epochs' if selected, or averaged
                weights.
        """
        self.tails.eval()
        last = [parameter.data for parameter in self.learning]
        if not raw and self.best is not None:
            set_data(self.learning, self.best)
        elif not raw and self.ema is not None:
            set_data(self.learning, (averaged.data for averaged in self.ema.module))
        try:
            yield self.tails
        finally:
            set_data(self.learning, last)
            self.tails.train()

    def state_dict(self) -> dict:
        """Return the state changed by training, for `load_state_dict` of a lockstep with the same configuration."""
        scaler = self.accelerator.scaler
        return {
            "weights": [parameter.data for parameter in self.learning],
            "optimizer": self.optimizer.state_dict(),
            "schedule": schedule_state(self.scheduler),
            "scaler": None if scaler is None else scaler.state_dict(),
            "ema": None if self.ema is None else [averaged.data for averaged in self.ema.module],
            "steps_done": self.steps_done,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore the result of `state_dict`."""
        copy_data(self.learning, state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            for name, value in kept.items():  # in the original memory layout, for identical rounding
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        restore_schedule(self.scheduler, state["schedule"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            copy_data(self.ema.module, state["ema"])
        self.steps_done = state["steps_done"]

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rates: lr_tail and lr_head."""
        return {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}

    def _find_pieces(self, photos: Tensor, targets: Tensor) -> int:
        """Find the smallest number of pieces that fit, using the first batch; collective over all processes."""
        device = self.accelerator.device

        def attempt(rows: int) -> int:  # allocates the memory of a step; leaves weights, gradients and random state
            part = [rows_of_each_fold(batch, len(self.tails), slice(rows)) for batch in (photos, targets)]
            states = [torch.empty_like(p) for p in self.learning for _ in range(NUMBERS_A_WEIGHT)]
            with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
                torch.autograd.grad(self._losses(*part).sum(), list(self.learning))
            del states  # kept alive until here, as in a step
            return rows

        pieces = fewest_pieces(self.accelerator, self.batches.rows_per_fold, attempt)
        if pieces > 1:
            logger.warning(
                "train.batch_size %d is too large for the memory of %s: each batch is split into %d pieces, whose "
                "gradients are accumulated",
                self.config.batch_size,
                device,
                pieces,
            )
        return pieces

    def _add_up_gradients(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Accumulate this process's gradients and return each fold's part of its mean loss."""
        folds, rows = len(self.tails), self.batches.rows_per_fold
        pieces, total = min(self.pieces, rows), 0
        for piece in range(pieces):
            chosen = slice(rows * piece // pieces, rows * (piece + 1) // pieces)
            part = [rows_of_each_fold(batch, folds, chosen) for batch in (photos, targets)]
            losses = self._losses(*part)
            self.accelerator.backward(losses.sum())
            total += losses.detach()
        return total

    def _exchange_gradients(self) -> None:
        """Sum the gradients over all processes in one all-reduce."""
        summed = self.accelerator.reduce(torch.cat([parameter.grad.flatten() for parameter in self.learning]), "sum")
        for parameter, gradient in zip(self.learning, summed.split([p.numel() for p in self.learning]), strict=True):
            parameter.grad.copy_(gradient.view_as(parameter))

    def _losses(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Return each fold's part of its mean loss over the batch of all processes."""
        with self.accelerator.autocast():
            features = self.trunk(photos) if photos.dtype == torch.uint8 else photos.float()
            shares = learned_shares(features, len(self.tails))
            logits = [tail(share).float() for tail, share in zip(self.tails, shares, strict=True)]
        labels = learned_shares(targets, len(self.tails))
        return torch.stack([self._loss(*of_fold) for of_fold in zip(logits, labels, strict=True)])

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return a part of one fold's mean loss, for some of its rows."""
        smoothing = self.config.label_smoothing
        summed = F.cross_entropy(logits, targets, self.class_weights, label_smoothing=smoothing, reduction="sum")
        return summed / self.batches.batch_rows_learned


def set_data(parameters: Iterable[nn.Parameter], tensors: Iterable[Tensor]) -> None:
    """Point each parameter to a tensor, without copying."""
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data = tensor


def copy_data(parameters: Iterable[nn.Parameter], tensors: Iterable[Tensor]) -> None:
    """Copy a tensor into each parameter."""
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data.copy_(tensor)
