"""K tails that learn together: one batch, one pass through the trunk, and a step of every fold's tail."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from trunkfold.backbone import Backbone, Tail, Trunk, trained_parameters
from trunkfold.config import TrainConfig
from trunkfold.loaders import FoldBalancedBatches
from trunkfold.optim import make_optimizer, make_scheduler, restore_schedule, schedule_state


class Tails(nn.Module):
    """The tails of all folds; each sees the features of the photos that are not its fold's."""

    def __init__(self, tails: list[Tail], rows_left_out: int) -> None:
        """Take the tails of K folds, and how many photos of each stand behind each other in a batch that its tail does
        not see; 0 for one fold."""
        super().__init__()
        self.tails = nn.ModuleList(tails)
        self.rows_left_out = rows_left_out

    def forward(self, features: Tensor) -> Tensor:
        """Features (K x n, channels, height, width) to logits (K, (K - 1) x n, classes)."""
        seen = [without_fold(features, fold, self.rows_left_out) for fold in range(len(self.tails))]
        return torch.stack([tail(share) for tail, share in zip(self.tails, seen, strict=True)])


def without_fold(batch: Tensor, fold: int, rows_left_out: int) -> Tensor:
    """What a fold's tail learns from: the batch without the rows of that fold."""
    start = fold * rows_left_out
    return torch.cat([batch[:start], batch[start + rows_left_out :]])


class Lockstep:
    """K tails that learn together, a step at a time.

    Attributes:
        tails: One for each fold, on the accelerator's device.
        trunk: The shared part, there too.
        scheduler: timm's, stepped once an update.
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
        self.trunk: Trunk = backbone.trunk.to(accelerator.device)
        # Seeds far apart, so that neither another seed nor another fold starts from the same numbers.
        self.tails = [backbone.make_tail(1000 * config.seed + fold) for fold in range(batches.folds)]
        optimizer = make_optimizer(self.tails, config)
        # The schedule stays unprepared: Accelerate would step it once a process.
        self.scheduler = make_scheduler(optimizer, config, len(batches))
        self.model, self.optimizer = accelerator.prepare(Tails(self.tails, batches.rows_left_out), optimizer)
        self.learning = nn.ParameterList(p for tail in self.tails for _, p in trained_parameters(tail))
        decay = config.ema_decay
        self.ema = None if decay is None else ModelEmaV3(self.learning, decay, use_warmup=True)
        self.class_weights = None if class_weights is None else class_weights.to(accelerator.device)
        self.steps_done = 0

    def step(self, photos: Tensor, targets: Tensor) -> Tensor:
        """Learn from one batch of photos.

        Args:
            photos: uint8 of shape (K x rows_per_fold, 3, side, side), fold by fold, on the device; or what the trunk
                made of them, in any precision.
            targets: Class numbers, of shape (K x rows_per_fold,).

        Returns:
            Each fold's mean loss, of shape (K,); with several processes, this one's part of that sum.
        """
        with self.accelerator.autocast():
            features = self.trunk(photos) if photos.dtype == torch.uint8 else photos.float()
        self.model.train()
        losses = self._losses(self.model(features), targets)
        # Gradients are averaged over the processes, but each one's loss is a part of the sum.
        self.accelerator.backward(losses.sum() * self.accelerator.num_processes)
        if self.config.clip_grad is not None:
            self.accelerator.unscale_gradients(self.optimizer)
            for tail in self.tails:
                nn.utils.clip_grad_norm_([p for _, p in trained_parameters(tail)], self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        self.scheduler.step_update(self.steps_done)
        if self.ema is not None:
            self.ema.update(self.learning, self.steps_done)
        return losses.detach()

    @contextmanager
    def final_weights(self) -> Iterator[list[Tail]]:
        """The tails with the weights that will be kept (the averaged ones, where there are), in evaluation mode."""
        self.model.eval()
        self.keep_final_weights()
        try:
            yield self.tails
        finally:
            set_data(self.learning, self.last)

    def keep_final_weights(self) -> None:
        """End the training: the tails hold `final_weights` for good."""
        self.model.eval()
        self.last = [parameter.data for parameter in self.learning]
        if self.ema is not None:
            set_data(self.learning, (averaged.data for averaged in self.ema.module))

    @contextmanager
    def raw_weights(self) -> Iterator[list[Tail]]:
        """After `keep_final_weights`: the tails with the weights of the last step, before they were averaged."""
        kept = [parameter.data for parameter in self.learning]
        set_data(self.learning, self.last)
        try:
            yield self.tails
        finally:
            set_data(self.learning, kept)

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

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        of_fold = [
            F.cross_entropy(
                fold_logits,
                without_fold(targets, fold, self.batches.rows_left_out),
                weight=self.class_weights,
                label_smoothing=self.config.label_smoothing,
                reduction="sum",
            )
            for fold, fold_logits in enumerate(logits)
        ]
        return torch.stack(of_fold) / self.batches.batch_rows_learned


def set_data(parameters: Iterable[nn.Parameter], tensors: Iterable[Tensor]) -> None:
    """Give each parameter the numbers of a tensor, without copying them."""
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data = tensor


def copy_data(parameters: Iterable[nn.Parameter], tensors: Iterable[Tensor]) -> None:
    """Copy the numbers of a tensor into each parameter."""
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.data.copy_(tensor)
