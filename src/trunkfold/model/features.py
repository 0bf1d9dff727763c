"""Trunk features of photos, streamed or cached on disk for all runs."""

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import timm
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from trunkfold.config.schema import Config
from trunkfold.cores import in_threads
from trunkfold.data.pixel_cache import CachedPhotos
from trunkfold.files import make_blocks, read_blocks
from trunkfold.images.batches import TrainingPhotos, ViewedPhotos, choose_workers
from trunkfold.images.views import STRIDE, VIEWS
from trunkfold.images.workers import PhotoLoader
from trunkfold.model.device_memory import PREDICTING, first_that_fits, in_pieces
from trunkfold.model.parts import Tail, Trunk
from trunkfold.model.shared_folder import shared_folder

NAME, BLOCK = "features", 128  # photos per file: 10 MB with ConvNeXt-Tiny
PIXELS_A_PART = 2 * 224**2  # pixels per thread and call: enough work to amortize the overhead
VERSION = 1  # increase when views or augmentations change, so that old features are not read

FeatureBatches = Iterable[tuple[np.ndarray, Tensor]]


class KeptFeatures:
    """Cached features of photos by row: float16 in memory-mapped files, 75 kB per photo with ConvNeXt-Tiny."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._blocks = read_blocks(folder / NAME, count, BLOCK)

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """Return the features of some rows in the given order: float16 of shape (rows, channels, height, width)."""
        return torch.from_numpy(np.stack([self._blocks[row // BLOCK][row % BLOCK] for row in rows]))

    def __reduce__(self) -> tuple:
        return KeptFeatures, (self.folder, self.count)


@dataclass
class KeptBatches:
    """Reusable batches of cached features: `size` rows each, in the order of `rows`."""

    features: KeptFeatures
    rows: np.ndarray
    size: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        for start in range(0, len(self.rows), self.size):
            rows = self.rows[start : start + self.size]
            yield rows, self.features[rows]


class KeptViews(Dataset):
    """Cached float16 features of augmented photos by (row, visit), and the class index; visits repeat cyclically."""

    def __init__(self, kept: Sequence[KeptFeatures], targets: np.ndarray) -> None:
        self.kept, self.targets = kept, targets

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, int]:
        row, visit = draw
        return self.kept[visit % len(self.kept)][[row]][0], int(self.targets[row])


@dataclass
class FeatureSource:
    """Computes trunk features of photos.

    Attributes:
        accelerator: Accelerator whose processes share the photos.
        trunk: Trunk on the accelerator's device.
        pixels: Decoded photos by row.
        config: Options, with image size, batch size, data-loader workers and cache folder.
        tail: A tail used for prediction, on the device, so that batches fit trunk and tail; None without prediction.
    """

    accelerator: Accelerator
    trunk: Trunk
    pixels: CachedPhotos
    config: Config
    tail: Tail | None = None

    def loader(self, photos: Dataset, batches: Iterable) -> PhotoLoader:
        """Load batches, a sized iterable of lists of indices, with this process's data-loader workers."""
        device = self.accelerator.device
        return PhotoLoader(photos, batches, choose_workers(self.config.data, self.accelerator), device)

    def batches(self, rows: np.ndarray, view: str = "plain", bar: str | None = None) -> Iterator:
        """Compute the features of a view lazily.

        Args:
            rows: Rows of all processes; each of n processes computes every n-th row.
            bar: Label of the progress bar; None shows none.

        Yields:
            Row numbers, and their features on the device.
        """
        share, size = self._share(rows), self.batch_size
        photos = ViewedPhotos(self.pixels, VIEWS[view], self.config.data.image_size)
        batches = [share[start : start + size] for start in range(0, len(share), size)]
        loader = self.loader(photos, batches)
        hidden = bar is None or not self.accelerator.is_main_process
        for rows_of_batch, batch in zip(batches, tqdm(loader, bar, leave=False, disable=hidden), strict=True):
            yield rows_of_batch, self._features(batch)

    def clean(self, rows: np.ndarray) -> FeatureBatches:
        """Return cached features of the plain view, as batches of this process's share of the rows.

        Features are kept in GPU memory if they take less than a quarter of the free memory.
        """
        photos = ViewedPhotos(self.pixels, VIEWS["plain"], self.config.data.image_size)
        kept = self._keep(photos, f"view {VIEWS['plain']}", "clean features")
        batches = KeptBatches(kept, self._share(rows), self.batch_size)
        device = self.accelerator.device
        if device.type == "cuda" and 4 * kept[[0]].nbytes * len(rows) < torch.cuda.mem_get_info(device)[0]:
            return [(rows, features.to(device)) for rows, features in batches]
        return batches

    def augmented(self, photos: TrainingPhotos, count: int) -> KeptViews:
        """Return cached features of augmented photos of `pixels` for `count` visits, which are then reused."""
        what = f"augmented by {self.config.augment} with seed {photos.seed}, visit "
        kept = [
            self._keep(_Visit(photos, visit), f"{what}{visit}", f"augmented features, {visit + 1} of {count}")
            for visit in range(count)
        ]
        return KeptViews(kept, photos.targets)

    @cached_property
    def batch_size(self) -> int:
        """Photos per forward pass: as configured, or as many as fit GPU memory."""
        if self.config.predict.batch_size is not None:
            return self.config.predict.batch_size
        device, side = self.accelerator.device, self.config.data.image_size + STRIDE  # the largest view
        if device.type == "cpu":
            return 64

        tail = nn.Identity() if self.tail is None else copy.deepcopy(self.tail).eval()  # the tail may be in train mode

        @torch.no_grad()
        def attempt(size: int) -> int:
            features = self._pass(torch.zeros(size, 3, side, side, dtype=torch.uint8))
            with self.accelerator.autocast():
                tail(features.float())
            return size

        return first_that_fits(attempt, 512, PREDICTING)

    def _keep(self, photos: Dataset, what: str, bar: str) -> KeptFeatures:
        """Return cached features of all rows; processes on one machine share the computation of missing blocks."""
        folder, count = self.config.cache.dir / f"{NAME}-{self._key(what)}", len(self.pixels)

        def make(wanted: list[slice]) -> Iterator[np.ndarray]:
            blocks = [range(rows.start, rows.stop) for rows in wanted]
            for photos_of_block in self.loader(photos, blocks):
                parts = photos_of_block.split(self.batch_size)
                yield torch.cat([self._features(part).half().cpu() for part in parts]).numpy()

        with shared_folder(self.accelerator, folder, "--cache.dir") as share:
            make_blocks(folder / NAME, count, BLOCK, make, bar if self.accelerator.is_main_process else None, share)
        return KeptFeatures(folder, count)

    def _features(self, photos: Tensor) -> Tensor:
        return in_pieces(self._pass, photos, PREDICTING)

    def _pass(self, photos: Tensor) -> Tensor:
        return through_trunk(self.accelerator, self.trunk, photos)

    def _share(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.accelerator.process_index :: self.accelerator.num_processes]

    def _key(self, what: str) -> str:
        """Return the cache key of photos, rendering and trunk."""
        config, accelerator = self.config, self.accelerator
        numerics = accelerator.mixed_precision, accelerator.device.type, timm.__version__
        key = hashlib.blake2b(self._trunk_digest, digest_size=8)
        key.update(repr((self.pixels.key, what, config.data.image_size, config.model.name, numerics, VERSION)).encode())
        return key.hexdigest()

    @cached_property
    def _trunk_digest(self) -> bytes:
        digest = hashlib.blake2b()
        for name, tensor in [*self.trunk.named_parameters(), *self.trunk.named_buffers()]:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.digest()


def through_trunk(accelerator: Accelerator, trunk: Trunk, photos: Tensor) -> Tensor:
    """Compute features of a batch of photos on the accelerator's device; a CPU splits the batch over its cores."""

    def features(part: Tensor) -> Tensor:
        with accelerator.autocast():
            return trunk(part.to(accelerator.device, non_blocking=True))

    if accelerator.device.type != "cpu":
        return features(photos)
    size = max(1, PIXELS_A_PART // photos[0, 0].numel())
    return torch.cat(in_threads(features, photos.split(size)))


class _Visit(Dataset):
    """Photos by row, augmented for one visit."""

    def __init__(self, photos: TrainingPhotos, visit: int) -> None:
        self.photos, self.visit = photos, visit

    def __getitem__(self, row: int) -> Tensor:
        return self.photos[row, self.visit][0]
