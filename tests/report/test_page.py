"""The page shows the run's values, is self-contained, omits missing sections, and escapes names."""

import html
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from made_up_run import CLASSES, add_pictures, change_metrics, extra_metrics, make_run, read_page, report_on

from trunkfold.errors import InputError
from trunkfold.files import write_json
from trunkfold.html import percent, probability
from trunkfold.report.contents import read_findings
from trunkfold.report.page import SECTIONS
from trunkfold.run_folder import RunFolder

ISSUES = "image_id,filename,label,suggestion,p_label,p_suggestion,group,reason\n5,5.jpg,3,1,0.012,0.977,a,far <off>\n"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run without a report, to be changed."""
    return make_run(tmp_path)


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pages without figures, which are what takes time."""
    for name in ("score_sections.save_figure", "score_sections.save_picture", "photo_sections.save_figure"):
        monkeypatch.setattr(f"trunkfold.report.{name}", lambda *_: "data:,")


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """A run with all that there may be, and its report, to be looked at."""
    run = make_run(tmp_path_factory.mktemp("reported"))
    change_metrics(run, **extra_metrics())
    (run / "label_issues.csv").write_text(ISSUES)
    (run / "config.yaml").write_text("run:\n  name: <b>bold\n")
    add_pictures(run)
    report_on(run)
    return run


def section(page: str, title: str) -> str:
    """The part of a page below one heading."""
    anchor = title.lower().replace(" ", "-")
    return re.search(rf'<section id="{anchor}">(.*?)</section>', page, re.S)[1]


def texts(markup: str) -> str:
    """What a reader reads."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def rows(markup: str) -> list[list[str]]:
    """The texts of all table rows."""
    lines = re.findall(r"<tr>(.*?)</tr>", markup, re.S)
    return [[texts(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", line, re.S)] for line in lines]


def test_sections_are_in_the_order_of_the_questions_and_listed_at_the_top(reported):
    page, _ = read_page(reported)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == list(SECTIONS)
    contents = re.search(r"<nav>(.*?)</nav>", page)[1]
    assert re.findall(r">([^<]+)</a>", contents) == titles
    assert re.findall(r'href="#([^"]*)"', contents) == re.findall(r'<section id="([^"]*)"', page)


def test_the_headline_is_the_expected_score_of_the_ensemble(reported):
    page, metrics = read_page(reported)
    lead = texts(re.search(r'<p class="lead">(.*?)</p>', section(page, "Result"), re.S)[1]).replace("\xa0", " ")
    expected = metrics["expected"]
    assert lead == (
        "Expect {:.3f} to {:.3f} private macro F1; ".format(*expected["leaderboard"])
        + f"the best estimate is {expected['macro_f1']:.3f} on photos like these "
        + "(95 % interval {:.3f} to {:.3f}).".format(*expected["interval"])
    )
    oof, holdout = metrics["oof"]["macro_f1"], metrics["holdout"]["macro_f1"]
    told = texts(section(page, "Result"))
    assert f"Single models reach an out-of-fold macro F1 of {oof:.3f}. On the hold-out, the ensemble" in told
    assert f"reaches {holdout:.3f}. The gain from averaging the folds, {expected['gain']:+.3f} as far" in told


def test_the_results_numbers_are_those_of_the_metrics(reported):
    page, metrics = read_page(reported)
    cards = [texts(card) for card in re.findall(r'<div class="card">(.*?)</span></div>', section(page, "Result"), re.S)]
    expected = [("expected macro F1", metrics["expected"]["macro_f1"], metrics["expected"]["interval"])]
    expected += [
        (f"{what}, {title}", metrics[name][key], metrics[name]["intervals"][key])
        for name, title in (("holdout", "hold-out"), ("oof", "out-of-fold"))
        for key, what in (("macro_f1", "macro F1"), ("accuracy", "accuracy"))
    ]
    lines = [f"{title} {value:.3f} 95 %: {low:.3f} to {high:.3f}" for title, value, (low, high) in expected]
    assert [card.replace("\xa0", " ") for card in cards] == lines


def test_bars_of_intervals_reach_from_low_to_high(reported):
    page, metrics = read_page(reported)
    low, high = metrics["holdout"]["intervals"]["macro_f1"]
    assert f"left: {100 * low}%; right: {100 - 100 * high}%" in section(page, "Result")


def test_each_class_has_a_plain_sentence_with_its_sources(reported):
    """Of 20 out-of-fold photos of the second class, those in places 1, 13, 25 ... are predicted as the first."""
    page, _ = read_page(reported)
    oof = pd.read_csv(reported / "oof.csv", dtype=str).merge(
        pd.read_csv(reported / "folds.csv", dtype=str)[["image_id", "group"]]
    )
    own = oof[oof["label"] == "2"]
    wrong = own[own["prediction"] == "1"]
    sentence = (
        f"<script>alert(1)</script>: {percent(1 - len(wrong) / len(own))} of {len(own)} photos of "
        f"{own['group'].nunique()} sources are correct; most often confused with crack ({len(wrong)} photos of "
        f"{wrong['group'].nunique()} sources)."
    )
    told = html.unescape(section(page, "Classes"))
    assert f"<li>{sentence}</li>" in told
    assert f"<li>crack: all {(oof['label'] == '1').sum()} photos of" in told


def test_classes_have_their_scores_and_confusion(reported):
    page, metrics = read_page(reported)
    found = rows(section(page, "Classes"))
    for label, (name, scores) in zip(CLASSES, metrics["holdout"]["per_class"].items(), strict=True):
        values = [f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")]
        sources = pd.read_csv(reported / "folds.csv", dtype=str).query(f"fold == '-1' and label == '{label}'")["group"]
        assert [name, *values, f"{scores['support']} ({sources.nunique()})"] in found
    for part in ("holdout", "oof"):
        for name, counts in zip(CLASSES.values(), metrics[part]["confusion_matrix"], strict=True):
            cells = [f"{n} {percent(n / sum(counts))}" if n else "0" for n in counts]
            assert [name, *(cell.replace("\xa0", " ") for cell in cells)] in found


def test_bars_are_as_long_as_their_numbers(reported):
    page, metrics = read_page(reported)
    table = section(page, "Classes")
    shown = re.findall(r"<td>(\d\.\d{3})<span class=\"bar\" style=\"--share: ([\d.]+)\">", table)
    assert len(shown) == 18
    assert all(float(number) == pytest.approx(float(share), abs=6e-4) for number, share in shown)


def test_confused_pairs_show_their_photos(reported):
    page = (reported / "report.html").read_text()
    card = re.search(r"predicted as <b>crack</b>: (\d+) photos</p>\s*<div class=\"strip\">(.*?)</div>", page, re.S)
    wrong = pd.concat([pd.read_csv(reported / f"{name}.csv", dtype=str) for name in ("oof", "holdout")])
    assert int(card[1]) == ((wrong["label"] == "2") & (wrong["prediction"] == "1")).sum()
    assert card[2].count('<img src="data:image/jpeg;base64,') == 4


def test_luck_is_told_with_its_numbers(reported):
    """The difference of metrics.json is public minus private, -0.131 to 0.129; the page turns it round."""
    page, metrics = read_page(reported)
    told = texts(section(page, "Leaderboard luck")).replace("\xa0", " ")
    assert "In 10,000 simulated samples of 4,800 photos, 30 % of them public" in told
    assert "reaches 0.561 to 0.743 on the private part" in told
    assert "0.512 to 0.787 on the public part" in told
    assert "The private minus the public score is between -0.129 and +0.131." in told
    assert "80.0 % of the photos 0.037 90.0 % of the photos 0.026" in told


def test_calibration_is_a_table_before_and_after(reported):
    page, _ = read_page(reported)
    found = rows(section(page, "Calibration"))
    assert ["hold-out", "0.2345", "0.0432", "0.9876", "0.8765"] in found
    assert ["out-of-fold", "0.1234", "0.0432", "0.9876", "0.8765"] in found
    told = texts(section(page, "Calibration"))
    assert "1.357 makes every prediction less confident: the model is overconfident. The most probable class" in told


def test_folds_are_shown_with_mean_and_spread(reported):
    page, metrics = read_page(reported)
    found, folds = rows(section(page, "Folds")), pd.DataFrame(metrics["folds"])
    for fold in metrics["folds"]:
        values = [f"{fold[key]:.4f}" for key in ("macro_f1", "accuracy")]
        assert [str(fold["fold"]), *values, str(fold["photos"])] in found
    mean, spread = folds.mean(), folds.std(ddof=0)
    values = [f"{mean[key]:.4f} ± {spread[key]:.4f}" for key in ("macro_f1", "accuracy")]
    assert ["mean ± std", *values, ""] in found
    assert "3 epochs of 0.6 s" in section(page, "Folds")


def test_mistakes_have_photo_heat_probabilities_and_copies(reported):
    page = (reported / "report.html").read_text()
    cards = section(page, "Most confident mistakes").split('<div class="card"')[1:]
    surest = read_findings(RunFolder(reported)).gallery.mistakes["holdout"].iloc[0]
    told = texts(cards[0])
    assert f"predicted as {CLASSES[surest['prediction']]}" in told
    assert f"{CLASSES['1']} {probability(surest['sure'])}".replace("\xa0", " ") in told
    assert f"✓ {CLASSES[surest['label']]}" in told
    assert re.search(r'<div class="pair"><img src="data:image/jpeg[^>]*>\s*<img src="data:image/jpeg', cards[0])
    assert cards[0].partition("Its copies")[2].count("<img") == len(
        read_findings(RunFolder(reported)).gallery.copies[int(surest["row"])]
    )


def test_the_truth_is_shown_however_unlikely(tmp_path, undrawn):
    classes = {str(number): f"class {number}" for number in range(12)}
    run = make_run(tmp_path, classes=classes)
    table = pd.read_csv(run / "oof.csv")
    columns = [column for column in table if column.startswith("p_")]
    table.loc[53, columns] = [0.9, 0.05, 0.05, *[0.0] * 9]
    assert table.loc[53, "label"] == 5
    table.to_csv(run / "oof.csv", index=False)
    report_on(run)
    mistakes = section(read_page(run)[0], "Most confident mistakes").partition("Out-of-fold")[2]
    card = re.search(r"<b>class 5</b> predicted as <b>class 0</b>.*?</div>", mistakes, re.S)
    assert texts(card[0]).replace("\xa0", " ").endswith("class 0 90.0 % class 1 5.0 % class 2 5.0 % ✓ class 5 < 0.1 %")


def test_the_prediction_is_shown_where_it_is_not_the_most_probable_class(tmp_path, undrawn):
    classes = {str(number): f"class {number}" for number in range(12)}
    run = make_run(tmp_path, classes=classes)
    table = pd.read_csv(run / "oof.csv")
    columns = [column for column in table if column.startswith("p_")]
    table.loc[table["label"] != table["prediction"], columns] = [0.22, 0.24, 0.25, 0.26, 0.03, *[0.0] * 7]
    table.to_csv(run / "oof.csv", index=False)
    report_on(run)
    mistakes = section(read_page(run)[0], "Most confident mistakes").partition("Out-of-fold")[2]
    assert "class 1 24.0 % class 0 22.0 % ✓ class 9" in texts(mistakes).replace("\xa0", " ")


def test_suspected_labels_are_shown_with_what_to_do(reported):
    page, _ = read_page(reported)
    told = texts(section(page, "Suspected labels")).replace("\xa0", " ")
    assert "Labelled $\\oops$ & up , suggested crack" in told
    assert "$\\oops$ & up 1.2 % crack 97.7 % far <off>" in told
    assert "--data.relabel configs/relabel.csv --data.drop configs/drop.csv" in told
    choice = re.search(r'data-choice="(.*?)"', section(page, "Suspected labels"))[1]
    photos = [{"image_id": "5", "filename": "5.jpg", "label": "3"}]
    assert json.loads(html.unescape(choice)) == {"photos": photos, "suggestion": "1"}


def test_suspected_copies_of_one_source_share_a_card(tmp_path, undrawn):
    """Photos 0, 2 and 4 are copies; 5 is of another source."""
    run = make_run(tmp_path)
    (run / "label_issues.csv").write_text("image_id,label,suggestion\n2,3,1\n5,3,1\n4,2,1\n0,1,2\n8,3,1\n")
    folds = pd.read_csv(run / "folds.csv", dtype=str)
    folds.loc[[2, 8], ["label", "group"]] = "3", "same"
    folds.to_csv(run / "folds.csv", index=False)
    suspects = read_findings(RunFolder(run)).gallery.suspects
    assert [[photo["image_id"] for photo in photos] for photos in suspects["photos"]] == [
        ["2", "8"],
        ["5"],
        ["4"],
        ["0"],
    ]


def test_data_tell_sizes_groups_and_the_submission(reported):
    page, _ = read_page(reported)
    told = texts(section(page, "Data")).replace("\xa0", " ")
    assert "Photos are 48 to 999 pixels wide (median 640) and 36 to 888 pixels high (median 480)." in told
    assert "Most frequent sizes: 640 x 480 (70), 48 x 36 (14)." in told
    assert "Copies: 5 sources of 1 photo, 26 sources of 3 photos." in told
    assert ["crack", "1"] in rows(section(page, "Data"))
    assert ["$\\oops$ & up", "2"] in rows(section(page, "Data"))
    assert "Class shares of the hold-out and of the folds differ by 0.0 %" in told


def test_what_each_part_adds_is_told_with_its_interval(reported):
    page, _ = read_page(reported)
    found = rows(section(page, "Ablation"))
    assert ["mirrored view (TTA)", "+0.0321", "-0.0100 to +0.0500", "0.6543", "0.7654"] in found
    assert ["consensus", "-0.0111", "-0.0200 to -0.0030", "0.6789", "0.7777"] in found
    assert ["fold 0", "0.6111", "0.7111"] in found


def test_how_it_was_made_is_complete(reported):
    page, _ = read_page(reported)
    made = section(page, "Reproducibility")
    assert "14,399,238 trainable parameters per fold, of 27,920,000 in total" in " ".join(made.split())
    assert "123 photos per second" in made
    assert "reading photos 1.2 s, training 62 s." in made
    assert ["device", "a GPU <fast>"] in rows(made)
    assert ["commit", "0123456789ab-dirty"] in rows(made)
    assert ["peak memory", "3.21 GiB, GPU 12.34 GiB"] in rows(made)
    assert ["torch", "2.9.1"] in rows(made)
    assert "name: &lt;b&gt;bold" in made


def test_a_name_with_markup_stays_text(reported):
    page, _ = read_page(reported)
    assert page.count("<script") == 1  # its own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<h1>made &lt;up&gt;</h1>" in page


def test_the_page_stands_alone(reported):
    page = (reported / "report.html").read_text(encoding="utf-8")
    markup = re.sub(r'base64,[^"]*|<code>.*?</code>|^ *//.*$', "", page, flags=re.M)
    assert not re.search(r"https?:|//|url\(|@import|<link|<script |fetch|XMLHttpRequest", markup)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) > 50
    assert all(re.match(r"data:image/(jpeg|svg\+xml);base64,", source) for source in sources)
    assert len(re.findall(r'alt="[^"]+"', page)) == len(sources)


def test_an_older_run_shows_what_it_has(run):
    change_metrics(run, luck=None, calibration=None)
    report_on(run)
    titles = re.findall(r"<h2>(.*?)</h2>", read_page(run)[0])
    expected = ["Result", "Next steps", "Classes", "Most confident mistakes", "Folds", "Data", "Reproducibility"]
    assert titles == expected


@pytest.mark.usefixtures("undrawn")
def test_photos_of_one_size_are_told_as_such(run):
    sizes = {"photos": 84, "width": [9, 9, 9], "height": [8, 8, 8], "frequent": {"9 x 8": 84}}
    made = extra_metrics()["made_with"]
    change_metrics(run, made_with={**made, "data": {"sizes": sizes, "group_sizes": {}}})
    report_on(run)
    assert "All photos are 9 x 8 pixels." in section(read_page(run)[0], "Data")


@pytest.mark.usefixtures("undrawn")
def test_no_mistake_is_not_told_as_certainty(run):
    """Drawing again from no mistakes gives an interval of one point, which says nothing."""
    holdout = {
        **json.loads((run / "metrics.json").read_text())["holdout"],
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "groups": 60,
    }
    change_metrics(run, holdout={**holdout, "intervals": {"accuracy": [1.0, 1.0], "macro_f1": [1.0, 1.0]}})
    report_on(run)
    told = html.unescape(section(read_page(run)[0], "Result"))
    assert "makes no mistakes, which is compatible with an error rate of up to 5.0\u00a0% of sources" in told
    assert told.count(">no mistake<") == 2
    assert "1.000 to 1.000" not in told


@pytest.mark.usefixtures("undrawn")
def test_simulations_that_all_score_the_same_are_not_shown(run):
    """A model without a mistake scores 1.0 on every leaderboard: one bar, and differences of -0.000."""
    same = {"mean": 1.0, "low": 1.0, "high": 1.0}
    change_metrics(run, luck={**extra_metrics()["luck"], "public": same, "private": same})
    report_on(run)
    assert "Leaderboard luck" not in read_page(run)[0]


@pytest.mark.usefixtures("undrawn")
def test_null_is_as_good_as_missing(run):
    change_metrics(run, **dict.fromkeys(extra_metrics()))
    report_on(run)
    assert "Leaderboard luck" not in re.findall(r"<h2>(.*?)</h2>", read_page(run)[0])


def remove_holdout(run: Path) -> None:
    (run / "holdout.csv").unlink()
    folds = pd.read_csv(run / "folds.csv", dtype=str)
    folds[folds["fold"] != "-1"].to_csv(run / "folds.csv", index=False)


@pytest.mark.usefixtures("undrawn")
def test_parts_of_the_newer_metrics_may_be_null(run):
    metrics = extra_metrics()
    metrics["calibration"]["holdout"] = None
    metrics["ablation"].update(holdout=None, folds_alone=None)
    metrics["made_with"].update(commit=None, memory_gib={"process": None, "gpu": None})
    metrics["luck"]["told_apart"] = []
    change_metrics(run, holdout=None, **metrics)
    remove_holdout(run)
    report_on(run)
    page, _ = read_page(run)
    assert "hold-out" not in texts(section(page, "Calibration"))
    assert "commit" not in section(page, "Reproducibility")


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_a_hold_out_shows_its_folds_alone(run):
    change_metrics(run, holdout=None)
    remove_holdout(run)
    report_on(run)
    told = section(read_page(run)[0], "Result")
    assert "The gain from averaging the folds is unknown" in told
    assert told.count('<div class="card">') == 3
    assert not (run / "figures" / "confusion_holdout.png").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("runs", [{}, {"submissions/a": 1.0}], ids=["the run", "a copy"])
def test_a_single_model_has_no_folds_to_average(run, runs):
    change_metrics(run, split={"groups": "copies", "folds": 1, "holdout": 0.1, "seed": 1}, runs=runs)
    report_on(run)
    told = texts(section(read_page(run)[0], "Result"))
    assert "The model reaches a macro F1 of" in told
    assert "gain from averaging" not in told


@pytest.mark.usefixtures("undrawn")
def test_a_leak_is_the_headline(tmp_path):
    run = make_run(tmp_path, "none", divided="oof and holdout")
    report_on(run)
    page, _ = read_page(run)
    lead = re.search(r'<p class="lead leaky">(.*?)</p>', page)[1]
    assert lead.startswith("No expected score: copies of scored photos were in training")
    assert '<div class="leaky">' in section(page, "Result")
    assert "expected macro F1" not in page


@pytest.mark.usefixtures("undrawn")
def test_before_there_is_a_submission_its_counts_are_left_out(run):
    (run / "submission.csv").unlink()
    report_on(run)
    assert "<h3>Submission" not in read_page(run)[0]


@pytest.mark.usefixtures("undrawn")
def test_a_blend_shows_the_photos_of_its_runs_and_no_heat_of_theirs(reported, tmp_path):
    blend = tmp_path / "blend"
    (blend / "figures").mkdir(parents=True)
    for name in ("oof.csv", "holdout.csv", "submission.csv"):
        shutil.copy(reported / name, blend / name)
    metrics = json.loads((reported / "metrics.json").read_text())
    for key in ("parameters", "made_with", "images_per_second", "seconds"):
        del metrics[key]
    write_json({**metrics, "runs": {str(reported): 0.75, "submissions/<gone>": 0.25}}, blend / "metrics.json")
    report_on(blend)
    page = (blend / "report.html").read_text()
    mistakes = section(page, "Most confident mistakes")
    assert "data:image/jpeg" in mistakes
    assert "areas that drove" not in mistakes.partition("<h3>")[2]
    assert "submissions/&lt;gone&gt; (25\xa0%)" in section(page, "Reproducibility")


@pytest.mark.usefixtures("undrawn")
def test_runs_of_different_splits_have_no_score(run):
    change_metrics(run, oof=None, holdout=None, folds=[], leak=None, runs={"a": 1.0})
    for name in ("oof.csv", "holdout.csv", "folds.csv", "history.csv"):
        (run / name).unlink()
    report_on(run)
    assert "their average has no unbiased score" in section(read_page(run)[0], "Result")


@pytest.mark.usefixtures("undrawn")
def test_a_photo_without_a_picture_is_named(run):
    report_on(run)
    assert '<span class="missing">photo ' in section(read_page(run)[0], "Most confident mistakes")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="is not a run, or did not finish training"):
        report_on(tmp_path)
