"""Files of predictions, and the size of the test set for simulated leaderboards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trunkfold.config.schema import Config, DataConfig, PredictConfig
from trunkfold.evaluation.ablation import CONSENSUS, EMA
from trunkfold.metrics import Consensus, Metrics
from trunkfold.output.outputs import save_results
from trunkfold.run_folder import RunFolder
from trunkfold.split.dataset import Labelled

CLASSES = {"a": "crack", "b": "dent"}
ROWS = 12


def make_labelled() -> Labelled:
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
    return Labelled(table, CLASSES, None, groups, test_photos=7)


def predict_rightly(labelled: Labelled) -> np.ndarray:
    """All photos, by two views of two tails."""
    of_each = np.eye(2, dtype=np.float32)[labelled.targets] * 0.8 + 0.1
    return np.tile(of_each[None, :, None], (2, 1, 2, 1))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data=DataConfig(root=tmp_path / "input"), predict=PredictConfig(views=("plain", "hflip")))


def save(config: Config, labelled: Labelled, predicted: np.ndarray, raw: np.ndarray | None = None) -> Metrics:
    return save_results(RunFolder(config.data.root.parent, write=True), config, labelled, predicted, raw)


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
    assert RunFolder(tmp_path).read_metrics().by_set() == scores.by_set()
    assert scores.luck.photos == 7


def test_what_the_consensus_adds_is_what_the_ablation_says(config):
    """Photo 0 is wrong alone, and saved by its copy."""
    labelled = make_labelled()
    predicted = predict_rightly(labelled)
    predicted[:, 0, 0] = [0.4, 0.6]
    scores = save(config, labelled, predicted)
    gain = {row.part: row.gain for row in scores.ablation.oof}[CONSENSUS]
    assert scores.consensus == Consensus({"oof": gain, "holdout": 0})
    assert gain > 0.1
    without = save(
        replace(config, predict=replace(config.predict, consensus=False)), labelled, predict_rightly(labelled)
    )
    assert without.consensus is None
    assert CONSENSUS not in [row.part for row in without.ablation.oof]


def test_raw_weights_are_told_from_averaged_ones(config):
    labelled = make_labelled()
    raw = predict_rightly(labelled)[..., ::-1]
    scores = save(config, labelled, predict_rightly(labelled), raw)
    assert {row.part: row.accuracy for row in scores.ablation.oof}[EMA] == 0
    assert {row.part: row.gain for row in scores.ablation.oof}[EMA] == 1
