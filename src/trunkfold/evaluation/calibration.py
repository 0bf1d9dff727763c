"""Calibration: reliability of probabilities, and temperature scaling."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import binomtest

from trunkfold.assessment import Bin, Calibration, Interval, Reliability
from trunkfold.evaluation.predictions import class_indices, probabilities_of

BINS, IN_BIN = 12, 20  # maximum number of bins, and minimum number of sources per bin
LEAST = 1e-12  # lower bound of probabilities, which keeps the log-likelihood finite
TEMPERATURES = (0.05, 20.0)


def calibrate(
    oof: pd.DataFrame, holdout: pd.DataFrame | None, groups: pd.Series, classes: dict[str, str]
) -> Calibration:
    """Measure the reliability of a run's probabilities before and after temperature scaling.

    The temperature (Guo et al. 2017, arXiv 1706.04599) is fitted to the out-of-fold photos. Their scaled reliability is
    therefore slightly optimistic, by a single fitted parameter; that of the hold-out is unbiased.

    Args:
        oof: image_id, label and p_<class name> of the out-of-fold photos.
        holdout: The same for the held-out photos; None without a hold-out.
        groups: Group of each image_id, the index.
    """
    tables = {"oof": oof} if holdout is None else {"oof": oof, "holdout": holdout}
    temperature, found = fit_temperature(*_truth_and_probabilities(oof, classes)), {}
    for name, table in tables.items():
        truth, probabilities = _truth_and_probabilities(table, classes)
        sources = pd.factorize(table["image_id"].map(groups))[0]
        scaled = reliability(truth, scale(probabilities, temperature), sources)
        scaled = {f"{key}_scaled": value for key, value in scaled.items()}
        found[name] = Reliability(**reliability(truth, probabilities, sources), **scaled)
    return Calibration(temperature, found["oof"], found.get("holdout"))


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Raise probabilities (rows, classes) to the power 1 / temperature and normalize; above 1 it lowers confidence."""
    return softmax(np.log(probabilities.clip(LEAST)) / temperature, axis=1)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Fit the temperature (0.05 to 20) with the lowest loss of classes (rows,) by probabilities (rows, classes)."""
    found = minimize_scalar(
        lambda log_temperature: mean_log_loss(truth, scale(probabilities, np.exp(log_temperature))),
        bounds=np.log(TEMPERATURES),
        method="bounded",
    )
    return float(np.exp(found.x))


def reliability(truth: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict:
    """Compare the probability of the predicted class with the share of correct predictions.

    Bins contain equal numbers of photos, because some bins of equal width would be nearly empty (Nguyen and O'Connor
    2015).

    Args:
        truth: Class numbers, of shape (rows,).
        probabilities: Of shape (rows, classes).
        groups: Group index of each row. Intervals count groups, because predictions of copies are correlated.

    Returns:
        ece (expected calibration error over the bins), nll (mean negative log-likelihood), bins.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    count = int(np.clip(len(np.unique(groups)) // IN_BIN, 1, BINS))
    bins = [
        Bin(
            confidence=float(confidence[rows].mean()),
            accuracy=float(right[rows].mean()),
            photos=len(rows),
            interval=_wilson(right[rows].mean(), len(np.unique(groups[rows]))),
        )
        for rows in np.array_split(np.lexsort((groups, confidence)), count)
    ]
    return {
        "ece": sum(abs(part.confidence - part.accuracy) * part.photos for part in bins) / len(truth),
        "nll": mean_log_loss(truth, probabilities),
        "bins": bins,
    }


def _wilson(share: float, sources: int) -> Interval:
    """Return the 95 % Wilson interval of a share of `sources` sources."""
    found = binomtest(round(share * sources), sources).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def mean_log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the mean negative log-likelihood of class indices (rows,) by probabilities (rows, classes)."""
    return float(-np.log(probabilities[np.arange(len(truth)), truth].clip(LEAST)).mean())


def _truth_and_probabilities(table: pd.DataFrame, classes: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    return class_indices(table["label"], classes), probabilities_of(table, classes)
