"""The epochs: every photo is learned from, every fold is scored, and the right weights are left."""

from collections import Counter

import numpy as np
import pytest
import torch

from trunkfold.augment import make_augmentation
from trunkfold.backbone import build_backbone
from trunkfold.config import Config, DataConfig, ModelConfig, PredictConfig, TrainConfig
from trunkfold.errors import InputError
from trunkfold.features import FeatureSource
from trunkfold.loaders import FoldBalancedBatches, TrainingPhotos, training_loader
from trunkfold.lockstep import Lockstep
from trunkfold.training import Validation, train

FOLDS, CLASSES, SIZE = 3, 2, 32
CONFIG = Config(
    data=DataConfig(image_size=SIZE, workers=0),
    model=ModelConfig(name="test_convnext", pretrained=False, tune_stages=2),
    predict=PredictConfig(batch_size=16),
)


class Counting(TrainingPhotos):
    """Notes which rows were asked for, and at which visit."""

    def __getitem__(self, draw):
        self.seen[draw] += 1
        return super().__getitem__(draw)


def prepare(accelerator, workers: int = 0, **options):
    """Bright and dark photos, which two classes are; every seventh is held out."""
    fold_of_row = np.array([-1 if row % 7 == 6 else row % FOLDS for row in range(42)])
    targets = np.random.default_rng(0).permutation(np.arange(42) % CLASSES)
    pixels = [np.full((40, 50, 3), 60 + 130 * target, np.uint8) for target in targets]
    config = TrainConfig(**({"epochs": 3, "batch_size": 12, "head_lr": 0.01} | options))
    batches = FoldBalancedBatches(fold_of_row, config.batch_size, 0, accelerator)
    photos = Counting(pixels, targets, make_augmentation("none", SIZE), 0)
    photos.seen = Counter()
    backbone = build_backbone(CONFIG.model, CLASSES, load_weights=False)
    lockstep = Lockstep(accelerator, config, backbone, batches)
    clean = list(FeatureSource(accelerator, lockstep.trunk, pixels, CONFIG).batches(np.arange(42)))
    return lockstep, training_loader(photos, batches, workers), Validation(clean, fold_of_row, targets)


def test_every_learning_photo_is_seen_once_an_epoch_and_no_held_out_one(accelerator):
    lockstep, loader, validation = prepare(accelerator)
    train(lockstep, loader, validation)
    learning = np.flatnonzero(validation.fold_of_row >= 0)
    assert loader.dataset.seen == Counter({(row, visit): 1 for row in learning for visit in range(3)})


def test_what_is_told_apart_easily_is_learned(accelerator):
    lockstep, loader, validation = prepare(accelerator, epochs=6, warmup_epochs=0)
    history = train(lockstep, loader, validation)
    assert history["val_macro_f1"].iloc[-FOLDS:].min() == 1
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_history_scores_each_fold_on_its_own_photos(accelerator):
    lockstep, loader, validation = prepare(accelerator, epochs=1)
    history = train(lockstep, loader, validation)
    for fold, row in history.iterrows():
        rows = np.flatnonzero(validation.fold_of_row == fold)
        features = torch.cat([features for _, features in validation.features])[rows].float()
        with torch.no_grad():
            shares = lockstep.tails[fold](features).softmax(1).numpy()
        truth = validation.targets[rows]
        assert row["val_accuracy"] == pytest.approx((shares.argmax(1) == truth).mean())
        assert row["val_loss"] == pytest.approx(-np.log(shares[np.arange(len(rows)), truth]).mean(), rel=1e-4)


def test_the_last_weights_are_left_by_default_and_the_best_when_asked(accelerator):
    """The last update has a ruinous learning rate: the last weights are ruined, the best are not."""
    ruinous = {"epochs": 3, "scheduler": "multistep", "warmup_epochs": 0, "clip_grad": None, "optimizer": "sgd"}
    ruinous |= {"scheduler_args": {"decay_milestones": [3], "decay_rate": 1e4}, "head_lr": 0.1, "tail_lr": 1e-4}
    accuracy = {}
    for keep in ("last", "best"):
        torch.manual_seed(0)
        lockstep, loader, validation = prepare(accelerator, keep=keep, **ruinous)
        history = train(lockstep, loader, validation)
        scores = validation.score(accelerator, lockstep.tails)
        accuracy[keep] = [score["val_accuracy"] for score in scores]
        by_fold = history.groupby("fold")["val_accuracy"]
        assert accuracy[keep] == pytest.approx((by_fold.last() if keep == "last" else by_fold.max()).tolist())
    assert np.mean(accuracy["best"]) > np.mean(accuracy["last"])


def test_loader_workers_change_nothing(accelerator):
    losses = []
    for workers in (0, 2):
        torch.manual_seed(0)
        lockstep, loader, validation = prepare(accelerator, workers)
        losses.append(train(lockstep, loader, validation)["train_loss"].tolist())
    assert losses[0] == losses[1]


def test_a_loss_that_is_not_finite_names_the_fold_and_the_fix(accelerator):
    lockstep, loader, validation = prepare(accelerator)
    with torch.no_grad():
        lockstep.tails[1].head.fc.bias.fill_(float("nan"))
    with pytest.raises(InputError, match=r"loss of fold 1 is not finite in epoch 1.*train\.tail_lr"):
        train(lockstep, loader, validation)
