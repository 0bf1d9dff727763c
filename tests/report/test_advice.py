"""Each recommendation appears only for its reason; the most urgent comes first, and their number is limited."""

import numpy as np
import pandas as pd
import pytest
from made_up_run import change_metrics, extra_metrics, make_run, metrics_of

from trunkfold.evaluation.history import KEYS, VALUES
from trunkfold.report.advice import MOST, next_steps
from trunkfold.report.contents import read_findings
from trunkfold.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def advice(run) -> str:
    return "\n".join(next_steps(read_findings(RunFolder(run)))).replace("\xa0", " ")


def write_history(run, losses: list[float], f1: list[float]) -> None:
    epochs = range(1, len(losses) + 1)
    table = pd.DataFrame({"epoch": epochs, "fold": 0, "val_loss": losses, "val_macro_f1": f1})
    table.reindex(columns=[*KEYS, *VALUES], fill_value=0.5).to_csv(run / "history.csv", index=False)


def test_a_leak_comes_before_everything(tmp_path):
    run = make_run(tmp_path, "none", divided="oof")
    change_metrics(run, **extra_metrics())
    (run / "label_issues.csv").write_text("image_id,label,suggestion\n5,3,1\n")
    sentences = next_steps(read_findings(RunFolder(run)))
    assert sentences[0].startswith("Copies of scored photos were in training.")
    assert "--split.groups copies" in sentences[0]
    assert "label_issues.csv" in sentences[1]
    assert 2 <= len(sentences) <= MOST


def test_without_a_leak_there_is_no_word_of_one(run):
    assert "Copies of scored photos" not in advice(run)


def test_tails_that_predict_one_class_are_named(run):
    rows = [{"epoch": epoch, "val_loss": 1.1, "fold": fold} for epoch in (1, 2) for fold in range(3)]
    history = (
        pd.DataFrame(rows)
        .reindex(columns=[*KEYS, *VALUES], fill_value=0.5)
        .assign(val_macro_f1=[0.2, 0.2, 0.2, 0.17, 0.6, 0.3])
    )
    history.to_csv(run / "history.csv", index=False)
    assert "Some tails did not learn: those of fold 0, 2 score no better than a single class" in advice(run)
    history.assign(val_macro_f1=0.34).to_csv(run / "history.csv", index=False)
    assert "did not learn" not in advice(run)


def test_suspected_labels_are_counted(run):
    (run / "label_issues.csv").write_text("image_id,label,suggestion\n5,3,1\n6,1,2\n")
    assert "Review the suspected labels below (2 sources shown of label_issues.csv)." in advice(run)


def per_class(run, **f1: float) -> None:
    metrics = metrics_of(run)
    names = list(metrics["oof"]["per_class"])
    for name, value in zip(names, f1.values(), strict=True):
        metrics["oof"]["per_class"][name]["f1"] = value
    change_metrics(run, oof=metrics["oof"])


def test_the_weakest_class_is_named_with_its_sources_and_what_it_is_taken_for(run):
    per_class(run, a=0.9, b=0.9, c=0.5)
    # every second of the 60 photos is in either fold; labels take turns, and groups hold six photos of a fold
    assert (
        "The weakest class is $\\oops$ & up: out-of-fold F1 0.50. It has 20 sources in training and is most often "
        "predicted as crack." in advice(run)
    )


def test_classes_that_are_alike_have_no_weakest(run):
    per_class(run, a=0.90, b=0.91, c=0.89)
    assert "weakest" not in advice(run)


def test_a_score_that_still_rises_wants_more_epochs(run):
    write_history(run, list(np.linspace(1, 0.5, 10)), list(np.linspace(0.3, 0.8, 10)))
    assert "still rising: it gained 0.111 in the last fifth of training. Train for more than 10 epochs" in advice(run)


def test_a_loss_that_rises_again_is_learning_by_heart(run):
    write_history(run, [1.0, 0.8, 0.5, 0.6, 0.7, 0.75], [0.5, 0.6, 0.7, 0.7, 0.7, 0.7])
    assert "lowest after epoch 3 of 6 and has risen by 50 % since" in advice(run)


def test_a_tiny_loss_that_rises_is_nothing(run):
    write_history(run, [1.0, 0.01, 0.005, 0.006, 0.009, 0.012], [0.5, 0.6, 1.0, 1.0, 1.0, 1.0])
    assert "overfitting" not in advice(run)


def test_without_a_mistake_neither_temperature_nor_luck_is_advice(run):
    luck = extra_metrics()["luck"]
    luck["told_apart"] = [{"agreement": 1.0, "difference": 0.0}]
    calibration = {**extra_metrics()["calibration"], "temperature": 0.05}
    change_metrics(run, oof={**metrics_of(run)["oof"], "accuracy": 1.0}, calibration=calibration, luck=luck)
    assert "temperature" not in advice(run)
    assert "Do not choose" not in advice(run)


def test_a_training_that_has_settled_needs_nothing(run):
    write_history(run, [1.0, 0.8, 0.5, 0.5, 0.5, 0.505], [0.5, 0.6, 0.7, 0.7, 0.7, 0.7])
    assert "epoch" not in advice(run)


@pytest.mark.parametrize(
    ("temperature", "words"),
    [(1.5, "overconfident (temperature 1.50)"), (0.5, "underconfident (temperature 0.50)")],
)
def test_a_temperature_far_from_one_is_told(temperature, words, run):
    change_metrics(run, calibration={**extra_metrics()["calibration"], "temperature": temperature})
    assert words in advice(run)


@pytest.mark.parametrize("temperature", [0.95, 1.0, 1.05])
def test_a_temperature_near_one_is_not(temperature, run):
    change_metrics(run, calibration={**extra_metrics()["calibration"], "temperature": temperature})
    assert "temperature" not in advice(run)


def test_parts_that_harm_for_sure_are_to_be_left_out(run):
    change_metrics(run, ablation=extra_metrics()["ablation"])
    assert "Leave out consensus: the hold-out score is higher without." in advice(run)


def test_parts_that_may_be_luck_are_not(run):
    ablation = extra_metrics()["ablation"]
    ablation["holdout"][1]["interval"] = [-0.02, 0.001]
    change_metrics(run, ablation=ablation)
    assert "Leave out" not in advice(run)


def test_luck_is_that_of_a_rival_that_agrees_on_nine_of_ten_photos(run):
    change_metrics(run, luck=extra_metrics()["luck"])
    assert "by less than 0.026: two equally good submissions that agree on 90 % of the photos" in advice(run)


def test_test_photos_of_another_mixture_are_told(tmp_path):
    run = make_run(tmp_path, copies=1, rows=(600, 240))
    labels = "\n".join(f"{number},3" for number in range(1000, 1600))
    (run / "submission.csv").write_text(f"image_id,label\n{labels}\n")
    told = advice(run)
    assert "Class shares of the test photos differ: 100 % of the test photos are predicted as $\\oops$ & up" in told


def test_without_a_simulated_leaderboard_the_interval_says_what_can_be_told_apart(run):
    change_metrics(run, luck=None)
    low, high = metrics_of(run)["oof"]["intervals"]["macro_f1"]
    assert f"macro F1 has a margin of error of ±{(high - low) / 2:.3f}." in advice(run)
    change_metrics(run, luck=extra_metrics()["luck"])
    assert "margin of error" not in advice(run)
