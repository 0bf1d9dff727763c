"""What is written of predictions, and the size of the test set that luck is simulated for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trunkfold.config.schema import Config, DataConfig, PredictConfig
from trunkfold.evaluation.ablation import CONSENSUS
from trunkfold.output.outputs import save_predictions
from trunkfold.split.dataset import Labelled

CLASSES = {"a": "crack", "b": "dent"}
ROWS = 12


def make_labelled(test_groups: int = 0) -> Labelled:
    """Pairs of copies in two folds and held out; no pixels, which only mistakes would need."""
    ids = [str(row) for row in range(ROWS)]
    table = pd.DataFrame(
        {
            "image_id": ids,
            "filename": ids,
            "label": list("ab") * (ROWS // 2),
            "group": [f"{row // 4} {row % 2}" for row in range(ROWS)],
            "fold": np.repeat([0, 1, -1], ROWS // 3),
        }
    )
    groups = table[["image_id", "group"]].assign(set="train")
    unlabelled = pd.DataFrame({"image_id": range(test_groups), "group": "of test", "set": "test"})
    return Labelled(table, CLASSES, None, pd.concat([groups, unlabelled]))


def predict_rightly(labelled: Labelled) -> np.ndarray:
    """All photos, by two views of two tails."""
    of_each = np.eye(2, dtype=np.float32)[labelled.targets] * 0.8 + 0.1
    return np.tile(of_each[None, :, None], (2, 1, 2, 1))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data=DataConfig(root=tmp_path / "input"), predict=PredictConfig(views=("plain", "hflip")))


def save(config: Config, labelled: Labelled, predicted: np.ndarray | None = None) -> dict:
    run = config.data.root.parent
    return save_predictions(run, config, labelled, predict_rightly(labelled) if predicted is None else predicted)


def write_test_csv(root: Path, rows: int) -> None:
    (root / "images").mkdir(parents=True)
    (root / "test.csv").write_text("image_id,filename\n" + "".join(f"{row},{row}.png\n" for row in range(rows)))


def test_luck_is_of_as_many_photos_as_test_csv_has(config):
    write_test_csv(config.data.root, 7)
    assert save(config, make_labelled(test_groups=5))["luck"]["photos"] == 7


def test_without_test_csv_it_is_of_those_whose_group_is_known_or_as_many_as_are_labelled(config):
    assert save(config, make_labelled(test_groups=5))["luck"]["photos"] == 5
    assert save(config, make_labelled())["luck"]["photos"] == ROWS


def test_a_test_csv_that_cannot_be_read_ends_no_training(config):
    write_test_csv(config.data.root, 7)
    (config.data.root / "test.csv").write_text("no such columns\n1\n")
    assert save(config, make_labelled())["luck"]["photos"] == ROWS


def test_what_is_written_is_the_mean_over_views_and_tails_and_copies(config, tmp_path):
    """Photo 0 by its one tail: 0.9, and 0.5 in the second view; its copy 2: 0.9 in both. A held-out photo has both."""
    labelled = make_labelled()
    predicted = predict_rightly(labelled)
    predicted[1, 0, 0] = predicted[1, 8, 1] = 0.5
    predicted[:, 0, 1] = np.nan  # by a tail that learned from it
    scores = save(config, labelled, predicted)
    oof, holdout = (pd.read_csv(tmp_path / f"{name}.csv")["p_crack"] for name in ("oof", "holdout"))
    assert oof[:4].tolist() == pytest.approx([0.8, 0.1, 0.8, 0.1])
    assert holdout.tolist() == pytest.approx([0.85, 0.1, 0.85, 0.1])
    save(replace(config, predict=replace(config.predict, consensus=False)), labelled, predicted)
    assert pd.read_csv(tmp_path / "oof.csv")["p_crack"][:4].tolist() == pytest.approx([0.7, 0.1, 0.9, 0.1])
    assert json.loads(json.dumps(scores)) == scores


def test_what_the_consensus_adds_is_what_the_ablation_says(config):
    """Photo 0 is wrong alone, and saved by its copy."""
    labelled = make_labelled()
    predicted = predict_rightly(labelled)
    predicted[:, 0, 0] = [0.4, 0.6]
    scores = save(config, labelled, predicted)
    gain = {row["part"]: row["gain"] for row in scores["ablation"]["oof"]}[CONSENSUS]
    assert scores["consensus"] == {"macro_f1_gain": {"oof": gain, "holdout": 0}}
    assert gain > 0.1
    without = save(
        replace(config, predict=replace(config.predict, consensus=False)), labelled, predict_rightly(labelled)
    )
    assert without["consensus"] is None
    assert CONSENSUS not in [row["part"] for row in without["ablation"]["oof"]]


def test_raw_weights_are_told_from_averaged_ones(config):
    labelled = make_labelled()
    raw = predict_rightly(labelled)[..., ::-1]
    scores = save_predictions(config.data.root.parent, config, labelled, predict_rightly(labelled), raw)
    assert scores["ablation"]["oof"][-1]["accuracy"] == 0
    assert scores["ablation"]["oof"][-1]["gain"] == 1
