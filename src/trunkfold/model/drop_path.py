"""Stochastic depth that draws the same blocks whichever thread runs them first."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import DropPath
from torch import Tensor, nn

_of_thread = threading.local()


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Let this thread's `SeededDropPath` draw from a seed, not from the generator that all threads share."""
    _of_thread.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _of_thread.generator = None


class SeededDropPath(DropPath):
    """timm's `DropPath`, on a CPU with random numbers of its thread."""

    def forward(self, x: Tensor) -> Tensor:
        """The residual branch, without the rows that are left out."""
        generator = getattr(_of_thread, "generator", None)
        if generator is None or not self.training or not self.drop_prob:
            return super().forward(x)
        kept = 1 - self.drop_prob
        mask = torch.empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(kept, generator=generator)
        return x * (mask / kept if self.scale_by_keep and kept else mask).to(x.dtype)


def use_seeded_drop_path(model: nn.Module) -> None:
    """Turn the `DropPath` layers of a model into `SeededDropPath`, in place."""
    for layer in model.modules():
        if type(layer) is DropPath:
            layer.__class__ = SeededDropPath
