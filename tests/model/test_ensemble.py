"""The ensemble equals the mean of K whole models, also after saving and loading."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from peft import PeftModel
from safetensors.torch import load_file

from trunkfold.config.schema import Config, DataConfig, ModelConfig, PredictConfig, SplitConfig
from trunkfold.errors import InputError
from trunkfold.evaluation.predictions import average
from trunkfold.images.views import VIEWS, render
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.model.ensemble import (
    load_ensemble,
    predict,
    save_fold,
    save_shared,
)
from trunkfold.model.features import FeatureSource
from trunkfold.model.layers import merge
from trunkfold.model.parts import Tail, trained_parameters
from trunkfold.run_folder import RunFolder
from trunkfold.split.folds import scoring_members

FOLDS, CLASSES = 3, 4
CONFIG = Config(
    data=DataConfig(image_size=64, workers=0),
    split=SplitConfig(folds=FOLDS),
    model=ModelConfig(name="test_convnext", pretrained=False, tune_stages=2),
    predict=PredictConfig(batch_size=4),
)


def some_photos(count: int = 10) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (rng.integers(40, 90), rng.integers(40, 90), 3), np.uint8) for _ in range(count)]


def trained(config: Config) -> tuple[Backbone, list[Tail]]:
    """A backbone and tails whose every trained number has moved."""
    backbone = build_backbone(config.model, CLASSES, load_weights=False)
    tails = [backbone.make_tail(fold).eval() for fold in range(FOLDS)]
    torch.manual_seed(0)
    with torch.no_grad():
        for tail in tails:
            for _, parameter in trained_parameters(tail):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return backbone, tails


@pytest.fixture
def run(tmp_path: Path) -> Path:
    backbone, tails = trained(CONFIG)
    save_shared(RunFolder(tmp_path, write=True), backbone)
    for fold, tail in enumerate(tails):
        save_fold(RunFolder(tmp_path, write=True), fold, tail)
    return tmp_path


def probabilities(accelerator, config, backbone, tails, views, members=None):
    photos = some_photos()
    source = FeatureSource(accelerator, backbone.trunk, photos, config)
    members = np.ones((len(photos), len(tails)), bool) if members is None else members
    batches = [source.batches(np.arange(len(photos)), view) for view in views]
    return average(predict(accelerator, tails, members, batches), members)


@pytest.mark.filterwarnings("error::UserWarning:peft")
@pytest.mark.parametrize("name", ["test_convnext", "convnext_atto", "convnextv2_atto"])
@pytest.mark.parametrize("tune", ["adapters", "block", "all"])
def test_the_ensemble_is_the_mean_of_whole_models_that_peft_merged(accelerator, tmp_path, name, tune):
    """The other side reads the run's files with peft and timm alone."""
    config = replace(CONFIG, model=ModelConfig(name=name, pretrained=False, tune=tune))
    backbone, tails = trained(config)
    save_shared(RunFolder(tmp_path, write=True), backbone)
    expected = []
    for fold, tail in enumerate(tails):
        save_fold(RunFolder(tmp_path, write=True), fold, tail)
        model = timm.create_model(name, num_classes=CLASSES)
        model.load_state_dict(without_base_layer(load_file(tmp_path / "shared.safetensors")), strict=False)
        model.load_state_dict(without_base_layer(load_file(tmp_path / f"fold_{fold}/tail.safetensors")), strict=False)
        adapters = PeftModel.from_pretrained(model, tmp_path / f"fold_{fold}").merge_and_unload().eval()
        inputs = torch.stack(
            [torch.from_numpy(render(photo, VIEWS["plain"], 64)).permute(2, 0, 1) for photo in some_photos()]
        )
        with torch.no_grad():
            expected.append(adapters((inputs - backbone.trunk.mean) / backbone.trunk.std).softmax(1).numpy())
    _, loaded = load_ensemble(RunFolder(tmp_path), config, CLASSES)
    found = probabilities(accelerator, config, backbone, loaded, ["plain"])
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3


def without_base_layer(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("tune", ["adapters", "block", "all"])
@pytest.mark.parametrize("tune_stages", [1, 4])
def test_save_load_merge_keeps_the_logits(tmp_path, tune, tune_stages):
    config = replace(CONFIG, model=replace(CONFIG.model, tune=tune, tune_stages=tune_stages))
    backbone, tails = trained(config)
    save_shared(RunFolder(tmp_path, write=True), backbone)
    for fold, tail in enumerate(tails):
        save_fold(RunFolder(tmp_path, write=True), fold, tail)
    torch.manual_seed(99)  # what is built before loading starts from other numbers
    loaded_backbone, loaded = load_ensemble(RunFolder(tmp_path), config, CLASSES)
    photos = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    for tail, other in zip(tails, loaded, strict=True):
        torch.testing.assert_close(
            other(loaded_backbone.trunk(photos)), tail(backbone.trunk(photos)), rtol=1e-4, atol=1e-4
        )


def test_one_view_is_no_augmentation_and_two_are_their_mean(accelerator):
    backbone, tails = trained(CONFIG)
    tails = [merge(tail) for tail in tails]
    plain, mirrored, both = (
        probabilities(accelerator, CONFIG, backbone, tails, views)
        for views in (["plain"], ["hflip"], ["plain", "hflip"])
    )
    photos = torch.stack([torch.from_numpy(render(p, VIEWS["plain"], 64)).permute(2, 0, 1) for p in some_photos()])
    with torch.no_grad():
        features = backbone.trunk(photos)
        alone = torch.stack([tail(features).softmax(1) for tail in tails]).mean(0)
    np.testing.assert_allclose(plain, alone, atol=1e-5)
    np.testing.assert_allclose(both, (plain + mirrored) / 2, atol=1e-6)
    assert not np.allclose(plain, mirrored, atol=1e-4)


@pytest.mark.parametrize("view", list(VIEWS))
def test_every_view_predicts(accelerator, view):
    backbone, tails = trained(CONFIG)
    np.testing.assert_allclose(probabilities(accelerator, CONFIG, backbone, tails, [view]).sum(1), 1, atol=1e-5)


def test_what_is_only_learned_from_is_scored_by_no_tail():
    assert scoring_members(np.array([0, -2, -1]), 1).tolist() == [[True], [False], [True]]
    assert scoring_members(np.array([0, 1, -1]), 2).tolist() == [[True, False], [False, True], [True, True]]


def test_members_choose_the_tails(accelerator):
    backbone, tails = trained(CONFIG)
    fold_of_row = np.array([0, 1, 2, -1, 0, 1, 2, -1, 0, 1])
    members = scoring_members(fold_of_row, FOLDS)
    found = probabilities(accelerator, CONFIG, backbone, tails, ["plain"], members)
    each = [probabilities(accelerator, CONFIG, backbone, [tail], ["plain"]) for tail in tails]
    for row, fold in enumerate(fold_of_row):
        expected = np.mean([alone[row] for alone in each], axis=0) if fold < 0 else each[fold][row]
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_single_predictions_are_those_of_each_tail_in_each_view(accelerator):
    backbone, tails = trained(CONFIG)
    photos, views = some_photos(), ["plain", "hflip"]
    members = scoring_members(np.array([0, 1, 2, -1, 0, -2, 2, -1, 0, 1]), FOLDS)
    source = FeatureSource(accelerator, backbone.trunk, photos, CONFIG)
    order = np.random.default_rng(1).permutation(len(photos))
    found = predict(accelerator, tails, members, [source.batches(order, view) for view in views])
    assert (found.shape, found.dtype) == ((2, len(photos), FOLDS, CLASSES), np.float32)
    for place, view in enumerate(views):
        for fold, tail in enumerate(tails):
            alone = probabilities(accelerator, CONFIG, backbone, [tail], [view])
            chosen = members[:, fold]
            np.testing.assert_allclose(found[place, chosen, fold], alone[chosen], atol=1e-6)
            assert np.isnan(found[place, ~chosen, fold]).all()
    together = probabilities(accelerator, CONFIG, backbone, tails, views, members)
    np.testing.assert_allclose(average(found, members), together, atol=1e-6)
    assert np.isnan(together[5]).all()


def test_an_average_is_that_of_the_chosen_tails():
    """Two views of three tails; the last one did not predict."""
    predicted = np.array([[0.1, 0.4, np.nan], [0.3, 0.8, np.nan]], np.float32)[:, None, :, None]
    for chosen, expected in {(True, True, False): 0.4, (True, False, False): 0.2, (False, True, False): 0.6}.items():
        np.testing.assert_allclose(average(predicted, np.array([chosen])), [[expected]], atol=1e-7)
    assert np.isnan(average(predicted, np.zeros((1, 3), bool))).all()


def test_a_tail_that_broke_is_not_left_out_of_the_average():
    predicted = np.array([0.1, np.nan], np.float32)[None, None, :, None]
    assert np.isnan(average(predicted, np.ones((1, 2), bool))).all()


@pytest.mark.parametrize("second", [[0, 1, 2, 2], [0, 1]], ids=["twice", "missing"])
def test_a_view_does_not_make_up_for_another(accelerator, second):
    """Each row is predicted twice in two views on the whole, where one has a row twice and the other lacks it."""
    backbone, tails = trained(CONFIG)
    source = FeatureSource(accelerator, backbone.trunk, some_photos(3), CONFIG)
    first = [0, 1] if len(second) == 4 else [0, 1, 2, 2]
    views = [source.batches(np.array(rows)) for rows in (first, second)]
    with pytest.raises(RuntimeError, match="twice or not at all"):
        predict(accelerator, tails, np.ones((3, FOLDS), bool), views)


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 2, 2]], ids=["missing", "twice"])
def test_a_row_that_is_not_predicted_exactly_once_is_a_bug(accelerator, rows):
    backbone, tails = trained(CONFIG)
    source = FeatureSource(accelerator, backbone.trunk, some_photos(3), CONFIG)
    with pytest.raises(RuntimeError, match="twice or not at all"):
        predict(accelerator, tails, np.ones((3, FOLDS), bool), [source.batches(np.array(rows))])


def test_a_missing_fold_is_named(run):
    shutil.rmtree(run / "fold_1")
    with pytest.raises(InputError, match=r"fold_1.*is missing"):
        load_ensemble(RunFolder(run), CONFIG, CLASSES)


@pytest.mark.parametrize("file", ["shared.safetensors", "fold_0/tail.safetensors", "fold_2/adapter_model.safetensors"])
def test_a_damaged_file_is_named(run, file):
    (run / file).write_bytes((run / file).read_bytes()[:100])
    with pytest.raises(InputError, match=rf"{file} cannot be read"):
        load_ensemble(RunFolder(run), CONFIG, CLASSES)


def test_files_of_another_model_are_refused(run):
    with pytest.raises(InputError, match=r"tail\.safetensors does not fit .*head\.fc"):
        load_ensemble(RunFolder(run), CONFIG, CLASSES + 1)
    with pytest.raises(InputError, match=r"shared\.safetensors does not fit"):
        load_ensemble(RunFolder(run), replace(CONFIG, model=replace(CONFIG.model, tune_stages=3)), CLASSES)
