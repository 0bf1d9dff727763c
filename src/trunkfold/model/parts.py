"""Trunk and tail as modules: the trunk is frozen and shared by all folds, the tail is tuned per fold."""

from collections.abc import Iterator, Sequence
from math import isqrt
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Part(nn.Module):
    """Some layers of a timm model, under timm's names; mixed into the model's own class to use its methods.

    Attributes:
        before: Layers and methods that run before the units.
        units: Blocks, or stages of blocks.
        after: Layers that run after the units.
    """

    before: Sequence[str]
    units: Sequence[str]
    after: Sequence[str]

    def run(self, x: Tensor) -> Tensor:
        """Compute features, (batch, channels, height, width) or (batch, tokens, channels), of photos or features."""
        for name in self.before:
            x = attrgetter(name)(self)(x)
            if isinstance(x, tuple):
                x, _ = x  # drops EVA's rotary positions, which depend only on the number of tokens
        positions = {}
        if self.units and getattr(self, "rope", None) is not None:
            side = isqrt(x.shape[1] - self.num_prefix_tokens)
            positions = {"rope": self.rope.get_embed(shape=(side, side))}
        for name in self.units:
            x = attrgetter(name)(self)(x, **positions)
        for name in self.after:
            x = attrgetter(name)(self)(x)
        return x


class Trunk(Part):
    """The layers before the first tuned one: uint8 photos (batch, 3, side, side) in, features out.

    The trunk includes normalization; if the whole network is tuned, its features are the normalized photos.
    """

    def train(self, mode: bool = True) -> "Trunk":
        """Stay in evaluation mode, because the trunk must not change during training."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, photos: Tensor) -> Tensor:
        normalised = (photos.to(self.mean.dtype) - self.mean) / self.std
        features = self.run(normalised.to(memory_format=torch.channels_last))
        # One layout for all models; Swin uses channels last.
        return features.permute(0, 3, 1, 2) if self.units and _is_nhwc(self) else features


class Tail(Part):
    """The tuned layers and the head: features in, logits (batch, classes) out.

    Attributes:
        closing: Names of the layers of neck and head.
        adapted: Names of the layers adapted by DoRA.
    """

    closing: Sequence[str]
    adapted: Sequence[str]

    def train(self, mode: bool = True) -> "Tail":
        """Set the mode of all layers except batch norms, which keep the statistics of pretraining."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
        return self

    def forward(self, features: Tensor) -> Tensor:
        shared = features.permute(0, 2, 3, 1) if _is_nhwc(self) and not self.before else features
        return self.forward_head(self.run(shared))

    def mapped_layers(self) -> list[nn.Module]:
        """Return the layers whose outputs `as_map` accepts and whose positions all influence the logits."""
        units = [attrgetter(name)(self) for name in self.units]
        # After the last block of a transformer, the head may read only the class token.
        return units[:-1] if hasattr(self, "num_prefix_tokens") else units

    def as_map(self, output: Tensor) -> Tensor:
        """Return the output of a mapped layer as (batch, channels, height, width)."""
        if output.ndim == 3:
            tokens = output[:, self.num_prefix_tokens :].transpose(1, 2)
            return tokens.unflatten(2, (isqrt(tokens.shape[2]), -1))
        return output.permute(0, 3, 1, 2) if _is_nhwc(self) else output


def trained_parameters(tail: Tail) -> Iterator[tuple[str, nn.Parameter]]:
    """Return the names and trained parameters of a tail."""
    return ((name, parameter) for name, parameter in tail.named_parameters() if parameter.requires_grad)


def _is_nhwc(model: nn.Module) -> bool:
    return getattr(model, "output_fmt", "NCHW") == "NHWC"
