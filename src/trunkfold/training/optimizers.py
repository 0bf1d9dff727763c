"""Optimizers and schedules of timm for the tails of all folds, and class weights of the loss."""

from collections.abc import Sequence

import numpy as np
import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from trunkfold.config.schema import TrainConfig
from trunkfold.errors import InputError
from trunkfold.model.parts import Tail, trained_parameters


def make_optimizer(tails: Sequence[Tail], config: TrainConfig) -> torch.optim.Optimizer:
    """Create a timm optimizer for all tails, with separate learning rates and weight decays for tails and heads.

    As in timm, weight decay excludes vectors (biases, norms, layer scales, DoRA's magnitudes).

    Raises:
        InputError: timm has no such optimizer, or it rejects the arguments.
    """
    rates = {"tail": (config.tail_lr, config.tail_weight_decay), "head": (config.head_lr, config.head_weight_decay)}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for tail in tails:
        head = set(tail.get_classifier().parameters())
        for _, parameter in trained_parameters(tail):
            part = "head" if parameter in head else "tail"
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    settings = [
        {"params": params, "name": part, "lr": rates[part][0], "weight_decay": rates[part][1] if decays else 0.0}
        for (part, decays), params in groups.items()
    ]
    try:
        # Other fused kernels are not safe: SGD's uses uninitialized momentum if loss scaling skips the first step, and
        # Adagrad's does not exist for CUDA.
        kind = get_optimizer_class(config.optimizer.removeprefix("lookahead_"), bind_defaults=False)
        fused = {"fused": True} if kind in (torch.optim.Adam, torch.optim.AdamW) else {}
        arguments = fused | config.optimizer_args
        return create_optimizer_v2(settings, config.optimizer, config.tail_lr, 0.0, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        known = ", ".join(list_optimizers(exclude_filters=("bnb*", "apex*", "fused*")))
        raise InputError(
            f"train.optimizer {config.optimizer} with train.optimizer_args {config.optimizer_args}: {error}; "
            f"timm has {known}"
        ) from error


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> Scheduler:
    """Create a timm schedule over `config.epochs` epochs of `steps` updates.

    Raises:
        InputError: timm has no such schedule, or it rejects the arguments.
    """
    reason: object = "unknown"  # older releases of timm return None instead of raising an error
    arguments = {"min_lr": 0.0, "warmup_lr": 1e-7, **config.scheduler_args}
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            config.scheduler,
            num_epochs=config.epochs,
            # Otherwise a short run could end during the warm-up.
            warmup_epochs=min(config.warmup_epochs, config.epochs / 4),
            step_on_epochs=config.scheduler == "plateau",
            updates_per_epoch=steps,
            **arguments,
        )
    except (TypeError, ValueError, AssertionError) as error:
        scheduler, reason = None, error
    if scheduler is None:
        raise InputError(
            f"train.scheduler {config.scheduler} with train.scheduler_args {config.scheduler_args}: {reason}; "
            "timm has cosine, tanh, step, multistep, plateau, poly ..."
        )
    return scheduler


def schedule_state(scheduler: Scheduler) -> dict | None:
    """Return the state of a schedule; only timm's plateau schedule has one."""
    plateau = getattr(scheduler, "lr_scheduler", None)
    return None if plateau is None else {"torch": plateau.state_dict(), "restore_lr": scheduler.restore_lr}


def restore_schedule(scheduler: Scheduler, state: dict | None) -> None:
    """Restore the result of `schedule_state`."""
    if state is not None:
        scheduler.lr_scheduler.load_state_dict(state["torch"])
        scheduler.restore_lr = state["restore_lr"]


def balanced_class_weights(targets: np.ndarray, classes: int) -> Tensor:
    """Return weights proportional to the inverse class frequency, with mean 1 over the photos: shape (classes,)."""
    counts = np.bincount(targets, minlength=classes)
    return torch.tensor(len(targets) / (np.count_nonzero(counts) * counts.clip(1)), dtype=torch.float32)
