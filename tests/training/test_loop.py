"""Every photo is trained on, every fold is scored, and the right weights are kept."""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import PartialState

from trunkfold.config.schema import Config, DataConfig, ModelConfig, PredictConfig, TrainConfig
from trunkfold.errors import InputError, OutOfTime
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos
from trunkfold.images.workers import PhotoLoader
from trunkfold.model.backbone import build_backbone
from trunkfold.model.features import FeatureSource
from trunkfold.model.parts import trained_parameters
from trunkfold.training.checkpoint import Checkpoint
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.loop import Validation, train

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


def prepare(accelerator, workers: int = 0, drop_path: float = 0.0, **options):
    """Bright and dark photos, which two classes are; every seventh is held out."""
    fold_of_row = np.array([-1 if row % 7 == 6 else row % FOLDS for row in range(42)])
    targets = np.random.default_rng(0).permutation(np.arange(42) % CLASSES)
    pixels = [np.full((40, 50, 3), 60 + 130 * target, np.uint8) for target in targets]
    config = TrainConfig(**({"epochs": 3, "batch_size": 12, "tail_lr": 2e-4, "head_lr": 0.01} | options))
    batches = FoldBalancedBatches(fold_of_row, config.batch_size, 0, accelerator)
    photos = Counting(pixels, targets, Augmentation("none", SIZE), 0)
    photos.seen = Counter()
    torch.manual_seed(0)
    backbone = build_backbone(replace(CONFIG.model, drop_path=drop_path), CLASSES, load_weights=False)
    lockstep = Lockstep(accelerator, config, backbone, batches)
    clean = list(FeatureSource(accelerator, lockstep.trunk, pixels, CONFIG).batches(np.arange(42)))
    return (
        lockstep,
        PhotoLoader(photos, batches, workers, accelerator.device),
        Validation(clean, fold_of_row, targets),
    )


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
        with lockstep.weights() as tails:
            scores = validation.score(accelerator, tails)
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


class Killed(Exception):
    """The process is gone."""


class Fragile(Checkpoint):
    """Is killed after its n-th saving."""

    def write(self, make_state):
        super().write(make_state)
        self.savings_left -= 1
        if self.savings_left == 0:
            raise Killed


def checkpoint(path, accelerator, savings: float = np.inf, **options) -> Fragile:
    """One that saves after every step."""
    config = TrainConfig(**({"save_minutes": 0.0} | options))
    made = Fragile(path, accelerator, config, "these photos", time.monotonic())
    made.savings_left = savings
    return made


def outcome(lockstep, history) -> tuple[list, list]:
    """All that a training leaves, but for the seconds."""
    weights = [p.detach().clone().numpy().tobytes() for tail in lockstep.tails for _, p in trained_parameters(tail)]
    return weights, history.drop(columns="seconds").to_numpy().tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 2},
        {"epochs": 2, "ema_decay": 0.9, "keep": "best"},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"optimizer": "lookahead_sgd", "optimizer_args": {"momentum": 0.9}, "clip_grad": None},
                {"scheduler": "plateau", "scheduler_args": {"patience_epochs": 0}, "warmup_epochs": 0},
            )
        ),
    ],
    ids=["default", "averaged and best", "lookahead", "plateau"],
)
def test_a_training_that_is_killed_after_any_step_ends_as_if_it_was_not(accelerator, tmp_path, options):
    """Stochastic depth draws numbers in each step, so that they too have to go on where they stood."""
    whole = prepare(accelerator, drop_path=0.5, **options)
    wanted = outcome(whole[0], train(*whole))
    for kills in range(whole[0].config.epochs * len(whole[1])):
        torch.manual_seed(kills)  # another process would have drawn other numbers
        with pytest.raises(Killed):
            train(
                *prepare(accelerator, drop_path=0.5, **options), checkpoint(tmp_path / "state", accelerator, savings=1)
            )
    lockstep, loader, validation = prepare(accelerator, drop_path=0.5, **options)
    history = train(lockstep, loader, validation, checkpoint(tmp_path / "state", accelerator, savings=1))
    assert outcome(lockstep, history) == wanted


def test_a_finished_training_is_not_done_again(accelerator, tmp_path):
    lockstep, loader, validation = prepare(accelerator)
    history = train(lockstep, loader, validation, checkpoint(tmp_path / "state", accelerator))
    again, loader, validation = prepare(accelerator)
    loader.dataset.seen.clear()
    assert outcome(again, train(again, loader, validation, checkpoint(tmp_path / "state", accelerator))) == outcome(
        lockstep, history
    )
    assert not loader.dataset.seen


def test_when_the_time_is_over_all_is_saved(accelerator, tmp_path):
    lockstep, loader, validation = prepare(accelerator, epochs=2)
    wanted = outcome(lockstep, train(lockstep, loader, validation))
    for stops in range(4):
        lockstep, loader, validation = prepare(accelerator, epochs=2)
        with pytest.raises(
            OutOfTime, match=rf"stopped in epoch {1 + stops // len(loader)}, .*, without --run\.restart"
        ):
            train(lockstep, loader, validation, checkpoint(tmp_path / "state", accelerator, max_hours=1e-6))
        assert sum(loader.dataset.seen.values()) == 12  # one step was done
    lockstep, loader, validation = prepare(accelerator, epochs=2)
    history = train(lockstep, loader, validation, checkpoint(tmp_path / "state", accelerator))
    assert outcome(lockstep, history) == wanted


def test_within_an_epoch_the_state_is_saved_as_often_as_wanted(accelerator, tmp_path, monkeypatch):
    """A clock that a step puts forward by 40 seconds."""
    lockstep, loader, validation = prepare(accelerator, epochs=1, batch_size=3)
    now, saved_at, step = [0.0], [], lockstep.step
    monkeypatch.setattr("trunkfold.training.checkpoint.time.monotonic", lambda: now[0])
    monkeypatch.setattr(lockstep, "step", lambda *batch: (now.__setitem__(0, now[0] + 40), step(*batch))[1])
    keeper = checkpoint(tmp_path / "state", accelerator, save_minutes=2.0)
    write = keeper.write
    keeper.write = lambda make_state: (saved_at.append(now[0] / 40), write(make_state))
    train(lockstep, loader, validation, keeper)
    assert len(loader) == 12
    assert saved_at == [3, 6, 9, 12]


def test_a_validation_is_not_started_that_would_exceed_the_time(accelerator, tmp_path, monkeypatch):
    """A step takes a minute, and a validation 20."""
    lockstep, loader, validation = prepare(accelerator, epochs=9)
    now, step, score = [0.0], lockstep.step, validation.score
    monkeypatch.setattr("trunkfold.training.checkpoint.time.monotonic", lambda: now[0])
    lockstep.step = lambda *batch: (now.__setitem__(0, now[0] + 60), step(*batch))[1]
    validation.score = lambda *tails: (now.__setitem__(0, now[0] + 1200), score(*tails))[1]
    with pytest.raises(OutOfTime, match="stopped in epoch 2"):
        train(lockstep, loader, validation, checkpoint(tmp_path / "state", accelerator, max_hours=1.0))
    assert now[0] <= 3600


def test_a_state_of_other_photos_is_refused(accelerator, tmp_path):
    train(*prepare(accelerator, epochs=1), checkpoint(tmp_path / "state", accelerator))
    other = Checkpoint(tmp_path / "state", accelerator, TrainConfig(), "others", 0.0)
    with pytest.raises(InputError, match=r"photos have changed since .* was started.*--run\.restart"):
        train(*prepare(accelerator, epochs=1), other)


def test_each_process_leaves_out_other_blocks(accelerator, monkeypatch):
    """Stochastic depth draws from the process's own random numbers; those of the first one are the seed's."""
    drawn = {}
    lockstep, *others = prepare(accelerator)
    lockstep.config = replace(lockstep.config, epochs=0)
    for rank in (0, 1):
        monkeypatch.setitem(PartialState._shared_state, "process_index", rank)
        train(lockstep, *others)
        drawn[rank] = torch.rand(3)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], torch.rand(3, generator=torch.Generator().manual_seed(TrainConfig().seed)))
