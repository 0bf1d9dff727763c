"""Calibration: reliability of probabilities, and the temperature that corrects them."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from trunkfold.assessment import Bin, Calibration, Reliability
from trunkfold.evaluation.predictions import probabilities_of

BINS = 15
LEAST = 1e-12  # probability, so that a certain mistake costs a finite amount
TEMPERATURES = (0.05, 20.0)


def calibrate(oof: pd.DataFrame, holdout: pd.DataFrame | None, classes: dict[str, str]) -> Calibration:
    """Reliability of a run's probabilities, as they are and scaled by one temperature.

    The temperature is fitted to the out-of-fold photos, so their own scaled numbers are of the photos that chose it; it
    is a single number. Those of the hold-out are of photos that did not. (Guo et al. 2017, arXiv 1706.04599)

    Args:
        oof: label and p_<class name> of the out-of-fold photos.
        holdout: The same of the held-out ones; None without any.
        classes: Name of each label, in order.
    """
    tables = {"oof": _truth_and_probabilities(oof, classes)}
    if holdout is not None:
        tables["holdout"] = _truth_and_probabilities(holdout, classes)
    temperature = fit_temperature(*tables["oof"])
    found = {}
    for name, (truth, probabilities) in tables.items():
        scaled = reliability(truth, scale(probabilities, temperature))
        scaled = {f"{key}_scaled": value for key, value in scaled.items()}
        found[name] = Reliability(**reliability(truth, probabilities), **scaled)
    return Calibration(temperature, found["oof"], found.get("holdout"))


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Raise probabilities to the power 1 / temperature and normalize: above 1 they become less confident.

    Args:
        probabilities: Of shape (rows, classes).
    """
    logits = np.log(probabilities.clip(LEAST)) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Fit the temperature between 0.05 and 20 that minimizes the negative log-likelihood.

    Args:
        truth: Class numbers, of shape (rows,).
        probabilities: Of shape (rows, classes).
    """
    found = minimize_scalar(
        lambda log_temperature: _negative_log_likelihood(truth, scale(probabilities, np.exp(log_temperature))),
        bounds=np.log(TEMPERATURES),
        method="bounded",
    )
    return float(np.exp(found.x))


def reliability(truth: np.ndarray, probabilities: np.ndarray) -> dict:
    """Compare the probability of the predicted class with the share of correct predictions.

    Args:
        truth: Class numbers, of shape (rows,).
        probabilities: Of shape (rows, classes).

    Returns:
        ece (expected calibration error over 15 bins of equal width), nll (mean negative log-likelihood), bins (those
        that have photos).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    bin_of_row = np.ceil(confidence * BINS).clip(1, BINS)  # a bin holds its upper edge, as in Guo et al.
    table = pd.DataFrame({"confidence": confidence, "accuracy": right.astype(float)}).groupby(bin_of_row)
    bins = table.mean().assign(photos=table.size())
    gaps = (bins["confidence"] - bins["accuracy"]).abs()
    return {
        "ece": float((gaps * bins["photos"]).sum() / len(truth)),
        "nll": _negative_log_likelihood(truth, probabilities),
        "bins": [Bin(**row) for row in bins.to_dict("records")],
    }


def _negative_log_likelihood(truth: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(truth)), truth].clip(LEAST)).mean())


def _truth_and_probabilities(table: pd.DataFrame, classes: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    number = {label: place for place, label in enumerate(classes)}
    return table["label"].map(number).to_numpy(), probabilities_of(table, classes)
