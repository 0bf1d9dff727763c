"""timm's optimizers and schedules over the tails of all folds, and the weights of the classes in the loss."""

from collections.abc import Sequence

import numpy as np
import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from trunkfold.config.schema import TrainConfig
from trunkfold.errors import InputError
from trunkfold.model.backbone import Tail, trained_parameters


def make_optimizer(tails: Sequence[Tail], config: TrainConfig) -> torch.optim.Optimizer:
    """A timm optimizer over all tails, with learning rates and weight decays of their own for tails and heads.

    Vectors (biases, norms, layer scales, DoRA's magnitudes) do not decay, timm's own rule.

    Raises:
        InputError: timm has no such optimizer, or it does not take the arguments.
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
        arguments = {**_fused(config.optimizer), **config.optimizer_args}
        return create_optimizer_v2(settings, config.optimizer, config.tail_lr, 0.0, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        known = ", ".join(list_optimizers(exclude_filters=("bnb*", "apex*", "fused*")))
        raise InputError(
            f"train.optimizer {config.optimizer} with train.optimizer_args {config.optimizer_args}: {error}; "
            f"timm has {known}"
        ) from error


def _fused(optimizer: str) -> dict[str, bool]:
    """One kernel for all weights instead of several per weight, for the two optimizers where PyTorch has a sound one.

    Fused SGD leaves its momentum uninitialised where loss scaling skips the first step, and uses it in the second.
    Fused Adagrad has no CUDA kernel.
    """
    kind = get_optimizer_class(optimizer.removeprefix("lookahead_"), bind_defaults=False)
    return {"fused": True} if kind in (torch.optim.Adam, torch.optim.AdamW) else {}


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> Scheduler:
    """A timm schedule over `config.epochs` of `steps` updates.

    Raises:
        InputError: timm has no such schedule, or it does not take the arguments.
    """
    reason: object = "unknown"  # older releases of timm give no schedule rather than an error
    arguments = {"min_lr": 0.0, "warmup_lr": 1e-7, **config.scheduler_args}
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            config.scheduler,
            num_epochs=config.epochs,
            # A shortened run would otherwise end before its learning rate has risen.
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
    """What a schedule remembers: of timm's only plateau does, the others are functions of the update's number."""
    plateau = getattr(scheduler, "lr_scheduler", None)
    return None if plateau is None else {"torch": plateau.state_dict(), "restore_lr": scheduler.restore_lr}


def restore_schedule(scheduler: Scheduler, state: dict | None) -> None:
    """Give a schedule back what `schedule_state` said."""
    if state is not None:
        scheduler.lr_scheduler.load_state_dict(state["torch"])
        scheduler.restore_lr = state["restore_lr"]


def balanced_class_weights(targets: np.ndarray, classes: int) -> Tensor:
    """Weights by the inverse of each class's frequency, of mean 1 over the photos: shape (classes,)."""
    counts = np.bincount(targets, minlength=classes)
    return torch.tensor(len(targets) / (np.count_nonzero(counts) * counts.clip(1)), dtype=torch.float32)
