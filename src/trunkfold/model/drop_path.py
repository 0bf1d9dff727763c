"""Stochastic depth that is reproducible with several threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import DropPath
from torch import Tensor, nn

_of_thread = threading.local()


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Seed the `SeededDropPath` layers in this thread, instead of using the generator shared by all threads."""
    _of_thread.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _of_thread.generator = None


class SeededDropPath(DropPath):
    """timm's `DropPath` with one generator per thread on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop the residual branch of random rows."""
        generator = getattr(_of_thread, "generator", None)
        if generator is None or not self.training or not self.drop_prob:
            return super().forward(x)
        kept = 1 - self.drop_prob
        mask = torch.empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(kept, generator=generator)
        return x * (mask / kept if self.scale_by_keep and kept else mask).to(x.dtype)


def use_seeded_drop_path(model: nn.Module) -> None:
    """Convert the `DropPath` layers of a model to `SeededDropPath`, in place."""
    for layer in model.modules():
        if type(layer) is DropPath:
            layer.__class__ = SeededDropPath
