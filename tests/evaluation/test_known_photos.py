"""The novelty threshold compares photos with other folds and groups only, never with copies."""

import numpy as np
import pandas as pd
import pytest

from trunkfold.errors import InputError
from trunkfold.evaluation.known_photos import KnownPhotos, fit_threshold, load_known_photos, save_known_photos
from trunkfold.run_folder import RunFolder


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def chord(degrees: float) -> float:
    return 2 * np.sin(np.radians(degrees) / 2)


def table(folds: list[int], groups: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"fold": folds, "group": groups})


def test_the_threshold_ignores_copies_and_the_photos_own_fold():
    # 0 and 1 are copies; 3 degrees is in the own fold of 0; the nearest fair photo of 0 is at 40 degrees.
    folds = table([0, 1, 0, 1, -1], ["a", "a", "b", "c", "d"])
    vectors = on_circle(0, 1, 3, 40, 0.5)
    fair = [40, 2, 2, 37]  # 1 -> 3 degrees; 3 -> 1 degree; 40 -> 3 degrees
    expected = np.quantile([chord(angle) for angle in fair], 0.99)
    assert fit_threshold(vectors, folds) == pytest.approx(expected, rel=1e-3)


def test_novelty_is_one_at_the_threshold():
    known = KnownPhotos(on_circle(0, 90), np.array([5, 7]), chord(30))
    np.testing.assert_allclose(
        known.novelty(on_circle(0, 30, 150)), [0, 1, 2 * np.sin(np.radians(30)) / chord(30)], atol=1e-3
    )
    assert known.nearest(on_circle(60)[0], 2).tolist() == [7, 5]


def test_held_out_photos_are_not_known(tmp_path):
    folds = table([0, 1, -1], ["a", "b", "c"])
    save_known_photos(RunFolder(tmp_path, write=True), on_circle(0, 20, 90).astype(np.float16), folds)
    known = load_known_photos(RunFolder(tmp_path), folds)
    assert known.rows.tolist() == [0, 1]
    assert known.threshold == pytest.approx(chord(20), rel=1e-2)
    assert known.novelty(on_circle(90))[0] == pytest.approx(chord(70) / chord(20), rel=1e-2)


def test_a_file_of_other_folds_is_refused(tmp_path):
    folds = table([0, 1, -1], ["a", "b", "c"])
    save_known_photos(RunFolder(tmp_path, write=True), on_circle(0, 20, 90).astype(np.float16), folds)
    with pytest.raises(InputError, match=r"does not match .*folds.csv"):
        load_known_photos(RunFolder(tmp_path), folds[:2])
    assert load_known_photos(RunFolder(tmp_path / "elsewhere"), folds) is None
