"""K tails that learn together: one batch, one pass through the trunk, and a step of every fold's tail."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from trunkfold.config.schema import TrainConfig
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import Backbone, Tail, Trunk
from trunkfold.model.depthwise import use_fast_depthwise
from trunkfold.model.device_memory import LEARNING, fewest_pieces, told_of_memory
from trunkfold.model.drop_path import use_seeded_drop_path
from trunkfold.model.half_precision import on_device
from trunkfold.training.gradients import GradientsByThreads
from trunkfold.training.optimizers import make_optimizer, make_scheduler, restore_schedule, schedule_state
from trunkfold.training.shares import learned_shares, rows_of_each_fold

logger = logging.getLogger(__name__)
BY_THREADS = 0  # `Lockstep.pieces` on a CPU
NUMBERS_A_WEIGHT = 3  # that a step takes beside the gradient: Adam's two moments, one on the way to other processes


class Tails(nn.Module):
    """The tails of all folds; each sees the features of the photos that are not its fold's."""

    def __init__(self, tails: list[Tail]) -> None:
        super().__init__()
        self.tails = nn.ModuleList(tails)

    def forward(self, features: Tensor) -> Tensor:
        """Features (K x n, channels, height, width) to logits (K, (K - 1) x n, classes)."""
        shares = learned_shares(features, len(self.tails))
        return torch.stack([tail(share) for tail, share in zip(self.tails, shares, strict=True)])


class Lockstep:
    """K tails that learn together, a step at a time.

    Attributes:
        tails: One for each fold, on the accelerator's device.
        trunk: The shared part, there too.
        scheduler: timm's, stepped once an update.
        best: The trained parameters of each fold's best epoch, fold after fold; None before they were chosen.
        pieces: In how many parts a batch goes through the model so that the device's memory holds it. The gradients are
            the undivided batch's, but with `model.drop_path` other blocks are left out. None where the first step shall
            find the number, on a GPU. `BY_THREADS` on a CPU, which does not say in time that its memory is full: there
            see `GradientsByThreads`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: TrainConfig,
        backbone: Backbone,
        batches: FoldBalancedBatches,
        class_weights: Tensor | None = None,
    ) -> None:
        """Make the tails, their optimizer and its schedule.

        Args:
            config: How they learn.
            backbone: What they are made of.
            batches: How many photos of each fold a batch and an epoch hold.
            class_weights: Weight of each class in the loss, of mean 1 over the training photos; None for equal ones.

        Raises:
            InputError: timm has no such optimizer or schedule, or it takes no such arguments.
        """
        self.accelerator, self.config, self.batches = accelerator, config, batches
        self.trunk: Trunk = on_device(accelerator, backbone.trunk)
        # Seeds far apart, so that neither another seed nor another fold starts from the same numbers.
        self.tails = [backbone.make_tail(1000 * config.seed + fold) for fold in range(batches.folds)]
        optimizer = make_optimizer(self.tails, config)
        for tail in self.tails:
            use_fast_depthwise(tail)
            use_seeded_drop_path(tail)
        # The schedule stays unprepared: Accelerate would step it once a process.
        self.scheduler = make_scheduler(optimizer, config, len(batches))
        self.model, self.optimizer = accelerator.prepare(Tails(self.tails).train(), optimizer)
        self._by_threads = GradientsByThreads(accelerator, self.trunk, self.tails, self._loss)
        self.learning = nn.ParameterList(p for own in self._by_threads.learning for p in own)
        decay = config.ema_decay
        self.ema = None
        if decay is not None:  # without buffers, as there are none: their state dicts would be built in each step
            self.ema = ModelEmaV3(self.learning, decay, use_warmup=True, exclude_buffers=True)
        self.class_weights = None if class_weights is None else class_weights.to(accelerator.device)
        self.best: list[Tensor] | None = None
        self.steps_done = 0
        self.pieces: int | None = None if accelerator.device.type == "cuda" else BY_THREADS

    def step(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Learn from one batch of photos.

        Args:
            photos: uint8 of shape (K x rows_per_fold, 3, side, side), fold by fold, on the device; or what the trunk
                made of them, in any precision.
            targets: Class numbers, of shape (K x rows_per_fold,).

        Returns:
            Each fold's mean loss, of shape (K,); with several processes, this one's part of that sum.

        Raises:
            MemoryFullError: The device's memory is too small.
        """
        if self.pieces is None:
            self.pieces = self._find_pieces(photos, targets)
        with told_of_memory(LEARNING):
            learn = self._by_threads if self.pieces == BY_THREADS else self._add_up_gradients
            losses = learn(photos, targets)
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
    def weights(self, raw: bool = False) -> Iterator[list[Tail]]:
        """Put weights into the tails for as long as they are used, in evaluation mode.

        Args:
            raw: Those of the last step; else the ones to keep: the best epochs' where `best` has them, or the averaged
                ones where weights are averaged.
        """
        self.model.eval()
        last = [parameter.data for parameter in self.learning]
        if not raw and self.best is not None:
            set_data(self.learning, self.best)
        elif not raw and self.ema is not None:
            set_data(self.learning, (averaged.data for averaged in self.ema.module))
        try:
            yield self.tails
        finally:
            set_data(self.learning, last)
            self.model.train()

    def state_dict(self) -> dict:
        """All that the steps have changed, for `load_state_dict` of a lockstep that was made alike."""
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
        """Go on where `state_dict` was asked."""
        copy_data(self.learning, state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            for name, value in kept.items():  # laid out in memory as they were, for the same rounding
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        restore_schedule(self.scheduler, state["schedule"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            copy_data(self.ema.module, state["ema"])
        self.steps_done = state["steps_done"]

    def learning_rates(self) -> dict[str, float]:
        """The present learning rates: lr_tail and lr_head."""
        return {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}

    def _find_pieces(self, photos: Tensor, targets: Tensor) -> int:
        """The fewest that fit, tried with the first batch; all processes take part."""

        def attempt(rows: int) -> None:
            part = [rows_of_each_fold(batch, len(self.tails), slice(rows)) for batch in (photos, targets)]
            self._rehearse(*part)

        pieces = fewest_pieces(self.accelerator, self.batches.rows_per_fold, attempt)
        if pieces > 1:
            logger.warning(
                "train.batch_size %d is too large for the memory of %s: each batch is learned from in %d pieces, whose "
                "gradients add up to those of the whole",
                self.config.batch_size,
                self.accelerator.device,
                pieces,
            )
        return pieces

    def _rehearse(self, photos: Tensor, targets: Tensor) -> None:
        """Take the memory of a step, and leave no trace: not in weights or gradients, nor in random numbers.

        The processes' exchange of gradients takes no part, since they may try different sizes.
        """
        device = self.accelerator.device
        devices = [] if device.type == "cpu" else [device]
        states = [torch.empty_like(p) for p in self.learning for _ in range(NUMBERS_A_WEIGHT)]
        with torch.random.fork_rng(devices, device_type=device.type):
            losses = self._losses(self.accelerator.unwrap_model(self.model), photos, targets)
            torch.autograd.grad(losses.sum(), list(self.learning))
        del states  # held until here, as they will be in a step

    def _add_up_gradients(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Each fold's mean loss; processes exchange gradients once, with the last piece."""
        folds, rows = len(self.tails), self.batches.rows_per_fold
        pieces, total = min(self.pieces, rows), 0
        for piece in range(pieces):
            chosen = slice(rows * piece // pieces, rows * (piece + 1) // pieces)
            part = [rows_of_each_fold(batch, folds, chosen) for batch in (photos, targets)]
            with nullcontext() if piece == pieces - 1 else self.accelerator.no_sync(self.model):
                losses = self._losses(self.model, *part)
                # Gradients are averaged over the processes, but each one's loss is a part of the sum.
                self.accelerator.backward(losses.sum() * self.accelerator.num_processes)
            total += losses.detach()
        return total

    def _losses(self, model: nn.Module, photos: Tensor, targets: Tensor) -> Tensor:
        """Each fold's part of its mean loss over the whole batch of all processes."""
        with self.accelerator.autocast():
            features = self.trunk(photos) if photos.dtype == torch.uint8 else photos.float()
        logits, labels = model(features), learned_shares(targets, len(self.tails))
        return torch.stack([self._loss(*of_fold) for of_fold in zip(logits, labels, strict=True)])

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One fold's part of its mean loss, from some of its rows."""
        smoothing = self.config.label_smoothing
        summed = F.cross_entropy(logits, targets, self.class_weights, label_smoothing=smoothing, reduction="sum")
        return summed / self.batches.batch_rows_learned


def set_data(parameters: Iterable[nn.Parameter], tensors: Iterable[Tensor]) -> None:
    """Give each parameter the numbers of a tensor, without copying them."""
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data = tensor


def copy_data(parameters: Iterable[nn.Parameter], tensors: Iterable[Tensor]) -> None:
    """Copy the numbers of a tensor into each parameter."""
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data.copy_(tensor)
