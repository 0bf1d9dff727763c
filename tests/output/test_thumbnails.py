"""Thumbnails show the photos, heat maps are aligned with them, and files are written atomically."""

import base64
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from made_up_run import CLASSES, make_run, mistaken_rows
from PIL import Image
from toy_models import Toy, Trunk

from trunkfold.evaluation.predictions import read_folds
from trunkfold.output.thumbnails import SIDE, overlay, save_thumbnails, thumbnail
from trunkfold.report.contents import read_findings
from trunkfold.run_folder import RunFolder


def test_a_thumbnail_keeps_the_photos_proportions():
    assert thumbnail(np.zeros((300, 600, 3), np.uint8)).shape == (SIDE // 2, SIDE, 3)
    assert thumbnail(np.zeros((40, 20, 3), np.uint8)).shape == (SIDE, SIDE // 2, 3)
    assert thumbnail(np.zeros((1000, 2, 3), np.uint8)).shape == (SIDE, 1, 3)


def test_heat_colours_the_part_of_the_picture_that_it_is_about():
    picture = np.full((80, 80, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    changed = np.abs(overlay(picture, heat).astype(int) - picture).sum(2)
    assert changed[:20, 60:].mean() > 100
    assert changed[40:].max() == 0
    assert changed[:, :40].max() == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run whose photos have the colour of their row.

    Held-out photos are taken for the third class, and their tail looks for that at the bottom right; the others for
    the first one, for which it looks at the top left.
    """
    run = make_run(tmp_path_factory.mktemp("saved"))
    holdout = pd.read_csv(run / "holdout.csv")
    first, last = f"p_{CLASSES['1']}", f"p_{CLASSES['3']}"
    holdout = holdout.rename(columns={first: last, last: first})
    holdout["prediction"] = holdout["prediction"].map({1: 3, 2: 2, 3: 1})
    holdout["label"] = holdout["label"].map({1: 3, 2: 2, 3: 1})
    holdout.to_csv(run / "holdout.csv", index=False)
    run = RunFolder(run, write=True)
    folds = read_folds(run.folds, CLASSES)
    pixels = [np.full((30, 60, 3), (row, 2 * row, 255 - row), np.uint8) for row in range(len(folds))]
    gallery = read_findings(run).gallery
    fold_of_row = np.ones(84, int)
    fold_of_row[mistaken_rows(gallery)] = 0  # the second tail predicts the photos that are not shown
    labelled = SimpleNamespace(table=folds, classes=CLASSES, pixels=pixels, fold_of_row=fold_of_row)

    class Corners(torch.nn.Module):
        def forward(self, photos):
            corners = torch.zeros_like(photos)
            corners[:, 0, :2, :2] = corners[:, 2, -2:, -2:] = 1
            return corners * (photos + 1)

    everywhere = Toy((1000 * np.eye(3)).tolist())
    tails = [Toy(np.eye(3).tolist(), Corners()), everywhere]
    save_thumbnails(run, gallery, labelled, Accelerator(cpu=True), Trunk(), tails, 8)
    return run, gallery


def open_address(address: str) -> np.ndarray:
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)


def test_the_photos_that_are_shown_are_saved_by_their_rows(saved):
    run, gallery = saved
    names = {f"{row}.jpg" for row in gallery.rows} | {f"{row}-cam.jpg" for row in mistaken_rows(gallery)}
    assert {path.name for path in run.thumbnails.iterdir()} == names
    for row in gallery.rows:
        pixels = open_address(read_findings(run).photo(row))
        assert pixels.shape == (SIDE // 2, SIDE, 3)
        np.testing.assert_allclose(pixels.mean((0, 1)), (row, 2 * row, 255 - row), atol=4)


def test_the_heat_lies_on_the_photo_in_its_own_proportions(saved):
    run, gallery = saved
    findings, predictions = read_findings(run), pd.concat(gallery.mistakes.values()).set_index("row")["prediction"]
    for row in mistaken_rows(gallery):
        photo, heat = open_address(findings.photo(row)), open_address(findings.heat(row))
        assert heat.shape == photo.shape
        changed = np.abs(heat - photo).sum(2)
        if predictions[row] == "3":
            changed = changed[::-1, ::-1]
        assert changed[:20, :40].mean() > 60
        assert changed[60:, 120:].mean() < 12


def test_of_several_runs_the_first_that_has_a_photo_shows_it_and_heat_is_of_the_first_alone(saved, tmp_path):
    run, gallery = saved
    heated, findings, other = mistaken_rows(gallery)[0], read_findings(run), RunFolder(tmp_path)
    blend = replace(findings, folder=other, photographed=[other, run])
    assert blend.photo(heated) == findings.photo(heated)
    assert blend.heat(heated) is None
    assert findings.heat(heated)
    assert blend.photo(9999) is None
