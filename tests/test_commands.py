"""The commands end to end, on a toy competition and with every shipped configuration."""

import contextlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from forked import run_ranks
from made_up_run import mistaken_rows
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, f1_score
from toys import LABELS, SOURCE, leave_out_figures, printed_commands, refuse_writes, run_command, write_competition

from trunkfold.config.parsing import load_config
from trunkfold.evaluation.decoding import decode
from trunkfold.images.views import VIEWS
from trunkfold.report.contents import read_findings
from trunkfold.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("without_figures")  # runs of module fixtures have them
NOT_RUN = {"tune", *("convnext_tiny_288", "convnext_tiny_384", "convnext_small_384", "convnext_tiny_dinov3")} | {
    *("vit_base_dinov3", "siglip2_base", "eva02_small_336")  # only their models differ: tests/model/ builds these
}
SLOW = pytest.mark.slow
CONFIGS = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in {"vehicle_damage", "seed_baseline"} else SLOW)
    for path in sorted((SOURCE.parent / "configs").glob("*.yaml"))
    if path.stem not in NOT_RUN
]
# The smallest model of each family that a configuration names.
TINY = {"convnextv2": "test_convnext2", "convnext": "test_convnext"}
SMALL = {
    "data.classes": "null",
    "data.image_size": "64",
    "model.name": "test_convnext",
    "model.pretrained": "false",
    "split.folds": "3",
    "train.batch_size": "12",
    "train.epochs": "2",
}


def words(options: dict[str, object]) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def train(root: Path, name: str, **options: object) -> Path:
    groups = {"split.groups": root / "groups.csv"} if (root / "groups.csv").exists() else {}
    merged = {**SMALL, "data.root": root, **groups, "run.name": name} | {
        key.replace("__", "."): value for key, value in options.items()
    }
    run_command("train_folds.py", *words(merged))
    return Path("submissions") / name


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy competition and a run that was trained and submitted in it, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        root = write_competition(folder / "input")
        train(root, "toy")
        run_command("make_submission.py")
    return folder


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"image_id": str, "label": str, "prediction": str})


def assert_refused(message: str, capsys: pytest.CaptureFixture, call, *args, **options) -> None:
    """The call ends with exit code 2 and one message, and without a traceback."""
    with pytest.raises(SystemExit) as stopped:
        call(*args, **options)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_a_run_has_all_that_is_promised(finished):
    run = finished / "submissions/toy"
    made = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    per_fold = {"adapter_config.json", "adapter_model.safetensors", "tail.safetensors"}
    luck = ["luck"] * (RunFolder(run).read_metrics().oof.accuracy < 1)  # without mistakes, no leaderboard differs
    assert made == {
        *(
            "config.yaml",
            "folds.csv",
            "groups.csv",
            "history.csv",
            "shared.safetensors",
            "metrics.json",
            "oof.csv",
            "holdout.csv",
            "label_issues.csv",
            "embeddings.safetensors",
            ".lock",
        ),
        *("test_probabilities.csv", "submission.csv", "report.html"),
        *(
            f"figures/{name}.png"
            for name in (
                *("augmented", "classes", "confusion_oof", "confusion_holdout", "fold_scores"),
                *("curve_loss", "curve_validation_scores", "curve_learning_rate"),
                *(*luck, "reliability_oof", "reliability_holdout", "ablation"),
            )
        ),
        *(f"fold_{fold}/{name}" for fold in range(3) for name in per_fold),
    } | {name for name in made if re.fullmatch(r"figures/photos/\d+(-cam)?\.jpg", name)}


def test_the_photos_that_the_report_shows_are_there_and_no_others(finished):
    run = finished / "submissions/toy"
    findings = read_findings(RunFolder(run))
    rows = mistaken_rows(findings.gallery)
    expected = {f"{row}.jpg" for row in findings.gallery.rows} | {f"{row}-cam.jpg" for row in rows}
    assert {path.name for path in (run / "figures/photos").iterdir()} == expected
    row = next(iter(findings.gallery.samples["1"]))
    shown = np.asarray(Image.open(run / f"figures/photos/{row}.jpg")).astype(int)
    file = finished / "input/train/train/images" / findings.folds["filename"].iloc[row]
    photo = np.asarray(Image.open(file).convert("RGB").resize(shown.shape[1::-1])).astype(int)
    assert np.abs(shown - photo).mean() < 12


def test_a_run_tells_what_it_was_made_with(finished):
    metrics = json.loads((finished / "submissions/toy/metrics.json").read_text())
    made = metrics["made_with"]
    assert made["versions"]["torch"] == version("torch")
    assert made["processes"] == 1
    assert made["data"]["sizes"] == {
        **{"photos": 90, "width": [40, 40, 40], "height": [30, 30, 30]},
        "frequent": {"40 x 30": 90},
    }
    assert made["data"]["group_sizes"] == {"3": 30}


def test_every_labelled_photo_is_scored_exactly_once(finished):
    run = finished / "submissions/toy"
    labelled = read(finished / "input/train/train/train.csv")
    oof, holdout, folds = (read(run / f"{name}.csv") for name in ("oof", "holdout", "folds"))
    assert sorted([*oof["image_id"], *holdout["image_id"]]) == sorted(labelled["image_id"])
    assert set(holdout["fold"]) == {-1}
    assert set(oof["fold"]) == {0, 1, 2}
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    scored = pd.concat([oof, holdout]).set_index("image_id").loc[folds["image_id"]]
    assert scored["fold"].tolist() == folds["fold"].tolist()
    assert scored["label"].tolist() == folds["label"].tolist()
    probabilities = scored[["p_1", "p_2", "p_3"]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert scored["prediction"].tolist() == [LABELS[place] for place in probabilities.argmax(1)]


def test_metrics_are_those_of_the_tables(finished):
    run = finished / "submissions/toy"
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("oof", "holdout"):
        table = read(run / f"{name}.csv")
        truth, predicted = table["label"], table["prediction"]
        assert metrics[name]["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
        assert metrics[name]["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert np.sum(metrics[name]["confusion_matrix"]) == len(table)
        low, high = metrics[name]["intervals"]["macro_f1"]
        assert low <= metrics[name]["macro_f1"] <= high
        for row in metrics["ablation"][name]:
            assert row["macro_f1"] + row["gain"] == pytest.approx(metrics[name]["macro_f1"])
    parts = [row["part"] for row in metrics["ablation"]["holdout"]]
    assert parts == [
        "test-time augmentation (hflip)",
        "consensus of copies",
        "decoding for macro F1",
        "fold 0",
        "fold 1",
        "fold 2",
    ]
    assert metrics["luck"]["photos"] == len(read(run / "submission.csv"))
    assert [fold["fold"] for fold in metrics["folds"]] == [0, 1, 2]
    assert metrics["parameters"]["trainable"] < metrics["parameters"]["total"]
    assert {"reading photos", "training", "prediction", "test prediction"} <= set(metrics["seconds"])
    assert metrics["images_per_second"] > 0


def test_history_has_a_row_for_each_epoch_and_fold(finished):
    history = pd.read_csv(finished / "submissions/toy/history.csv")
    assert list(history.columns) == [
        *("epoch", "fold", "train_loss", "val_loss", "val_accuracy", "val_macro_f1", "lr_tail", "lr_head", "seconds")
    ]
    assert list(zip(history["epoch"], history["fold"], strict=True)) == [(e, f) for e in (1, 2) for f in range(3)]


def test_the_submission_has_the_test_photos_in_their_order(finished):
    test = read(finished / "input/test/test/test.csv")
    submission = read(finished / "submissions/toy/submission.csv")
    probabilities = read(finished / "submissions/toy/test_probabilities.csv")
    assert list(submission.columns) == ["image_id", "label"]
    assert submission["image_id"].tolist() == probabilities["image_id"].tolist() == test["image_id"].tolist()
    best = probabilities[["p_1", "p_2", "p_3"]].to_numpy().argmax(1)
    assert submission["label"].tolist() == [LABELS[place] for place in best]


def test_held_out_photos_are_predicted_as_test_photos_are(finished, workplace):
    """The same files as a test set get the same probabilities: what was scored is what is submitted."""
    run = workplace / "submissions/toy"
    shutil.copytree(finished / "submissions/toy", run)
    holdout = read(run / "holdout.csv")
    root = workplace / "again"
    (root / "test").mkdir(parents=True)
    (root / "test/images").symlink_to(finished / "input/train/train/images")
    files = holdout[["image_id"]].assign(filename=holdout["image_id"] + ".png")
    files.to_csv(root / "test/test.csv", index=False)
    groups = read(run / "groups.csv")  # without sets, while these ids are now of both
    pd.concat([groups.assign(set=name) for name in ("train", "test")]).to_csv(run / "groups.csv", index=False)
    run_command("make_submission.py", "--data.root", root)
    found = read(run / "test_probabilities.csv")
    columns = ["p_1", "p_2", "p_3"]
    # the features of the plain view were kept in half precision for the hold-out
    np.testing.assert_allclose(found[columns], holdout[columns], atol=2e-3)


@pytest.fixture
def read_only(finished, tmp_path, monkeypatch) -> Iterator[Path]:
    """A trained run on a disk that refuses writes: a read-only bind mount, or a fake for those who may not mount."""
    run = tmp_path / "uploads" / "toy"
    shutil.copytree(finished / "submissions/toy", run)
    for name in ("submission.csv", "report.html", "test_probabilities.csv"):
        (run / name).unlink()
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", run, run], capture_output=True).returncode == 0
    if not mounted:
        refuse_writes(monkeypatch, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    yield run
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    if mounted:
        subprocess.run(["umount", run], check=True)


def test_a_read_only_run_is_submitted_into_a_folder_of_its_own(read_only, finished):
    run_command("make_submission.py", "--run", read_only)
    out = Path("submissions/toy-submission")
    for name in ("submission.csv", "test_probabilities.csv", "oof.csv", "folds.csv"):
        assert (out / name).read_bytes() == (finished / "submissions/toy" / name).read_bytes()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["runs"] == {str(read_only): 1.0}
    assert "test prediction" in metrics["seconds"]
    page = (out / "report.html").read_text()
    assert "data:image/jpeg" in page
    assert "predicted class" in page
    copy = shutil.copytree(read_only, "copy")
    run_command("make_submission.py", "--run", read_only, copy, "--out", "twice")
    assert (Path("submissions/twice/submission.csv")).read_bytes() == (out / "submission.csv").read_bytes()


def test_what_cannot_be_written_is_named_before_anything_is_predicted(read_only, capsys, monkeypatch):
    monkeypatch.setattr("trunkfold.output.test_predictions.predict", None)
    Path("submissions/taken/submission.csv").mkdir(parents=True)
    arguments = ("make_submission.py", "--run", read_only, "--out", "taken")
    assert_refused(r"cannot write submissions/taken/submission\.csv: it is a folder", capsys, run_command, *arguments)


def test_a_run_repeats_to_the_bit_from_its_own_config(finished, monkeypatch):
    monkeypatch.chdir(finished)
    arguments = ("--config", "submissions/toy/config.yaml", "--run.name", "again", "--run.restart", "true")
    run_command("train_folds.py", *arguments)
    # Or training with this configuration, without a new name, would delete the run.
    assert not load_config(finished / "submissions/again/config.yaml").run.restart
    for name in ("folds.csv", "oof.csv", "holdout.csv"):
        assert (finished / "submissions/again" / name).read_text() == (finished / "submissions/toy" / name).read_text()
    for file in (finished / "submissions/toy").rglob("*.safetensors"):
        one, two = load_file(file), load_file(str(file).replace("/toy/", "/again/"))
        assert all(np.array_equal(one[key], two[key]) for key in one)


@SLOW
def test_two_processes_predict_what_one_does_where_all_divides(workplace):
    root = write_competition(workplace / "input")
    train(root, "one", train__ema_decay=0.9, train__mixed_precision="no")
    options = {**SMALL, "data.root": root, "split.groups": root / "groups.csv", "train.ema_decay": 0.9}
    options["train.mixed_precision"] = "no"  # bf16 rounds sums of other batches differently
    two = run_ranks(2, workplace, "train_folds.py", *words({**options, "run.name": "two"}))
    assert two.count("epoch 1/2") == 1  # one process speaks
    assert_same_predictions(workplace)


def assert_same_predictions(workplace: Path) -> None:
    """Runs "one" and "two" agree but for rounding."""
    for name in ("oof", "holdout"):
        one, two = (read(workplace / f"submissions/{run}/{name}.csv") for run in ("one", "two"))
        assert one["image_id"].tolist() == two["image_id"].tolist()
        columns = [column for column in one if column.startswith("p_")]
        np.testing.assert_allclose(two[columns], one[columns], atol=1e-4)
    losses = [pd.read_csv(workplace / f"submissions/{run}/history.csv")["train_loss"] for run in ("one", "two")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_shipped_config_runs(workplace, config):
    root = write_competition(workplace / "input", sources=42, copies=2)
    chosen = load_config(config)
    random = chosen.split.groups == "none"
    tiny = next((test for family, test in TINY.items() if chosen.model.name.startswith(family)), chosen.model.name)
    groups = {} if random else {"split.groups": root / "groups.csv"}
    short = {"data.root": root, "data.classes": "null", "data.image_size": 64, "train.epochs": 1, "model.name": tiny}
    run_command("train_folds.py", "--config", config, *words({**short, **groups, "model.pretrained": "false"}))
    run_command("make_submission.py", "--run", f"submissions/{config.stem}")
    assert (workplace / f"submissions/{config.stem}/submission.csv").exists()


def test_a_single_model_is_validated_on_photos_that_it_did_not_learn_from(workplace):
    root = write_competition(workplace / "input", sources=42)
    train(root, "single", **{"split.folds": 1, "train.batch_size": 8, "data.normalize": "dataset"})
    run_command("make_submission.py")
    run = workplace / "submissions/single"
    folds, oof = read(run / "folds.csv").set_index("image_id"), read(run / "oof.csv")
    counts = folds["fold"].value_counts()
    assert set(counts.index) == {-2, -1, 0}
    assert counts[-2] > counts[0] > 3
    assert sorted(oof["image_id"]) == sorted(folds.index[folds["fold"] == 0])
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["oof"]["photos"] == counts[0]
    assert metrics["holdout"]["photos"] == counts[-1]
    assert [fold["fold"] for fold in metrics["folds"]] == [0]
    assert not (run / "fold_1").exists()
    normalize = load_config(run / "config.yaml").data.normalize
    assert all(0.2 < mean < 0.6 for mean in normalize.mean)
    assert normalize.mean != pytest.approx([0.485, 0.456, 0.406])
    assert len(read(run / "submission.csv")) == 12


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_is_learned_and_its_hold_out_predicts_the_leaderboard(workplace):
    """The README's first commands, as printed, and what the answer key says of their submission."""
    Path("configs").symlink_to(SOURCE.parent / "configs")
    for line in printed_commands(SOURCE.parent / "README.md", "Quick start"):
        run_command(*line.removeprefix("python src/").split())
    metrics = json.loads(Path("submissions/demo/metrics.json").read_text())
    answers = read(Path("input/demo/answer_key.csv")).set_index("image_id")["label"]
    submission = read(Path("submissions/demo/submission.csv"))
    leaderboard = f1_score(answers[submission["image_id"]], submission["label"], average="macro")
    # The rarest class has three sources in the hold-out, which a macro F1 cannot be judged by; of those in the folds, a
    # model that has not learned it scores less than 0.83.
    low, high = metrics["holdout"]["intervals"]["macro_f1"]
    assert metrics["oof"]["macro_f1"] > 0.83
    assert metrics["holdout"]["accuracy"] > 0.9
    assert high > 0.85
    assert low - 0.05 < leaderboard < high + 0.05
    low, high = metrics["expected"]["interval"]
    assert low - 0.05 < leaderboard < high + 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"split.holdout": "0", "predict.views": f"[{','.join(VIEWS)}]", "augment": "none"},
        {"train.scheduler": "plateau", "train.optimizer": "sgd", "train.mixed_precision": "bf16"},
        *(
            pytest.param(options, marks=SLOW)
            for options in (
                {"train.keep": "best", "train.class_weights": "balanced", "train.clip_grad": "null"},
                {"split.holdout": "legacy", "split.groups": "none", "model.tune": "all", "model.tune_stages": "4"},
                {"train.one_copy_per_epoch": "true", "split.groups": "none", "predict.consensus": "false"},
                {"data.workers": "2", "model.name": "test_convnext2", "model.tune": "adapters", "train.epochs": "1"},
                {"augment": "[{HorizontalFlip: {p: 0.5}}, {RandomResizedCrop: {scale: [0.5, 1.0]}}]"},
                {"train.cached_views": "2", "cache.dir": "elsewhere", "augment": "strong", "model.drop_path": "0.2"},
            )
        ),
    ],
    ids=lambda options: ", ".join(options),
)
def test_options_work_together(competition, workplace, options):
    train(competition, "toy", **{key.replace(".", "__"): value for key, value in options.items()})
    run_command("make_submission.py")
    metrics = json.loads(Path("submissions/toy/metrics.json").read_text())
    assert (metrics["holdout"] is None) == (options.get("split.holdout") == "0")
    assert Path("submissions/toy/submission.csv").exists()


def test_what_a_run_has_in_the_cache_changes_nothing(competition, workplace):
    """A run that decodes and computes everything, one that finds all of it, and one whose cache was deleted."""
    options = {"train__cached_views": 1, "train__epochs": 1}
    runs = [train(competition, name, **options) for name in ("first", "second")]
    shutil.rmtree("submissions/.cache")
    runs.append(train(competition, "third", **options))
    for name in ("oof.csv", "holdout.csv"):
        assert len({(run / name).read_bytes() for run in runs}) == 1
    assert {path.name.split("-")[0] for path in Path("submissions/.cache").iterdir()} == {"photos", "features"}


def test_the_best_epoch_is_kept_when_asked(competition, workplace):
    run = train(competition, "toy", train__keep="best", train__epochs=4, train__head_lr=0.05, predict__views="[plain]")
    history = pd.read_csv(run / "history.csv")
    best = history.groupby("fold")["val_accuracy"].max()
    metrics = json.loads((run / "metrics.json").read_text())
    assert [fold["accuracy"] for fold in metrics["folds"]] == pytest.approx(best.tolist())


@dataclass
class Searched:
    """A folder with a competition whose copies were found, and what the commands printed.

    Three of its four unlabelled sources are also labelled. Their labels are not those that their colours suggest, so
    that they are not predicted.
    """

    folder: Path
    root: Path
    out: dict[str, str]

    def run(self, name: str) -> Path:
        return self.folder / "submissions" / name

    def metrics(self, name: str) -> dict:
        return json.loads((self.run(name) / "metrics.json").read_text())

    def sources(self, ids: pd.Series) -> pd.Series:
        return ids.map(read(self.root / "groups.csv").set_index("image_id")["group"])


def said(call: Callable, *args: object, **options: object) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(*args, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Three runs: by group, the same without consensus but with the labels of copies, and at random."""
    folder = tmp_path_factory.mktemp("searched")
    root = write_competition(folder / "input", crossing=3)
    table = root / "train/train/train.csv"
    labelled = read(table)
    labelled.loc[:8, "label"] = list("222333111")
    labelled.to_csv(table, index=False)
    options = {"first": {}, "second": {"predict__consensus": "false", "decode__copy_labels": "true"}}
    unsure = {"train__head_lr": 5e-4, "train__warmup_epochs": 0, "augment": "none"}  # some copies are not as others
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        leave_out_figures(patch)
        out = {
            name: said(train, root, name, split__groups="copies", **unsure, **more) for name, more in options.items()
        }
        out["random"] = said(train, root, "random", split__groups="none", train__epochs=1)
        for name in list(out):
            out[f"submit {name}"] = said(run_command, "make_submission.py", "--run", f"submissions/{name}")
    return Searched(folder, root, out)


def test_copies_are_searched_for_once(searched):
    folder = "submissions/copies/input"
    line = f"searching 102 photos for copies; the groups will be in {folder}/groups.csv"
    assert searched.out["first"].splitlines().count(line) == 1
    assert [name for name, text in searched.out.items() if "searching" in text] == ["first"]
    made = {path.name for path in (searched.folder / folder).iterdir() if not path.name.startswith(".")}
    assert made == {"groups.csv", "copies.json", "copies.html"}


@pytest.mark.parametrize("name", ["first", "random"])
def test_the_groups_of_a_run_are_the_true_sources(searched, name):
    folds, groups = (read(searched.run(name) / f"{file}.csv") for file in ("folds", "groups"))
    for table in (folds, groups):
        pairs = set(zip(table["group"], searched.sources(table["image_id"]), strict=True))
        assert len(pairs) == table["group"].nunique() == len({source for _, source in pairs})
    assert groups["set"].value_counts().to_dict() == {"train": 90, "test": 12}
    assert groups["group"].nunique() == 31
    found = read(searched.folder / "submissions/copies/input/groups.csv")
    pd.testing.assert_frame_equal(groups, found)


def test_by_default_a_run_divides_no_copies_and_warns_of_nothing(searched):
    folds = read(searched.run("first") / "folds.csv")
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    assert searched.metrics("first")["leak"] is None
    assert searched.metrics("first")["oof"]["groups"] + searched.metrics("first")["holdout"]["groups"] == 30
    page = (searched.run("first") / "report.html").read_text()
    for text in (searched.out["first"], searched.out["submit first"], page):
        assert "by group (copies): no copy of a scored photo was used in training" in text
        assert "WARNING" not in text
        assert "RANDOM" not in text


def test_a_random_split_that_divides_copies_is_warned_of_with_its_numbers(searched):
    """Recounted from folds.csv: a photo is known if a copy of it lies in a fold of another tail's training."""
    folds = read(searched.run("random") / "folds.csv")
    places = folds[folds["fold"] >= 0].groupby("group")["fold"].agg(list).to_dict()
    known = {row.image_id: any(fold != row.fold for fold in places.get(row.group, [])) for row in folds.itertuples()}
    leak = searched.metrics("random")["leak"]
    page = (searched.run("random") / "report.html").read_text()
    for name, title in (("oof", "out-of-fold"), ("holdout", "hold-out")):
        table = read(searched.run("random") / f"{name}.csv")
        has_copy = table["image_id"].map(known)
        assert 0 < has_copy.sum() == leak[name]["with_copies"]["photos"]
        right = table["label"] == table["prediction"]
        assert leak[name]["with_copies"]["accuracy"] == pytest.approx(right[has_copy].mean())
        if not has_copy.all():
            assert leak[name]["without_copies"]["accuracy"] == pytest.approx(right[~has_copy].mean())
        warning = f"WARNING: {title}, accuracy {right[has_copy].mean():.3f}, "
        for text in (searched.out["random"], searched.out["submit random"], page):
            assert text.count(warning) == 1
            assert "RANDOM by photo (split.groups none)" in text


def test_a_random_split_of_photos_without_copies_is_not_warned_of(workplace):
    root = write_competition(workplace / "input", sources=24, unlabelled_sources=2, copies=1)
    out = said(train, root, "toy", split__groups="none", train__epochs=1)
    out += said(run_command, "make_submission.py")
    assert "searching 26 photos" in out
    assert json.loads(Path("submissions/toy/metrics.json").read_text())["leak"] is None
    for text in (out, Path("submissions/toy/report.html").read_text()):
        assert "random by photo (split.groups none); no copies were found" in text
        assert "WARNING" not in text
        assert "RANDOM" not in text


def spread(table: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """How far the probabilities of a group's photos lie apart."""
    columns = [column for column in table if column.startswith("p_")]
    return (table.groupby(groups)[columns].max() - table.groupby(groups)[columns].min()).max(axis=1)


@pytest.mark.parametrize("file", ["oof", "holdout", "test_probabilities"])
def test_with_consensus_copies_share_their_mean_and_without_they_do_not(searched, file):
    with_it, without = (read(searched.run(name) / f"{file}.csv") for name in ("first", "second"))
    groups = searched.sources(with_it["image_id"])
    assert spread(with_it, groups).max() == 0
    assert spread(without, groups).min() > 1e-6
    columns = ["p_1", "p_2", "p_3"]
    np.testing.assert_allclose(with_it[columns], without.groupby(groups)[columns].transform("mean"), atol=1e-6)


def test_what_the_consensus_changed_is_told(searched):
    first, second = searched.metrics("first"), searched.metrics("second")
    assert second["consensus"] is None
    gains = {name: first[name]["macro_f1"] - second[name]["macro_f1"] for name in ("oof", "holdout")}
    assert first["consensus"]["macro_f1_gain"] == pytest.approx(gains)
    assert any(gains.values())
    tables = [read(searched.run(name) / "test_probabilities.csv") for name in ("first", "second")]
    best = [table[["p_1", "p_2", "p_3"]].to_numpy().argmax(1) for table in tables]
    assert first["consensus"]["test_labels_changed"] == (best[0] != best[1]).sum()
    assert "consensus of copies: macro F1 " in searched.out["first"]
    assert "test label" in searched.out["submit first"]
    assert "consensus" not in searched.out["submit second"]


def test_the_test_labels_that_the_consensus_changed_are_counted(searched, monkeypatch):
    """With all test photos in one group they share one label."""
    monkeypatch.chdir(searched.folder)
    shutil.copytree(searched.run("first"), searched.run("one group"))
    groups = read(searched.run("one group") / "groups.csv")
    groups.loc[groups["set"] == "test", "group"] = "all"
    groups.to_csv(searched.run("one group") / "groups.csv", index=False)
    out = said(run_command, "make_submission.py", "--run", "submissions/one group")
    alone = read(searched.run("second") / "test_probabilities.csv")[["p_1", "p_2", "p_3"]].to_numpy()
    changed = (alone.argmax(1) != alone.mean(0).argmax()).sum()
    assert changed > 0
    assert searched.metrics("one group")["consensus"]["test_labels_changed"] == changed
    assert f"{changed} test label" in out
    assert read(searched.run("one group") / "submission.csv")["label"].nunique() == 1


def test_where_a_split_divides_copies_their_predictions_stay_apart(searched):
    """Some of them were predicted by tails that had learned from the others."""
    folds = read(searched.run("random") / "folds.csv").set_index("image_id")
    table = pd.concat([read(searched.run("random") / f"{name}.csv") for name in ("oof", "holdout")], ignore_index=True)
    groups = table["image_id"].map(folds["group"])
    divided = folds.groupby("group")["fold"].nunique() > 1
    found = spread(table, groups)
    assert (found[divided[found.index]] > 0).all()
    assert (found[~divided[found.index]] == 0).all()


def submit(searched: Searched, name: str, *args: object) -> tuple[pd.Series, pd.Series, dict, str]:
    """Labels submitted and predicted by id, what metrics.json says of labelled copies, and what was printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(searched.folder)
        out = said(run_command, "make_submission.py", "--run", f"submissions/{name}", *args)
    submission = read(searched.run(name) / "submission.csv").set_index("image_id")["label"]
    probabilities = read(searched.run(name) / "test_probabilities.csv").set_index("image_id")[["p_1", "p_2", "p_3"]]
    metrics = searched.metrics(name)
    places = decode(probabilities.to_numpy(float), "macro_f1", metrics["calibration"]["temperature"])
    predicted = pd.Series([LABELS[place] for place in places], submission.index)
    return submission, predicted, metrics["copy_labels"], out


@pytest.mark.parametrize(
    ("name", "args", "used"),
    [
        ("first", [], False),
        ("first", ["--decode.copy_labels", "true"], True),
        ("second", [], True),
        ("second", ["--decode.copy_labels", "false"], False),
        ("random", ["--decode.copy_labels", "true"], True),
    ],
)
def test_test_photos_take_the_label_of_a_labelled_copy_when_asked(searched, name, args, used):
    submission, predicted, told, out = submit(searched, name, *args)
    known = pd.Series(list("222333111"), submission.index[:9])
    different = (predicted[:9] != known).sum()
    assert different > 0
    assert told == {"used": used, "photos": 9, "different": different}
    assert submission.iloc[:9].tolist() == (known if used else predicted.iloc[:9]).tolist()
    assert submission.iloc[9:].tolist() == predicted.iloc[9:].tolist()
    done = "were used" if used else "are available"
    line = (
        f"labels of copies {done} for 9 test photos (decode.copy_labels); "
        f"{different} of them differ from the prediction"
    )
    assert line in out
    assert line in (searched.run(name) / "report.html").read_text()


def test_averaged_runs_take_the_labels_of_copies_too(searched):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(searched.folder)
        runs = ["submissions/first", "submissions/second"]
        run_command("make_submission.py", "--run", *runs, "--out", "both", "--decode.copy_labels", "true")
    submission = read(searched.run("both") / "submission.csv")
    assert submission["label"].tolist()[:9] == list("222333111")
    assert searched.metrics("both")["copy_labels"]["photos"] == 9
    assert searched.metrics("both")["leak"] is None


def test_photos_that_a_run_does_not_know_need_no_training_photos_beside_them(searched, monkeypatch):
    """As the README says: a run's folder holds all that predicting needs."""
    monkeypatch.chdir(searched.folder)
    root = write_competition(searched.folder / "new")
    shutil.rmtree(root / "train")
    test = read(root / "test/test/test.csv")
    test.assign(image_id="new " + test["image_id"]).to_csv(root / "test/test/test.csv", index=False)
    (root / "sample_submission.csv").unlink()
    shutil.copytree(searched.run("second"), searched.run("elsewhere"))
    run_command("make_submission.py", "--run", "submissions/elsewhere", "--data.root", root)
    assert len(read(searched.run("elsewhere") / "submission.csv")) == 12


def test_new_photos_are_searched_for_copies_of_each_other_and_of_the_labelled_ones(searched, monkeypatch):
    monkeypatch.chdir(searched.folder)
    root = write_competition(searched.folder / "more", unlabelled_sources=6, crossing=1)
    shutil.copytree(searched.run("first"), searched.run("first again"))
    args = ("--run", "submissions/first again", "--data.root", root, "--decode.copy_labels", "true")
    out = said(run_command, "make_submission.py", *args)
    assert "searching 108 photos" in out
    table = read(searched.run("first again") / "test_probabilities.csv")
    sources = table["image_id"].map(read(root / "groups.csv").set_index("image_id")["group"])
    assert table.groupby(sources)["p_1"].nunique().tolist() == [1] * 6
    assert table["p_1"].nunique() == 6
    # what the run learned the first three photos as, which is not what this folder's train.csv says
    assert read(searched.run("first again") / "submission.csv")["label"].tolist()[:3] == ["2"] * 3


@pytest.mark.parametrize("choice", ["copies", "none"])
@pytest.mark.parametrize(
    ("options", "message"),
    [({}, r"1 photo missing: 7\.png"), ({"data.classes": "{1: crack, 3: dent}"}, r"label '2' of 30 photos")],
    ids=["photo", "label"],
)
def test_what_is_missing_is_told_before_the_search(competition, workplace, capsys, choice, options, message):
    (competition / "train/train/images/7.png").unlink()
    options = {key.replace(".", "__"): value for key, value in options.items()}
    assert_refused(message, capsys, train, competition, "toy", split__groups=choice, **options)
    assert not Path("submissions").exists()


@SLOW
def test_two_processes_search_once_and_predict_what_one_does(workplace):
    root = write_competition(workplace / "input", crossing=1)
    options = {"split.groups": "copies", "train.one_copy_per_epoch": "true", "train.epochs": "3"}
    options["train.mixed_precision"] = "no"
    chosen = {**SMALL, "data.root": root, **options, "run.name": "two"}
    two = run_ranks(2, workplace, "train_folds.py", *words(chosen))
    assert two.count("searching 102 photos") == 1
    one = said(train, root, "one", **{key.replace(".", "__"): value for key, value in options.items()})
    assert "searching" not in one
    assert_same_predictions(workplace)


def test_one_copy_an_epoch_is_a_third_of_the_work(finished, monkeypatch):
    monkeypatch.chdir(finished)
    train(finished / "input", "one copy", train__one_copy_per_epoch="true")
    learned = []
    for name in ("toy", "one copy"):
        metrics = json.loads((finished / "submissions" / name / "metrics.json").read_text())
        learned.append(metrics["images_per_second"] * metrics["seconds"]["training"] / metrics["oof"]["photos"])
    assert learned[0] == pytest.approx(2, rel=0.1)  # epochs
    assert learned[1] == pytest.approx(2 / 3, rel=0.25)  # rounded to whole batches


def test_runs_are_averaged_by_id_with_weights(finished, monkeypatch):
    monkeypatch.chdir(finished)
    train(finished / "input", "other", train__seed=1)
    run_command("make_submission.py", "--run", "submissions/toy", "submissions/other", "--weights", "3", "1")
    toy, other, blend = (
        read(finished / "submissions" / name / "test_probabilities.csv") for name in ("toy", "other", "toy+other")
    )
    columns = ["p_1", "p_2", "p_3"]
    np.testing.assert_allclose(blend[columns], (3 * toy[columns] + other[columns]) / 4, atol=1e-6)
    assert (finished / "submissions/toy+other/submission.csv").exists()
    assert (finished / "submissions/toy+other/report.html").exists()
    metrics = json.loads((finished / "submissions/toy+other/metrics.json").read_text())
    assert metrics["runs"] == {"submissions/toy": 0.75, "submissions/other": 0.25}
    assert metrics["oof"]["photos"] == len(read(finished / "submissions/toy/oof.csv"))


def test_a_run_of_a_given_normalization_does_not_go_on_with_that_of_its_photos(competition, workplace, capsys):
    for name, given in (("own", "{mean: [0, 0, 0], std: [1, 1, 1]}"), ("measured", "dataset")):
        with pytest.raises(SystemExit):
            train(competition, name, data__normalize=given, train__max_hours=1e-9)
    message = r"own contains an unfinished run with data\.normalize .*mean=\[0.*, not .*: resume it unchanged"
    assert_refused(message, capsys, train, competition, "own", data__normalize="dataset")
    assert RunFolder(train(competition, "measured", data__normalize="dataset")).is_finished


def test_each_of_several_runs_is_predicted_in_its_own_precision(finished, monkeypatch):
    monkeypatch.chdir(finished)
    half = Path(shutil.copytree("submissions/toy", "submissions/half"))
    config = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(config.replace("mixed_precision: auto", "mixed_precision: bf16"))
    run_command("make_submission.py", "--run", half)
    alone = (half / "test_probabilities.csv").read_text()
    assert alone != Path("submissions/toy/test_probabilities.csv").read_text()
    AcceleratorState._reset_state(reset_partial_state=True)
    run_command("make_submission.py", "--run", "submissions/toy", half, "--out", "of-both")
    assert (half / "test_probabilities.csv").read_text() == alone


def test_an_unreadable_test_photo_gets_the_prior_and_is_named(competition, workplace, caplog):
    run = train(competition, "toy")
    image = sorted((competition / "test/test/images").iterdir())[0]
    image.write_bytes(b"<html>not a photo</html>")
    run_command("make_submission.py")
    assert image.name in caplog.text
    row = read(run / "test_probabilities.csv").set_index("image_id").loc[image.stem]
    holdout = read(run / "holdout.csv")["label"].value_counts(normalize=True)
    assert row[["p_1", "p_2", "p_3"]].tolist() == pytest.approx([holdout.get(label, 0) for label in LABELS])
    assert len(read(run / "submission.csv")) == 12
    # what was predicted of the black picture in its place is no part of its copies' mean
    shared = read(run / "test_probabilities.csv").set_index("image_id")["p_1"]
    config = (run / "config.yaml").read_text()
    assert "consensus: true" in config
    (run / "config.yaml").write_text(config.replace("consensus: true", "consensus: false"))
    run_command("make_submission.py")
    alone = read(run / "test_probabilities.csv").set_index("image_id")["p_1"]
    groups = read(competition / "groups.csv").set_index("image_id")["group"][shared.index]
    copies = groups.index[(groups == groups[image.stem]) & (groups.index != image.stem)]
    assert shared[copies].tolist() == pytest.approx([alone[copies].mean()] * 2, abs=1e-6)


def test_a_run_of_half_precision_predicts_without_a_gpu_too(finished, workplace, monkeypatch):
    """That of a GPU, with train.mixed_precision fp16."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shutil.copytree(finished / "submissions", "submissions")
    file = Path("submissions/toy/config.yaml")
    file.write_text(re.sub("mixed_precision: .*", "mixed_precision: fp16", file.read_text()))
    run_command("make_submission.py", "--data.root", finished / "input")
    assert read(Path("submissions/toy/submission.csv")).equals(read(finished / "submissions/toy/submission.csv"))


def test_an_existing_run_is_not_overwritten_unasked(finished, competition, workplace, capsys):
    run = Path("submissions/toy")
    shutil.copytree(finished / run, run)
    before = (run / "metrics.json").read_text()
    assert_refused(r"submissions/toy contains a finished run.*--run\.restart", capsys, train, competition, "toy")
    assert (run / "metrics.json").read_text() == before
    train(competition, "toy", run__restart="true", train__epochs=1)
    assert pd.read_csv(run / "history.csv")["epoch"].max() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train.epoch": "3"}, r"train\.epoch\b"),
        ({"train.epochs": "many"}, r"train\.epochs"),
        ({"split.folds": "0"}, r"split\.folds"),
        ({"train.batch_size": "13"}, r"train\.batch_size 13 must be a multiple of split\.folds 3.*12"),
        ({"data.root": "nowhere"}, r"data\.root nowhere"),
        ({"data.classes": "{1: crack, 3: dent}"}, r"label '2' of 30 photos.*data\.classes.*null"),
        ({"split.folds": "11", "train.batch_size": "11"}, r"class '1' has 10 groups .* 11 folds"),
        ({"split.groups": "nowhere.csv"}, r"nowhere\.csv does not exist"),
        ({"split.holdout": "legacy"}, r"legacy.*split\.groups none"),
        ({"model.name": "convnext_tinny"}, r"model\.name.*convnext_tiny"),
        ({"model.name": "vgg11"}, r"model\.name vgg11"),
        ({"model.weights": "nowhere.pth"}, r"model\.weights nowhere\.pth does not exist"),
        ({"predict.views": "[plain, sideways]"}, r"sideways"),
        ({"predict.views": "[]"}, r"predict\.views must be a list of at least one"),
        ({"augment": "wild"}, r"augment.*'wild'.*standard"),
        ({"train.optimizer": "adamm"}, r"train\.optimizer adamm"),
        ({"train.scheduler": "cosinus"}, r"train\.scheduler cosinus"),
        ({"train.mixed_precision": "fp16"}, r"fp16 needs a GPU"),
        ({"run.name": "a/b"}, r"run\.name 'a/b'"),
        ({"run.name": "copies"}, r"run\.name copies is"),
        ({"config": "nowhere.yaml"}, r"nowhere\.yaml"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_options_are_refused_before_anything_is_made(competition, workplace, capsys, options, message):
    if "train.mixed_precision" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU, so fp16 is right")
    assert_refused(
        message, capsys, train, competition, "toy", **{key.replace(".", "__"): value for key, value in options.items()}
    )
    assert not Path("submissions/toy").exists()


def test_a_loss_that_is_not_finite_stops_the_run(competition, workplace, capsys):
    options = {"train__head_lr": 1e38, "train__optimizer": "sgd", "train__clip_grad": "null", "train__tail_lr": 1e38}
    assert_refused(
        r"loss of fold .* is not finite in epoch \d.*train\.tail_lr", capsys, train, competition, "toy", **options
    )


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "test/test/test.csv").unlink(), r"no test\.csv under data\.root"),
        (lambda root: (root / "test/test/test.csv").write_text("image_id\n1\n"), r"test\.csv has no column filename"),
        (
            lambda root: (root / "sample_submission.csv").write_text("image_id,label\n91,1\n92,1\n"),
            r"test\.csv has 10 ids missing from .*sample_submission\.csv",
        ),
        (lambda root: (root / "sample_submission.csv").write_text("id,label\n91,1\n"), r"has the columns id, label"),
    ],
    ids=["no test.csv", "no column", "other ids", "other columns"],
)
def test_no_submission_is_written_for_a_test_set_that_is_wrong(finished, workplace, capsys, break_it, message):
    for name in ("submissions/toy", "input"):
        shutil.copytree(finished / name, workplace / name)
    (workplace / "submissions/toy/submission.csv").unlink()
    break_it(workplace / "input")
    assert_refused(message, capsys, run_command, "make_submission.py", "--data.root", "input")
    assert not (workplace / "submissions/toy/submission.csv").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], r"no finished run under submissions/"),
        (["--run", "submissions/none"], r"submissions/none/metrics\.json is missing"),
        (["--rum", "x"], r"--rum"),
    ],
)
def test_a_submission_needs_a_finished_run(workplace, capsys, args, message):
    assert_refused(message, capsys, run_command, "make_submission.py", *args)
