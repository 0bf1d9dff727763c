"""Cached features equal the trunk's output, are computed once for all runs, and are invalidated correctly."""

import copy
import pickle
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from toys import cache_photos

from trunkfold.config.schema import CacheConfig, Config, DataConfig, ModelConfig, PredictConfig, TrainConfig
from trunkfold.data.pixel_cache import CachedPhotos
from trunkfold.errors import MemoryFullError
from trunkfold.evaluation.predictions import average
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos
from trunkfold.images.workers import PhotoLoader
from trunkfold.model import features
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.model.ensemble import predict
from trunkfold.model.features import FeatureSource
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.loop import Validation, train

ROWS, SIZE, FOLDS = 11, 64, 3
TARGETS = np.arange(ROWS) % 2
ALL = np.arange(ROWS)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> CachedPhotos:
    monkeypatch.setattr(features, "BLOCK", 4)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (rng.integers(60, 90), rng.integers(60, 90), 3), np.uint8) for _ in range(ROWS)]
    return cache_photos(tmp_path, pictures)


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(
        data=DataConfig(image_size=SIZE, workers=0),
        model=ModelConfig(name="test_convnext", pretrained=False, tune_stages=2),
        predict=PredictConfig(batch_size=3),
        cache=CacheConfig(tmp_path / "cache"),
    )


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build_backbone(ModelConfig(name="test_convnext", pretrained=False, tune_stages=2), 2, load_weights=False)


class Counting(torch.nn.Module):
    """A trunk that counts the photos that it sees."""

    def __init__(self, trunk: torch.nn.Module) -> None:
        super().__init__()
        self.trunk, self.seen = trunk, 0

    def forward(self, photos):
        self.seen += len(photos)
        return self.trunk(photos)


def training_photos(photos: CachedPhotos, seed: int = 0) -> TrainingPhotos:
    return TrainingPhotos(photos, TARGETS, Augmentation("standard", SIZE), seed)


def gathered(batches) -> tuple[np.ndarray, torch.Tensor]:
    rows, parts = zip(*batches, strict=True)
    return np.concatenate(rows), torch.cat(parts).float()


def test_clean_features_are_the_plain_views_within_half_precision(accelerator, photos, config, backbone):
    source = FeatureSource(accelerator, backbone.trunk, photos, config)
    order = np.random.default_rng(1).permutation(ROWS)
    clean = source.clean(order)
    rows, kept = gathered(clean)
    expected_rows, fresh = gathered(source.batches(order))
    assert rows.tolist() == expected_rows.tolist() == order.tolist()
    torch.testing.assert_close(kept, fresh, rtol=1e-3, atol=1e-3 * fresh.abs().max().item())
    torch.testing.assert_close(gathered(clean)[1], kept)  # as often as they are asked for


def test_kept_features_predict_as_fresh_ones(accelerator, photos, config, backbone):
    source = FeatureSource(accelerator, backbone.trunk, photos, config)
    tails, members = [backbone.make_tail(fold).eval() for fold in range(FOLDS)], np.ones((ROWS, FOLDS), bool)
    kept, fresh = (
        average(predict(accelerator, tails, members, [view]), members)
        for view in (source.clean(ALL), source.batches(ALL))
    )
    np.testing.assert_allclose(kept, fresh, atol=2e-3)


def test_a_second_run_sends_nothing_through_the_trunk(accelerator, photos, config, backbone):
    """Whatever it splits, trains and augments: clean features depend on photos, size and trunk alone."""
    trunk = Counting(backbone.trunk)
    first = gathered(FeatureSource(accelerator, trunk, photos, config).clean(ALL))[1]
    assert trunk.seen == ROWS
    other = replace(config, augment="none", train=TrainConfig(seed=5), predict=PredictConfig(batch_size=5))
    torch.testing.assert_close(gathered(FeatureSource(accelerator, trunk, photos, other).clean(ALL))[1], first)
    assert trunk.seen == ROWS


@pytest.mark.parametrize("change", ["weights", "size", "photos", "precision"])
def test_what_features_depend_on_makes_new_ones(accelerator, photos, config, backbone, change, tmp_path):
    trunk = Counting(copy.deepcopy(backbone.trunk))
    source = FeatureSource(accelerator, trunk, photos, config)
    source.clean(ALL)
    if change == "weights":
        with torch.no_grad():
            next(trunk.parameters()).mul_(1.01)
    elif change == "size":
        config = replace(config, data=replace(config.data, image_size=96))
    elif change == "photos":
        (tmp_path / "other").mkdir()
        photos = cache_photos(tmp_path / "other", [255 - photo for photo in photos])
    else:
        accelerator = Accelerator(cpu=True, mixed_precision="no")
        accelerator.state._mixed_precision = "bf16"
    again = FeatureSource(accelerator, trunk, photos, config)
    found = gathered(again.clean(ALL))[1]
    assert trunk.seen == 2 * ROWS
    fresh = gathered(again.batches(ALL))[1]
    torch.testing.assert_close(found, fresh, rtol=1e-2, atol=1e-2 * fresh.abs().max().item())


def test_interrupted_it_goes_on(accelerator, photos, config, backbone):
    class Interrupted(Counting):
        def forward(self, photos):
            if self.seen >= 6:
                raise KeyboardInterrupt
            return super().forward(photos)

    with pytest.raises(KeyboardInterrupt):
        FeatureSource(accelerator, Interrupted(backbone.trunk), photos, config).clean(ALL)
    trunk = Counting(backbone.trunk)
    source = FeatureSource(accelerator, trunk, photos, config)
    _, kept = gathered(source.clean(ALL))
    assert trunk.seen == ROWS - 4  # the first block was whole
    fresh = gathered(source.batches(ALL))[1]
    torch.testing.assert_close(kept, fresh, rtol=1e-3, atol=1e-3 * fresh.abs().max().item())


def test_augmented_features_are_those_of_the_visits_photos_by_turns(accelerator, photos, config, backbone):
    source = FeatureSource(accelerator, backbone.trunk, photos, config)
    shown = training_photos(photos)
    views = source.augmented(shown, 2)
    for row, visit in [(0, 0), (10, 1), (3, 2), (3, 5)]:
        pixels, target = shown[row, visit % 2]
        expected = backbone.trunk(pixels.permute(2, 0, 1)[None])[0]
        found, found_target = views[row, visit]
        assert found_target == target == TARGETS[row]
        torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    assert not torch.equal(views[3, 0][0], views[3, 1][0])


def test_augmented_features_are_kept_by_seed_augmentation_and_visit(accelerator, photos, config, backbone):
    trunk = Counting(backbone.trunk)
    source = FeatureSource(accelerator, trunk, photos, config)
    source.augmented(training_photos(photos), 2)
    assert trunk.seen == 2 * ROWS
    source.augmented(training_photos(photos), 3)  # two are there
    assert trunk.seen == 3 * ROWS
    source.augmented(training_photos(photos, seed=1), 1)
    assert trunk.seen == 4 * ROWS
    FeatureSource(accelerator, trunk, photos, replace(config, augment="none")).augmented(training_photos(photos), 1)
    assert trunk.seen == 5 * ROWS


def test_as_many_kept_views_as_epochs_train_as_fresh_ones(accelerator, photos, config, backbone):
    """Every visit's photo is then the same in both, so the weights are too, within the features' half precision."""
    fold_of_row = np.where(ALL == 5, -1, ALL % FOLDS)
    options = TrainConfig(epochs=3, batch_size=6, tail_lr=2e-4, label_smoothing=0.0)
    source = FeatureSource(accelerator, backbone.trunk, photos, config)
    drawn = FoldBalancedBatches(fold_of_row, options.batch_size, 0, accelerator)
    visits = 1 + max(visit for _ in range(options.epochs) for batch in drawn for _, visit in batch)
    histories = []
    for kept in (False, True):
        batches = FoldBalancedBatches(fold_of_row, options.batch_size, 0, accelerator)
        lockstep = Lockstep(accelerator, options, backbone, batches)
        shown = training_photos(photos)
        loader = PhotoLoader(
            source.augmented(shown, visits) if kept else shown, lockstep.batches, 0, accelerator.device
        )
        histories.append(train(lockstep, loader, Validation(source.clean(ALL), fold_of_row, TARGETS)))
    columns = ["train_loss", "val_loss"]
    np.testing.assert_allclose(histories[0][columns], histories[1][columns], rtol=2e-3)


def test_another_process_is_sent_a_name_and_not_the_features(accelerator, photos, config, backbone):
    views = FeatureSource(accelerator, backbone.trunk, photos, config).augmented(training_photos(photos), 2)
    sent = pickle.dumps(views)
    assert len(sent) < 2000
    torch.testing.assert_close(pickle.loads(sent)[7, 1][0], views[7, 1][0])


def test_processes_share_the_work_and_each_reads_all(photos, config, backbone, monkeypatch):
    barrier, found, trunks = threading.Barrier(2), {}, [Counting(backbone.trunk) for _ in range(2)]

    @contextmanager
    def shared_folder(process, folder, option):
        folder.mkdir(parents=True, exist_ok=True)
        barrier.wait()
        yield process.process_index, 2
        barrier.wait()

    monkeypatch.setattr(features, "shared_folder", shared_folder)

    def run(rank: int) -> None:
        process = SimpleNamespace(
            process_index=rank,
            num_processes=2,
            is_main_process=rank == 0,
            device=torch.device("cpu"),
            mixed_precision="no",
            wait_for_everyone=barrier.wait,
            autocast=torch.no_grad,
        )
        source = FeatureSource(process, trunks[rank], photos, config)
        found[rank] = [gathered(source.clean(ALL)) for _ in range(2)][-1]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(trunk.seen for trunk in trunks) == [4, 7]  # of blocks of 4, 4 and 3 photos
    assert sorted(np.concatenate([found[0][0], found[1][0]])) == ALL.tolist()
    alone = FeatureSource(Accelerator(cpu=True), backbone.trunk, photos, config)
    for rows, kept in found.values():
        fresh = gathered(alone.batches(rows))[1]
        torch.testing.assert_close(kept, fresh, rtol=1e-3, atol=1e-3 * fresh.abs().max().item())


def test_features_lie_in_the_caches_folder(accelerator, photos, config, backbone):
    FeatureSource(accelerator, backbone.trunk, photos, config).clean(ALL)
    folder = Path(config.cache.dir)
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"photos", "features"}


def test_the_batch_size_is_the_configs_or_found(accelerator, photos, config, backbone):
    unset = replace(config, predict=PredictConfig())
    assert FeatureSource(accelerator, backbone.trunk, photos, config).batch_size == 3
    assert FeatureSource(accelerator, backbone.trunk, photos, unset).batch_size == 64


def test_a_view_that_the_memory_cannot_hold_is_told_with_what_to_lower(accelerator, photos, config, backbone):
    class Full(torch.nn.Module):
        def forward(self, photos):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    source = FeatureSource(accelerator, Full(), photos, config)
    with pytest.raises(MemoryFullError, match=r"out of memory.*2 GiB\): lower predict\.batch_size or data\.image_size"):
        next(source.batches(ALL))
