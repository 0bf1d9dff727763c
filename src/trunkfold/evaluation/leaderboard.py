"""Simulated leaderboards: the influence of chance, and the smallest significant difference between scores."""

import numpy as np
import pandas as pd

from trunkfold.assessment import Draws, Histogram, Luck, Range, Rival
from trunkfold.evaluation.predictions import class_indices
from trunkfold.evaluation.scores import interval, macro_f1_of_draws

PUBLIC_SHARE = 0.4
SIMULATIONS = 2000
SHARED = (0.0, 0.5, 0.9)  # share of groups for which an equally good rival makes the same predictions
BINS = 40


def simulate_leaderboards(
    predictions: pd.DataFrame, groups: pd.Series, classes: dict[str, str], photos: int
) -> Luck | None:
    """Simulate leaderboard scores of this model, assuming that its out-of-fold score is its true score.

    Whole groups are drawn with replacement until a test set is full. Its photos are divided at random into a public and
    a private part. The simulation is seeded.

    Args:
        predictions: Out-of-fold image_id, label and prediction.
        groups: Group of each image_id, the index.
        photos: Size of the test set.

    Returns:
        Macro F1 in the simulations; None for fewer than two photos, which cannot be divided.
    """
    if photos < 2:
        return None
    pool, rng = Pool(predictions, groups, list(classes)), np.random.default_rng(0)
    public_photos = max(round(PUBLIC_SHARE * photos), 1)
    counts, agreement = [], []
    for _ in range(SIMULATIONS):
        rows, unit = pool.draw(photos, rng)
        public, private = np.split(rng.permutation(photos), [public_photos])
        rows, unit, public = rows[private], unit[private], rows[public]
        rivals = [pool.rival(rows, unit, share, rng) for share in SHARED]
        counts.append(
            [pool.count(public, pool.predicted[public])]
            + [pool.count(rows, predicted) for predicted in (pool.predicted[rows], *rivals)]
        )
        agreement.append([np.mean(predicted == pool.predicted[rows]) for predicted in rivals])
    whole = pool.count(slice(None), pool.predicted)
    public, private, *rivals = (macro_f1_of_draws(drawn, whole) for drawn in np.moveaxis(np.array(counts), 1, 0))
    return Luck(
        photos=photos,
        public_share=PUBLIC_SHARE,
        simulations=SIMULATIONS,
        public=Draws(*interval(public), float(public.mean())),
        private=Draws(*interval(private), float(private.mean())),
        difference=Range(*interval(public - private)),
        histogram=_histogram(public, private),
        told_apart=[
            Rival(float(share), float(np.quantile(abs(private - rival), 0.95)))
            for share, rival in zip(np.mean(agreement, axis=0), rivals, strict=True)
        ],
    )


class Pool:
    """Photos that test sets are drawn from, sorted by group.

    Attributes:
        truth: Class index of each row.
        predicted: Class index the model predicts.
    """

    def __init__(self, predictions: pd.DataFrame, groups: pd.Series, labels: list[str]) -> None:
        table = pd.DataFrame(
            {
                "group": pd.factorize(predictions["image_id"].map(groups))[0],
                "truth": class_indices(predictions["label"], labels),
                "predicted": class_indices(predictions["prediction"], labels),
            }
        ).sort_values(["group", "truth"], ignore_index=True)
        self.classes = len(labels)
        self.truth, self.predicted = table["truth"].to_numpy(), table["predicted"].to_numpy()
        self._size = table.groupby("group").size().to_numpy()
        self._start = self._size.cumsum() - self._size
        copies = table.groupby(["group", "truth"])
        self._copies, self._place = copies["truth"].transform("size").to_numpy(), copies.cumcount().to_numpy()
        self._by_class = np.argsort(self.truth, kind="stable")
        self._of_class = np.bincount(self.truth, minlength=self.classes)

    def draw(self, photos: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw groups with replacement until there are enough rows; return the rows and the draw each belongs to."""
        drawn = rng.integers(len(self._size), size=photos)  # enough even if each group has one photo
        drawn = drawn[: np.searchsorted(self._size[drawn].cumsum(), photos) + 1]
        size = self._size[drawn]
        unit = np.repeat(np.arange(len(drawn)), size)
        rows = self._start[drawn][unit] + np.arange(len(unit)) - (size.cumsum() - size)[unit]
        return rows[:photos], unit[:photos]

    def rival(self, rows: np.ndarray, unit: np.ndarray, shared: float, rng: np.random.Generator) -> np.ndarray:
        """Simulate the predictions (class indices) of an equally good model that is wrong about different photos.

        Each drawn group receives the predictions of another random group, from photos of the same class. This preserves
        this model's confusion probabilities, and the correlation between copies.

        Args:
            rows: Rows returned by `draw`, or a subset of them.
            unit: Draw each row belongs to.
            shared: Share of the drawn groups that keep this model's predictions.
        """
        units, truth = unit.max() + 1, self.truth[rows]
        chosen = (rng.random(units)[unit] * self._of_class[truth]).astype(int)
        donor = self._by_class[(self._of_class.cumsum() - self._of_class)[truth] + chosen]
        turn = (self._place[donor] + self._place[rows]) % self._copies[donor]  # each copy takes another copy's
        kept = (rng.random(units) < shared)[unit]
        return np.where(kept, self.predicted[rows], self.predicted[donor - self._place[donor] + turn])

    def count(self, rows: np.ndarray | slice, predicted: np.ndarray) -> np.ndarray:
        """Return hits, predictions and photos of each class among some rows: shape (3, classes)."""
        true = self.truth[rows]
        classes = (true[true == predicted], predicted, true)
        return np.array([np.bincount(found, minlength=self.classes) for found in classes])


def _histogram(public: np.ndarray, private: np.ndarray) -> Histogram:
    """Return the shares of the simulations in bins of equal width, shared by both parts."""
    edges = np.histogram_bin_edges(np.concatenate([public, private]), BINS)
    shares = ((np.histogram(scores, edges)[0] / SIMULATIONS).tolist() for scores in (public, private))
    return Histogram(edges.tolist(), *shares)
