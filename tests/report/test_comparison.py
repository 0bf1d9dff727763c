"""Only runs with the same split are compared, on the same photos, and differences are tested against chance."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_run import blend as blend_runs
from made_up_run import metrics_of
from matplotlib import pyplot as plt
from toys import argmax_table, run_command

from trunkfold.errors import InputError
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.history import KEYS, VALUES
from trunkfold.evaluation.predictions import probability_table
from trunkfold.files import write_csv
from trunkfold.metrics import Metrics, Parameters, Split
from trunkfold.report.comparison import compare_runs, finished_runs
from trunkfold.report.comparison_page import draw_differences, draw_scores
from trunkfold.run_folder import RunFolder

CLASSES = {"1": "crack", "2": "dent"}
FOLDS = pd.DataFrame(  # 60 photos of 60 sources, half of them crack, in three folds and a hold-out
    {
        "image_id": [str(number) for number in range(60)],
        "filename": [f"{number}.jpg" for number in range(60)],
        "label": ["1", "2"] * 30,
        "group": [f"g{number}" for number in range(60)],
        "fold": [-1 if number >= 48 else number % 3 for number in range(60)],
    }
)
SPLIT = {"groups": "copies", "folds": 3, "holdout": 0.2, "seed": 42}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trunkfold.evaluation.leaderboard.SIMULATIONS", 100)  # of each run, which nothing compares


def make_run(
    name: str, wrong: int = 0, folds: pd.DataFrame = FOLDS, classes: dict = CLASSES, split: dict = SPLIT, **changes
) -> Path:
    """A finished run that is wrong about the first `wrong` photos and right about the others."""
    run = Path("submissions") / name
    run.mkdir(parents=True)
    right = folds["label"].to_numpy()[:, None] == np.array(list(classes))
    probabilities = np.where(right ^ (np.arange(len(folds)) < wrong)[:, None], 0.9, 0.1)
    tables = {}
    for part, rows in {"oof": folds["fold"] >= 0, "holdout": folds["fold"] == -1}.items():
        if rows.any():
            tables[part] = argmax_table(folds[rows], probabilities[rows], classes)
            write_csv(tables[part], run / f"{part}.csv")
    write_csv(folds, run / "folds.csv")
    write_csv(probability_table(pd.Series(["a"]), np.array([[0.5, 0.5]]), classes), run / "test_probabilities.csv")
    metrics = Metrics(
        **vars(assess_run(tables["oof"], tables.get("holdout"), folds, classes, test_photos=40)),
        classes=classes,
        split=Split(**split),
        parameters=Parameters(trainable=12867, total=213083),
        seconds={"features": 30.5, "training": 100.0, "reading test photos": 7.0, "test prediction": 9.0},
    )
    RunFolder(run, write=True).save(replace(metrics, **changes), run / "metrics.json")
    (run / "shared.safetensors").touch()
    return run


def compared(*runs: Path) -> pd.DataFrame:
    return compare_runs(runs).set_index("run")


def said(capsys: pytest.CaptureFixture, *words: object) -> str:
    """What the command prints."""
    run_command("compare_runs.py", *words)
    return capsys.readouterr().out


def test_the_best_comes_first_with_the_scores_of_its_metrics():
    table = compare_runs([make_run("a", 12), make_run("b", 0), make_run("c", 24)])
    assert table["run"].tolist() == ["b", "a", "c"]
    metrics = metrics_of(Path("submissions/a"))
    row = table.set_index("run").loc["a"]
    for part in ("oof", "holdout"):
        low, high = metrics[part]["intervals"]["macro_f1"]
        found = (row[f"{part}_macro_f1"], row[f"{part}_low"], row[f"{part}_high"])
        assert found == (metrics[part]["macro_f1"], low, high)
    assert (row["oof_accuracy"], row["photos"], row["trainable"]) == (0.75, 60, 12867)
    assert row["options"] == "by group (copies), 3 folds, hold-out 20.0%, seed 42"


def test_seconds_are_those_of_the_training_whether_or_not_the_test_photos_were_predicted():
    assert compared(make_run("a"))["seconds"].tolist() == [130.5]


def test_a_difference_is_real_when_chance_does_not_explain_it():
    """Wrong about half of the photos, and about one: a third of the draws does not hold that one."""
    table = compared(make_run("best"), make_run("half", 24), make_run("one", 1))
    assert table["outcome"].to_dict() == {"best": np.nan, "one": "inconclusive", "half": "distinguishable"}
    assert table.loc["half", "difference"] == pytest.approx(0.5 - 1)
    low, high = table.loc["half", ["difference_low", "difference_high"]]
    assert -0.75 < low < -0.5 < high < -0.25
    assert table.loc["one", "difference_high"] == 0
    assert table.loc["best", ["difference", "difference_low", "difference_high"]].isna().all()


def test_copies_are_one_draw():
    """Six mistakes are real where they are about six sources, and not where they are about one."""
    copies = FOLDS.assign(group=["g0" if number < 6 else f"g{number}" for number in range(60)], fold=0)
    alone = FOLDS.assign(fold=0)
    for folds, real in ((copies, "inconclusive"), (alone, "distinguishable")):
        names = [f"{name} {real}" for name in ("right", "wrong")]
        table = compared(*(make_run(name, wrong, folds) for name, wrong in zip(names, (0, 6), strict=True)))
        assert table.loc[names[1], "outcome"] == real


@pytest.mark.parametrize("file", ["oof.csv", "folds.csv"])
def test_photos_are_compared_by_their_ids(file):
    """The same predictions, the rows of one file in another order."""
    runs = [make_run("a", 12), make_run("b", 12)]
    table = pd.read_csv(runs[1] / file, dtype={"image_id": str, "label": str, "prediction": str})
    write_csv(table[::-1], runs[1] / file)
    row = compared(*runs).loc["b"]
    assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, 0, 0)
    assert row["outcome"] == "inconclusive"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fold": [*FOLDS["fold"][::-1]]}, "different fold for "),
        ({"label": ["2", *FOLDS["label"][1:]]}, "different label for 1 photo"),
        ({"image_id": ["new", *FOLDS["image_id"][1:]]}, "2 photos in only one of them"),
    ],
    ids=["folds", "labels", "photos"],
)
def test_runs_of_different_splits_are_blocks_of_their_own(changed, reason, capsys):
    make_run("a", 1)
    make_run("b", 0, FOLDS.assign(**changed))
    make_run("c", 0)
    make_run("d", 9, FOLDS.assign(**changed))
    text = said(capsys, *(f"submissions/{name}" for name in "abcd"))
    table = pd.read_csv("submissions/comparison.csv").set_index("run")
    assert table["split"].to_dict() == {"c": 1, "a": 1, "b": 2, "d": 2}
    assert table["difference"].isna().to_dict() == {"c": True, "a": False, "b": True, "d": False}
    assert table.loc["b", "apart"].startswith(reason)
    assert table.loc[["a", "c"], "apart"].isna().all()
    assert re.search(r"split 2: .*\nnot compared with split 1: " + reason, text)
    assert text.count("not compared") == 1
    for best in "cb":
        assert text.count(f"OOF macro F1 minus that of {best} ") == 1


def test_runs_of_other_classes_are_not_compared(capsys):
    runs = [make_run("a"), make_run("b", classes={"1": "crack", "2": "lamp"})]
    assert compared(*runs)["split"].tolist() == [1, 2]
    assert "not compared with split 1: different classes" in said(capsys, *runs)


def test_a_leaky_split_is_marked_and_comes_after_the_honest_ones(capsys):
    """Its two halves are copies of each other, in different folds."""
    leaky = FOLDS.assign(group=[f"g{number // 2}" for number in range(60)], label=["1", "1", "2", "2"] * 15)
    runs = [make_run("random", 0, leaky, split={**SPLIT, "groups": "none"}), make_run("honest", 9)]
    table = compared(*runs)
    assert table["leak"].to_dict() == {"honest": False, "random": True}
    assert table["split"].to_dict() == {"honest": 1, "random": 2}
    text = said(capsys, *runs)
    assert re.search(r"split 2: random by photo, 3 folds.*\n.*\nLEAKY: scores are inflated", text)
    assert text.count("LEAKY") == 1


def test_a_blend_is_compared_with_its_runs():
    """It is half sure of both labels where only one run is wrong, and takes the first class there."""
    runs = [make_run("a", 24), make_run("b", 0)]
    table = compared(*runs, blend_runs(runs))
    assert set(table["split"]) == {1}
    assert table.loc["a+b", "photos"] == 60
    assert table.loc["a+b", ["seconds", "trainable"]].isna().all()
    assert table.loc["a", "oof_macro_f1"] < table.loc["a+b", "oof_macro_f1"] < table.loc["b", "oof_macro_f1"]
    assert table.loc["a+b", "outcome"] == "distinguishable"


def test_a_blend_finds_the_folds_of_its_runs_beside_it(monkeypatch):
    blend_runs([make_run("a", 24), make_run("b", 0)])
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert compared(Path("../submissions/a+b"), Path("../submissions/b"))["split"].tolist() == [1, 1]


def test_a_blend_of_different_splits_has_no_score_and_is_compared_with_nothing(capsys):
    runs = [make_run("a"), make_run("b", 3, FOLDS.assign(fold=0))]
    runs.insert(0, blend_runs(runs))
    table = compared(*runs)
    assert table["split"].to_dict() == {"a": 1, "b": 2, "a+b": 3}
    assert table.loc["a+b", ["photos", "oof_macro_f1", "holdout_macro_f1", "difference", "outcome"]].isna().all()
    text = said(capsys, *runs)
    assert "split 3: blends of runs with different splits, which have no unbiased score\n" in text
    assert re.search(r"a\+b +- +- +- +- +-\n", text)
    both = [runs[0], blend_runs(runs[1:], name="again")]
    assert compared(*both)["difference"].isna().all()
    assert "no unbiased score" in said(capsys, *both)


def test_a_run_without_a_hold_out_has_a_dash_there(capsys):
    run = make_run("a", 0, FOLDS.assign(fold=0), split={**SPLIT, "folds": 1, "holdout": 0})
    assert compared(run)["holdout_macro_f1"].isna().all()
    text = said(capsys, run)
    assert "split 1: by group (copies), 1 fold, no hold-out, seed 42, 60 photos" in text
    assert re.search(r"a +1.000 no mistake +- +1.000 +2 min +12,867\n", text)


def test_what_is_no_finished_run_is_left_out_and_named(capsys):
    run = make_run("a")
    for name in ("copies", "unfinished"):
        Path(f"submissions/{name}").mkdir()
    Path("submissions/notes.txt").touch()
    paths = sorted(Path("submissions").iterdir())
    found, others = finished_runs(paths)
    assert (found, [path.name for path in others]) == ([run], ["copies", "notes.txt", "unfinished"])
    text = said(capsys, *paths)
    assert text.count("skipped, not finished runs: copies, unfinished\n") == 1
    assert "skipped" not in said(capsys, run)


def test_a_run_that_is_named_twice_is_there_once(capsys):
    text = said(capsys, f"{make_run('a')}/", "submissions/a", "./submissions/a")
    assert len(re.findall(r"^  a  ", text, re.MULTILINE)) == 1


def test_runs_of_one_name_are_told_apart_by_their_folders():
    make_run("a")
    Path("submissions/a").rename("first")
    Path("first").rename(Path(make_run("b")) / "a")
    assert list(compared(Path("submissions/b/a"), make_run("a", 1)).index) == ["submissions/b/a", "submissions/a"]


def test_the_table_is_written_with_all_digits(capsys):
    runs = [make_run("a"), make_run("b", 24)]
    assert said(capsys, *runs, "--out", "new/table.csv").endswith("files: new/table.csv, new/table.html\n")
    table = pd.read_csv("new/table.csv", dtype={"apart": str}).fillna({"apart": ""})
    assert list(table.columns) == [
        *("run", "split", "options", "apart", "leak", "photos", "oof_macro_f1", "oof_low", "oof_high"),
        *("holdout_macro_f1", "holdout_low", "holdout_high", "oof_accuracy", "seconds", "trainable"),
        *("difference", "difference_low", "difference_high", "outcome", "seed_std"),
    ]
    pd.testing.assert_frame_equal(table, compare_runs(runs), check_dtype=False, check_exact=False, rtol=1e-7)
    assert not Path("submissions/comparison.csv").exists()


def test_lines_fit_the_terminal(capsys):
    runs = [make_run("strong_augmentation+convnextv2+two"), make_run("vehicle_damage", 5)]
    text = said(capsys, *runs)
    assert max(map(len, text.splitlines())) <= 120
    assert re.search(r"^  vehicle_damage +-0\.\d{3} \[-0\.\d{3}, -0\.\d{3}\] +distinguishable$", text, re.MULTILINE)


def damage(run: Path, what: str) -> None:
    oof = pd.read_csv(run / "oof.csv", dtype=str)
    match what:
        case "metrics":
            (run / "metrics.json").write_text("{")
        case "list":
            (run / "metrics.json").write_text("[]")
        case "keys":
            metrics = metrics_of(run)
            del metrics["oof"]["intervals"]
            (run / "metrics.json").write_text(json.dumps(metrics))
        case "oof" | "folds":
            (run / f"{what}.csv").unlink()
        case "rows":
            write_csv(oof[1:], run / "oof.csv")
        case "ids":
            write_csv(oof.assign(image_id=["new", *oof["image_id"][1:]]), run / "oof.csv")
        case "labels":
            write_csv(oof.assign(prediction="3"), run / "oof.csv")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("metrics", r"submissions/b/metrics.json is damaged or was written by another version: .*"),
        (
            "list",
            r"submissions/b/metrics.json is damaged or was written by another version: the file: Input should be an .*",
        ),
        (
            "keys",
            r"submissions/b/metrics.json is damaged or was written by another version: oof.intervals: Field required",
        ),
        ("oof", r"submissions/b/oof.csv does not exist"),
        ("folds", r"submissions/b/folds.csv does not exist"),
        ("rows", r"submissions/b/oof.csv and submissions/b/folds.csv list different photos: restore the files .*"),
        ("ids", r"submissions/b/oof.csv and submissions/b/folds.csv list different photos: restore the files .*"),
        ("labels", r"submissions/b/oof.csv is damaged: the column prediction is missing or contains unknown labels"),
    ],
)
def test_a_damaged_run_is_named_in_one_line(what, message, capsys):
    runs = [make_run("a"), make_run("b")]
    damage(runs[1], what)
    assert_refused(message, capsys, *runs)


def assert_refused(message: str, capsys: pytest.CaptureFixture, *words: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command("compare_runs.py", *words)
    assert stopped.value.code == 2
    assert re.fullmatch(f"error: {message}\n", capsys.readouterr().err)
    assert not Path("submissions/comparison.csv").exists()


def test_paths_that_lead_nowhere_are_named(capsys):
    Path("file").touch()
    Path("submissions").mkdir()
    assert_refused(r"there is no finished run among file, submissions: pass folders .*", capsys, "file", "submissions/")
    assert_refused(
        r"submissions/typo does not exist: pass folders of runs, .*", capsys, make_run("a"), "submissions/typo"
    )
    assert_refused(r"the following arguments are required: runs", capsys)


def test_the_table_may_not_take_the_place_of_its_page(capsys):
    assert_refused(r"--out found.html must end in .csv", capsys, make_run("a"), "--out", "found.html")


def test_a_table_that_cannot_be_written_is_named(capsys):
    run = make_run("a")
    Path("file").touch()
    assert_refused(r"cannot write file/table.csv \(.*\): choose another --out", capsys, run, "--out", "file/table.csv")


def test_a_blend_whose_runs_are_gone_is_named():
    folder = blend_runs([make_run("a"), make_run("b")])
    for name in "ab":
        (Path("submissions") / name).rename(f"{name} elsewhere")
    with pytest.raises(
        InputError,
        match=r"a\+b is a blend of submissions/a, submissions/b, none of which has a folds.csv",
    ):
        compare_runs([folder])


def test_a_blend_with_predictions_of_other_photos_names_the_folds_of_its_runs():
    folder = blend_runs([make_run("a"), make_run("b")])
    damage(folder, "rows")
    with pytest.raises(InputError, match=r"a\+b/oof.csv and folds.csv of the averaged runs list different photos"):
        compare_runs([folder])


def with_config(run: Path, seed: int, epochs: int = 3) -> Path:
    """The run's configuration, as far as it matters."""
    (run / "config.yaml").write_text(f"train: {{epochs: {epochs}, seed: {seed}}}\nrun: {{name: {run.name}}}\n")
    return run


def test_what_another_seed_changes_widens_the_intervals():
    """Two seeds of one recipe score 0 and 12 of 48 wrong, so that 12 wrong of another recipe are inconclusive."""
    apart = [with_config(make_run("a"), 1), with_config(make_run("b", 12), 2, epochs=4)]
    assert compared(*apart).loc["b", "outcome"] == "distinguishable"
    assert compared(*apart)["seed_std"].isna().all()
    table = compared(*apart, with_config(make_run("c", 12), 3))
    assert table["seed_std"].tolist() == [pytest.approx(0.25 / 2**0.5)] * 3
    assert set(table["outcome"].dropna()) == {"inconclusive"}
    low, high = table.loc["b", ["difference_low", "difference_high"]]
    assert low < -0.25 - 2**0.5 * 0.25 / 2**0.5 * 12 < 0 < high


def test_a_seed_that_is_repeated_says_nothing_about_seeds():
    """The same seed gives the same scores, as if seeds made no difference."""
    runs = [with_config(make_run("a"), 1), with_config(make_run("again"), 1), with_config(make_run("b", 12), 2)]
    assert compared(*runs[:2])["seed_std"].isna().all()
    assert compared(*runs)["seed_std"].tolist() == [pytest.approx(0.25 / 2**0.5)] * 3


def test_the_page_shows_every_run_with_its_scores_differences_and_curves(capsys):
    runs = [with_config(make_run("best <b>"), 1), with_config(make_run("other", 12), 2)]
    history = pd.DataFrame({"epoch": [1, 1, 2, 2], "fold": [0, 1] * 2, "val_macro_f1": [0.2, 0.4, 0.5, 0.7]})
    write_csv(history.reindex(columns=[*KEYS, *VALUES], fill_value=0.5), runs[1] / "history.csv")
    (runs[0] / "report.html").touch()
    text = said(capsys, *runs)
    assert "standard deviation between seeds: 0.1768" in text
    page = Path("submissions/comparison.html").read_text()
    assert '<a href="best%20%3Cb%3E/report.html">best &lt;b&gt;</a>' in page
    row = compared(*runs).loc["other"]
    assert f">{row['oof_macro_f1']:.3f} <small>[" in page
    assert page.count(">1.000 <small>no mistake</small>") == 3  # both of the best run, and the other's hold-out
    low, high = row["difference_low"], row["difference_high"]
    assert f"{row['difference']:+.3f} <small>[{low:+.3f}, {high:+.3f}]</small>" in page
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles[1] == "Out-of-fold macro F1 minus that of best &lt;b&gt;"
    assert titles[2] == "Learning curves, mean over the folds"
    gain = metrics_of(runs[1])["oof"]["per_class"]["crack"]["f1"] - 1
    assert f"<td>crack</td><td>24</td><td>1.000</td><td>{gain:+.3f}</td>" in page
    assert not re.search(r"https?:|<link|<script|@import", re.sub(r'base64,[^"]*', "", page))


def test_figures_of_a_comparison_show_its_numbers():
    table = compare_runs([make_run("a"), make_run("b", 24), make_run("c", 1)])
    axis = draw_differences(table[table["difference"].notna()]).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["c", "b"]
    points = [container[0] for container in axis.containers]
    assert [float(point.get_xdata()[0]) for point in points] == table["difference"].dropna().tolist()
    assert [point.get_markerfacecolor() == "none" for point in points] == [True, False]
    scores = draw_scores(table).axes[0].containers
    assert [list(container[0].get_xdata()) for container in scores] == [
        table[f"{name}_macro_f1"].tolist() for name in ("holdout", "oof")
    ]
    draw_scores(table.assign(oof_low=1.0))  # above the score, as without the rare classes that a draw may lack
    plt.close("all")
