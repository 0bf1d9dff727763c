"""The demo competition has the expected columns, imbalance, copies and difficulty."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from toys import run_command

from trunkfold.demo.competition import COMPETITION_COUNTS, DemoOptions, make_demo, plan_photos, share_out
from trunkfold.demo.damages import DAMAGES, draw_photo
from trunkfold.errors import InputError

SCRIPT = "make_demo_data.py"
SMALL = DemoOptions(photos=60, size=32)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition of 900 labelled and 600 unlabelled photos; read it, do not change it."""
    out = tmp_path_factory.mktemp("input") / "demo"
    assert make_demo(out, DemoOptions(photos=1500))
    return out


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def read_photo(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    return pixels


def test_tables_have_the_competitions_columns_and_ids(demo: Path):
    train, test = pd.read_csv(demo / "train/train/train.csv"), pd.read_csv(demo / "test/test/test.csv")
    assert list(train) == ["image_id", "filename", "label"]
    assert list(test) == ["image_id", "filename"]
    assert train.image_id.tolist() == list(range(1, 901))
    assert test.image_id.tolist() == list(range(901, 1501))
    sample = pd.read_csv(demo / "sample_submission.csv")
    assert list(sample) == ["image_id", "label"]
    assert sample.image_id.tolist() == test.image_id.tolist()
    assert set(sample.label) == {2}
    groups, key = pd.read_csv(demo / "groups.csv"), pd.read_csv(demo / "answer_key.csv")
    assert list(groups) == ["image_id", "group"]
    assert list(key) == ["image_id", "set", "source", "label"]
    assert groups.image_id.tolist() == key.image_id.tolist() == list(range(1, 1501))
    assert groups.group.tolist() == key.source.tolist()
    assert key.label[:900].tolist() == train.label.tolist()
    assert key.set.tolist() == ["train"] * 900 + ["test"] * 600


def test_every_row_has_its_photo_and_every_photo_its_row(demo: Path):
    for name in ("train", "test"):
        table = pd.read_csv(demo / name / name / f"{name}.csv")
        assert table.filename.tolist() == [f"{image_id}.jpg" for image_id in table.image_id]
        assert {path.name for path in (demo / name / name / "images").iterdir()} == set(table.filename)
        assert read_photo(demo / name / name / "images" / table.filename[0]).shape == (96, 128, 3)


def test_a_source_is_there_three_times_in_one_set_with_one_label(demo: Path):
    sources = pd.read_csv(demo / "answer_key.csv").groupby("source")
    assert set(sources.size()) == {3}
    assert set(sources["set"].nunique()) == {1}
    assert set(sources.label.nunique()) == {1}


def test_copies_are_shuffled_and_source_numbers_do_not_give_labels_away(demo: Path):
    key = pd.read_csv(demo / "answer_key.csv")
    assert (key.source.diff() == 0).mean() < 0.05
    for column in ("image_id", "source"):
        assert abs(np.corrcoef(key[column], key.label)[0, 1]) < 0.2


def test_copies_of_a_source_differ_but_resemble_each_other(demo: Path):
    key = pd.read_csv(demo / "answer_key.csv")

    def photo(row: int) -> np.ndarray:
        name = key.set[row]
        return read_photo(demo / name / name / "images" / f"{key.image_id[row]}.jpg").astype(float)

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return min(np.abs(one - other).mean(), np.abs(one - other[:, ::-1]).mean())

    within, between = [], []
    for rows in list(key.groupby("source").indices.values())[:40]:
        a, b, c = map(photo, rows)
        within += [distance(a, b), distance(a, c), distance(b, c)]
        between.append(distance(a, photo((rows[0] + 500) % len(key))))
    assert min(within) > 1
    assert np.median(within) < 0.8 * np.median(between)


def test_counts_have_the_competitions_imbalance():
    table = plan_photos(4500, seed=0)
    assert len(table) == 4500
    for name, share in (("train", 0.6), ("test", 0.4)):
        counts = table[table["set"] == name].label.value_counts()
        assert (counts % 3 == 0).all()
        for label, count in COMPETITION_COUNTS.items():
            assert counts[label] == pytest.approx(count / 7200 * share * 4500, abs=3)


@pytest.mark.parametrize(("photos", "fewest"), [(45, 1), (150, 5), (300, 8), (600, 8), (1500, 8)])
def test_small_competitions_have_every_class_in_both_sets(photos: int, fewest: int):
    table = plan_photos(photos, seed=0)
    sources = table.groupby(["set", "label"]).source.nunique().unstack()
    assert sources.loc["train"].min() >= fewest
    assert sources.loc["test"].min() >= 1
    assert sources.loc["train"].sum() * 2 == sources.loc["test"].sum() * 3 == photos // 15 * 6


def test_share_out_is_exact_and_pays_the_minimum_from_the_largest():
    assert share_out(10, {1: 1, 2: 1, 3: 2}, 1) == {1: 3, 2: 2, 3: 5}
    assert share_out(10, {1: 1, 2: 99, 3: 900}, 2) == {1: 2, 2: 2, 3: 6}
    assert sum(share_out(7200, COMPETITION_COUNTS, 1).values()) == 7200
    assert share_out(7200, COMPETITION_COUNTS, 1) == COMPETITION_COUNTS


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path):
    make_demo(tmp_path / "one", SMALL)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    np.random.seed(99)  # noqa: NPY002 - nothing may depend on global random numbers
    try:
        make_demo(tmp_path / "again", SMALL)
    finally:
        cv2.setNumThreads(threads)
    make_demo(tmp_path / "other", DemoOptions(photos=60, size=32, seed=1))
    one, other = files_of(tmp_path / "one"), files_of(tmp_path / "other")
    assert files_of(tmp_path / "again") == one
    assert other.keys() == one.keys()
    for name in ("train/train/train.csv", "groups.csv", "train/train/images/1.jpg", "test/test/images/60.jpg"):
        assert other[name] != one[name]


def test_another_seed_draws_other_cars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[bytes] = []

    def remember(*args: object) -> np.ndarray:
        pixels = draw_photo(*args)
        drawn.append(pixels.tobytes())
        return pixels

    monkeypatch.setattr("trunkfold.demo.competition.draw_photo", remember)
    for seed in (0, 1):
        make_demo(tmp_path / str(seed), DemoOptions(photos=60, size=32, seed=seed))
    assert len(drawn) == len(set(drawn)) == 40


def test_the_same_options_leave_an_existing_folder_alone(tmp_path: Path):
    out = tmp_path / "demo"
    assert make_demo(out, SMALL)
    (out / "note.txt").write_text("mine")
    before = files_of(out)
    assert not make_demo(out, SMALL)
    assert files_of(out) == before
    assert json.loads(before["demo.json"]) == {"photos": 60, "size": 32, "seed": 0}


@pytest.mark.parametrize("content", ["nothing", "other options", "broken json", "a file"])
def test_anything_else_that_exists_is_an_error_and_stays(tmp_path: Path, content: str):
    out = tmp_path / "demo"
    if content == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
    if content == "other options":
        (out / "demo.json").write_text('{"photos": 60, "size": 32, "seed": 5}')
    if content == "broken json":
        (out / "demo.json").write_text("{")
    before = files_of(tmp_path)
    with pytest.raises(InputError, match=r"demo exists and is not .*: delete it or choose another --out"):
        make_demo(out, SMALL)
    assert files_of(tmp_path) == before


def test_a_run_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def fail_on_third(*args: object) -> np.ndarray:
        calls.append(args)
        assert not (tmp_path / "demo").exists()
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_photo(*args)

    monkeypatch.setattr("trunkfold.demo.competition.draw_photo", fail_on_third)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DemoOptions(photos=0), "--photos 0 is too small.*at least 45"),
        (DemoOptions(photos=-3600), "--photos -3600 is too small"),
        (DemoOptions(photos=44), "--photos 44 is too small"),
        (DemoOptions(size=31), "size 31 must be 32 to 1024"),
        (DemoOptions(size=1025), "size 1025 must be 32 to 1024"),
        (DemoOptions(seed=-1), "--seed -1 must not be negative"),
    ],
)
def test_bad_values_are_named_before_anything_is_written(tmp_path: Path, options: DemoOptions, message: str):
    with pytest.raises(InputError, match=message):
        make_demo(tmp_path / "demo", options)
    assert list(tmp_path.iterdir()) == []


def test_an_out_below_a_file_is_an_input_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        make_demo(tmp_path / "file" / "demo", SMALL)


def test_a_disk_that_is_full_amid_the_photos_is_an_input_error_and_nothing_is_left(tmp_path: Path, monkeypatch):
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "7.jpg":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write to .* \(No space left on device\): choose another --out, or"):
        make_demo(tmp_path / "demo", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_the_script_exits_with_2_and_no_traceback_on_bad_values(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        run_command(SCRIPT, "--photos", 0, "--out", tmp_path / "demo")
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.startswith("error: --photos 0 is too small")
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_the_script_says_what_it_wrote_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "demo"
    run_command(SCRIPT, "--photos", 59, "--size", 32, "--out", out)
    printed = capsys.readouterr().out
    assert f"wrote 27 labelled and 18 unlabelled photos to {out}" in printed
    assert printed.endswith(f"train_folds.py --config configs/demo.yaml --data.root {out}\n")
    assert len(printed.splitlines()) == 1


def test_every_drawing_of_every_class_works_and_is_a_picture():
    for label in COMPETITION_COUNTS:
        for number in range(60):
            pixels = draw_photo(label, 48, np.random.default_rng([label, number]))
            assert pixels.shape == (48, 64, 3)
            assert pixels.dtype == np.uint8
            assert pixels.std() > 10


@pytest.mark.parametrize("label", sorted(COMPETITION_COUNTS))
def test_every_damage_can_be_seen(label: int, monkeypatch: pytest.MonkeyPatch):
    damaged = [draw_photo(label, 96, np.random.default_rng(number)).astype(int) for number in range(20)]
    monkeypatch.setitem(DAMAGES, label, lambda canvas, car, rng: None)
    for number, photo in enumerate(damaged):
        whole = draw_photo(label, 96, np.random.default_rng(number)).astype(int)  # may be mirrored
        changed = min((np.abs(photo - other).max(2) > 25).mean() for other in (whole, whole[:, ::-1]))
        assert 0.01 < changed < 0.4


def test_a_linear_model_of_the_pixels_stays_under_0_6(demo: Path):
    train = pd.read_csv(demo / "train/train/train.csv").merge(pd.read_csv(demo / "groups.csv"), on="image_id")
    photos = [read_photo(demo / "train/train/images" / name) for name in train.filename]
    pixels = np.stack([cv2.resize(photo, (32, 32), interpolation=cv2.INTER_AREA) for photo in photos])
    pixels = pixels.reshape(len(train), -1).astype(np.float32)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    # All components: the same model in as many numbers as there are photos, which is fitted much faster.
    model = make_pipeline(StandardScaler(), PCA(), LogisticRegression(max_iter=1000))
    with threadpool_limits(1):
        predictions = cross_val_predict(model, pixels, train.label, groups=train.group, cv=folds)
    macro_f1 = f1_score(train.label, predictions, average="macro")
    assert 0.2 < macro_f1 < 0.6  # below 0.2 the labels would have nothing to do with the photos
