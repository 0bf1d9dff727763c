"""What the trunk makes of the photos: streamed, or computed once for all runs and kept on the disk."""

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
from trunkfold.model.backbone import Tail, Trunk
from trunkfold.model.device_memory import PREDICTING, in_pieces, largest_batch
from trunkfold.model.shared_folder import shared_folder

NAME, BLOCK = "features", 128  # photos a file: 10 MB behind ConvNeXt-Tiny's trunk
PIXELS_A_PART = 2 * 224**2  # few large photos or many small ones, so that a part is work for a thread
VERSION = 1  # of views and augmentations: raise it when they show other pixels, so that old features are not read

FeatureBatches = Iterable[tuple[np.ndarray, Tensor]]


class KeptFeatures:
    """Features of photos by row: float16 in mapped files, 75 kB a photo behind ConvNeXt-Tiny's trunk."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._blocks = read_blocks(folder / NAME, count, BLOCK)

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """Features of some rows, in their order: float16 of shape (rows, channels, height, width)."""
        return torch.from_numpy(np.stack([self._blocks[row // BLOCK][row % BLOCK] for row in rows]))

    def __reduce__(self) -> tuple:
        return KeptFeatures, (self.folder, self.count)


@dataclass
class KeptBatches:
    """Batches of kept features, as often as they are asked for.

    Attributes:
        features: Of all rows.
        rows: Which, in which order.
        size: Rows a batch.
    """

    features: KeptFeatures
    rows: np.ndarray
    size: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        for start in range(0, len(self.rows), self.size):
            rows = self.rows[start : start + self.size]
            yield rows, self.features[rows]


class KeptViews(Dataset):
    """Kept features of augmented photos by (row, visit), float16, and the class number; visits take turns."""

    def __init__(self, kept: Sequence[KeptFeatures], targets: np.ndarray) -> None:
        self.kept, self.targets = kept, targets

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, int]:
        row, visit = draw
        return self.kept[visit % len(self.kept)][[row]][0], int(self.targets[row])


@dataclass
class FeatureSource:
    """Sends photos through the trunk.

    Attributes:
        accelerator: Its processes share the photos.
        trunk: On the accelerator's device.
        pixels: Decoded photos by row.
        config: Image size, batch size, loader workers, where features are kept.
        tail: One of those that predict, on the device: the largest batch has to fit into trunk and tail. None if none
            predicts.
    """

    accelerator: Accelerator
    trunk: Trunk
    pixels: CachedPhotos
    config: Config
    tail: Tail | None = None

    def batches(self, rows: np.ndarray, view: str = "plain", bar: str | None = None) -> Iterator:
        """Features of a view, computed as they are asked for.

        Args:
            rows: The rows of all processes; this one takes every n-th.
            view: Name in `VIEWS`.
            bar: Text of the progress bar; None draws none.

        Yields:
            Rows, and their features on the device.
        """
        share, size = self._share(rows), self.batch_size
        photos = ViewedPhotos(self.pixels, share, VIEWS[view], self.config.data.image_size)
        batches = [range(start, min(start + size, len(share))) for start in range(0, len(share), size)]
        loader = PhotoLoader(photos, self._workers, batches, self.accelerator.device)
        hidden = bar is None or not self.accelerator.is_main_process
        for number, batch in enumerate(tqdm(loader, bar, leave=False, disable=hidden)):
            yield share[number * size : (number + 1) * size], self._features(batch)

    def clean(self, rows: np.ndarray) -> FeatureBatches:
        """Features of the plain view, kept: batches of this process's share of the rows.

        They stay in the GPU's memory where they take less than a quarter of what is free there.
        """
        every_row = np.arange(len(self.pixels))
        photos = ViewedPhotos(self.pixels, every_row, VIEWS["plain"], self.config.data.image_size)
        kept = self._keep(photos, f"view {VIEWS['plain']}", "clean features")
        batches = KeptBatches(kept, self._share(rows), self.batch_size)
        device = self.accelerator.device
        if device.type == "cuda" and 4 * kept[[0]].nbytes * len(rows) < torch.cuda.mem_get_info(device)[0]:
            return [(rows, features.to(device)) for rows, features in batches]
        return batches

    def augmented(self, photos: TrainingPhotos, count: int) -> KeptViews:
        """Features of the first visits' augmented photos, kept.

        Args:
            photos: Of `pixels`.
            count: Number of visits, after which they come again.
        """
        what = f"augmented by {self.config.augment} with seed {photos.seed}, visit "
        kept = [
            self._keep(_Visit(photos, visit), f"{what}{visit}", f"augmented features, {visit + 1} of {count}")
            for visit in range(count)
        ]
        return KeptViews(kept, photos.targets)

    @cached_property
    def batch_size(self) -> int:
        """Photos a pass: as configured, or what fits into the memory of the GPU."""
        if self.config.predict.batch_size is not None:
            return self.config.predict.batch_size
        device, side = self.accelerator.device, self.config.data.image_size + STRIDE  # the largest view
        if device.type == "cpu":
            return 64

        tail = nn.Identity() if self.tail is None else copy.deepcopy(self.tail).eval()  # it may be learning

        @torch.no_grad()
        def attempt(size: int) -> None:
            features = self._pass(torch.zeros(size, 3, side, side, dtype=torch.uint8))
            with self.accelerator.autocast():
                tail(features.float())

        return largest_batch(attempt, 512, PREDICTING)

    def _keep(self, photos: Dataset, what: str, bar: str) -> KeptFeatures:
        """Features of a photo for each row; the processes of each machine share the files that are not there yet."""
        folder, count = self.config.cache.dir / f"{NAME}-{self._key(what)}", len(self.pixels)

        def make(wanted: list[slice]) -> Iterator[np.ndarray]:
            blocks = [range(rows.start, rows.stop) for rows in wanted]
            for photos_of_block in PhotoLoader(photos, self._workers, blocks, self.accelerator.device):
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

    @property
    def _workers(self) -> int:
        return choose_workers(self.config.data, self.accelerator)

    def _key(self, what: str) -> str:
        """What features depend on: the photos, how they are shown, and the trunk."""
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
    """Features of a batch of photos, on the accelerator's device; on a CPU its cores share the batch."""

    def features(part: Tensor) -> Tensor:
        with accelerator.autocast():
            return trunk(part.to(accelerator.device, non_blocking=True))

    if accelerator.device.type != "cpu":
        return features(photos)
    size = max(1, PIXELS_A_PART // photos[0, 0].numel())
    return torch.cat(in_threads(features, photos.split(size)))


class _Visit(Dataset):
    """Each row's photo as one visit shows it."""

    def __init__(self, photos: TrainingPhotos, visit: int) -> None:
        self.photos, self.visit = photos, visit

    def __getitem__(self, row: int) -> Tensor:
        return self.photos[row, self.visit][0]
