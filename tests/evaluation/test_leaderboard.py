"""Simulated leaderboards vary like new test sets, and rivals are as good as the model."""

import json
import tracemalloc
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from trunkfold.assessment import Draws, Range, Rival
from trunkfold.evaluation.leaderboard import PUBLIC_SHARE, Pool, simulate_leaderboards

CLASSES = {"a": "crack", "b": "dent", "c": "lamp"}
SHARES = np.array([0.5, 0.35, 0.15])
CONFUSION = np.array([[0.8, 0.15, 0.05], [0.2, 0.7, 0.1], [0.2, 0.1, 0.7]])  # a row a true class, which sums to 1


def draw_classes(rng: np.random.Generator, groups: int, models: int = 1) -> list[np.ndarray]:
    """Truth, and what each of some models of that confusion takes it for."""
    truth = rng.choice(3, groups, p=SHARES)
    return [truth, *((rng.random((groups, 1)) > CONFUSION[truth].cumsum(1)[:, :2]).sum(1) for _ in range(models))]


def make_table(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> tuple[pd.DataFrame, pd.Series]:
    """Predictions and the groups by id, in mixed order."""
    names, ids = np.array(list("abc")), [f"id {row}" for row in range(len(truth))]
    table = pd.DataFrame({"image_id": ids, "label": names[truth], "prediction": names[predicted]})
    return table.sample(frac=1, random_state=0), pd.Series(groups, index=ids)


def make_model(groups: int, copies: int, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    truth, predicted = draw_classes(np.random.default_rng(seed), groups)
    return make_table(*(np.repeat(values, copies) for values in (truth, predicted, np.arange(groups))))


def width(described: dict[str, float]) -> float:
    return described.high - described.low


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(
        np.mean(
            [
                2 * ((truth == c) & (predicted == c)).sum() / ((truth == c).sum() + (predicted == c).sum())
                for c in range(3)
            ]
        )
    )


@pytest.fixture(scope="module")
def direct() -> dict[str, np.ndarray]:
    """Macro F1 of two equally good models on 1,500 fresh test sets of 100 sources in three copies each."""
    rng, scores = np.random.default_rng(1), []
    for _ in range(1500):
        truth, one, other = (np.repeat(values, 3) for values in draw_classes(rng, 100, models=2))
        public = rng.permutation(300) < 300 * PUBLIC_SHARE
        scores.append(
            [macro_f1(truth[part], model[part]) for part, model in ((public, one), (~public, one), (~public, other))]
        )
    return dict(zip(("public", "private", "rival"), np.array(scores).T, strict=True))


@pytest.fixture(scope="module")
def simulated() -> dict:
    """The same from the predictions of 12,000 other photos."""
    return simulate_leaderboards(*make_model(groups=4000, copies=3), CLASSES, photos=300)


@pytest.mark.parametrize("part", ["public", "private"])
def test_a_part_scores_as_on_fresh_test_sets(direct, simulated, part):
    low, high = np.quantile(direct[part], [0.025, 0.975])
    assert getattr(simulated, part).mean == pytest.approx(direct[part].mean(), abs=0.01)
    assert width(getattr(simulated, part)) == pytest.approx(high - low, rel=0.1)


def test_public_and_private_differ_as_on_fresh_test_sets(direct, simulated):
    """Copies lie in both parts, so that these are more alike than two test sets."""
    low, high = np.quantile(direct["public"] - direct["private"], [0.025, 0.975])
    assert width(simulated.difference) == pytest.approx(high - low, rel=0.1)
    assert simulated.difference.low < 0 < simulated.difference.high
    assert width(simulated.difference) < np.hypot(width(simulated.public), width(simulated.private)) * 0.85


def test_equally_good_models_differ_as_two_on_fresh_test_sets(direct, simulated):
    expected = np.quantile(abs(direct["private"] - direct["rival"]), 0.95)
    assert simulated.told_apart[0].difference == pytest.approx(expected, rel=0.1)


def test_agreement_is_that_of_unrelated_mistakes_and_of_what_is_shared(simulated):
    unrelated = float(SHARES @ (CONFUSION**2).sum(1))
    for told, shared in zip(simulated.told_apart, (0, 0.5, 0.9), strict=True):
        assert told.agreement == pytest.approx(shared + (1 - shared) * unrelated, abs=0.02)


def test_the_more_two_submissions_agree_the_less_they_differ_by_chance(simulated):
    """The difference is made where they disagree: its spread goes with the root of that share."""
    first, *others = simulated.told_apart
    for told in others:
        ratio = np.sqrt((1 - told.agreement) / (1 - first.agreement))
        assert told.difference / first.difference == pytest.approx(ratio, rel=0.1)


def test_the_spread_shrinks_with_the_root_of_the_photos(simulated):
    larger = simulate_leaderboards(*make_model(groups=4000, copies=3), CLASSES, photos=1200)
    for part in ("public", "private", "difference"):
        assert width(getattr(larger, part)) == pytest.approx(width(getattr(simulated, part)) / 2, rel=0.1)
    assert larger.told_apart[0].difference == pytest.approx(simulated.told_apart[0].difference / 2, rel=0.1)
    assert larger.photos == 1200


def test_copies_make_a_test_set_say_less():
    """Of 1,000 sources in four copies or without, private scores of 400 photos."""
    with_copies, without = (simulate_leaderboards(*make_model(1000, copies), CLASSES, 400).private for copies in (4, 1))
    # 240 of 400 photos show about 100 sources, most of them more than once
    assert 1.3 < width(with_copies) / width(without) < 2


def test_the_histogram_holds_all_simulations(simulated):
    histogram = simulated.histogram
    assert len(histogram.edges) == len(histogram.public) + 1 == len(histogram.private) + 1
    for part in ("public", "private"):
        middles = (np.array(histogram.edges)[1:] + np.array(histogram.edges)[:-1]) / 2
        assert sum(getattr(histogram, part)) == pytest.approx(1)
        assert middles @ getattr(histogram, part) == pytest.approx(getattr(simulated, part).mean, abs=0.005)


def test_the_result_is_json_and_repeats(simulated):
    again = simulate_leaderboards(*make_model(groups=4000, copies=3), CLASSES, photos=300)
    json.dumps(asdict(again))
    assert again == simulated
    assert simulated.simulations >= 1000
    assert simulated.public_share == 0.4


def test_a_perfect_model_leaves_nothing_to_luck():
    """Also where many test sets miss the rare class."""
    truth = np.repeat([0, 1], [19, 1])
    luck = simulate_leaderboards(*make_table(truth, truth, np.arange(20)), {"a": "crack", "b": "dent"}, 20)
    assert luck.public == luck.private == Draws(mean=1, low=1, high=1)
    assert luck.difference == Range(low=0, high=0)
    assert luck.told_apart == [Rival(agreement=1, difference=0)] * 3


def test_a_class_that_no_photo_has_counts_as_zero_as_in_the_scores():
    truth = np.repeat([0, 1], 100)
    luck = simulate_leaderboards(*make_table(truth, truth, np.arange(200)), CLASSES, 200)
    assert luck.private.mean == pytest.approx(2 / 3)


@pytest.mark.parametrize("photos", [0, 1])
def test_a_test_set_that_cannot_be_divided_has_no_luck(photos):
    assert simulate_leaderboards(*make_model(10, 1), CLASSES, photos) is None


def test_the_smallest_test_set_is_divided():
    luck = simulate_leaderboards(*make_model(10, 1), CLASSES, 2)
    assert 0 <= luck.private.low <= luck.private.high <= 1


def test_memory_does_not_grow_with_the_square_of_the_classes(monkeypatch):
    """Of 100 classes and 200 simulations, matrices of classes by classes take 80 MB."""
    monkeypatch.setattr("trunkfold.evaluation.leaderboard.SIMULATIONS", 200)
    labels = [str(number) for number in range(100)]
    ids = [f"id {row}" for row in range(300)]
    table = pd.DataFrame({"image_id": ids, "label": labels * 3, "prediction": labels * 3})
    tracemalloc.start()
    simulate_leaderboards(table, pd.Series(ids, index=ids), dict(zip(labels, labels, strict=True)), 300)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20e6


def confusion(pool: Pool, rows: np.ndarray | slice, predicted: np.ndarray) -> np.ndarray:
    found = np.zeros((3, 3))
    np.add.at(found, (pool.truth[rows], predicted), 1)
    return found


def uneven_pool() -> Pool:
    """Groups of one to five photos; the larger, the more often wrong; every seventh photo has another label."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 1 + np.arange(60) % 5)
    truth = np.where(rng.random(len(groups)) < 1 / 7, rng.integers(0, 3, len(groups)), groups % 3)
    predicted = np.where(rng.random(len(groups)) < 0.2 * (groups % 5), (truth + 1) % 3, truth)
    return Pool(*make_table(truth, predicted, groups), list(CLASSES))


def test_a_test_set_is_of_whole_groups_and_of_exactly_its_size():
    pool, rng = uneven_pool(), np.random.default_rng(0)
    whole = confusion(pool, slice(None), pool.predicted)
    total = np.zeros((3, 3))
    for _ in range(500):
        rows, unit = pool.draw(100, rng)
        assert len(rows) == len(unit) == 100
        for number in set(unit) - {unit.max()}:  # the last group may be cut
            group = rows[unit == number]
            assert group.tolist() == list(range(group[0], group[0] + len(group)))
        total += confusion(pool, rows, pool.predicted[rows])
    assert total / total.sum() == pytest.approx(whole / whole.sum(), abs=0.01)


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_a_rival_is_as_good_as_the_model_class_by_class(shared):
    """Also where groups are of several sizes and labels."""
    pool, rng = uneven_pool(), np.random.default_rng(0)
    model, rival = np.zeros((3, 3)), np.zeros((3, 3))
    for _ in range(1000):
        rows, unit = pool.draw(200, rng)
        model += confusion(pool, rows, pool.predicted[rows])
        rival += confusion(pool, rows, pool.rival(rows, unit, shared, rng))
    assert rival / rival.sum() == pytest.approx(model / model.sum(), abs=0.004)


def test_a_rival_that_shares_all_is_the_model():
    pool, rng = uneven_pool(), np.random.default_rng(0)
    rows, unit = pool.draw(100, rng)
    assert pool.rival(rows, unit, 1.0, rng).tolist() == pool.predicted[rows].tolist()


def test_a_rival_takes_copies_for_the_same_class_where_the_model_does():
    table, groups = make_model(groups=200, copies=3)
    pool, rng = Pool(table, groups, list(CLASSES)), np.random.default_rng(0)
    rows, unit = pool.draw(300, rng)
    rival = pd.Series(pool.rival(rows, unit, 0.0, rng))
    assert (rival.groupby(unit).nunique() == 1).all()
    assert rival.groupby(unit).first().nunique() == 3


def test_copies_take_the_predictions_of_different_copies():
    """All groups are alike: of three copies one is taken for b. So of each drawn group exactly one is."""
    truth, predicted = np.zeros(30, int), np.tile([0, 1, 0], 10)
    pool, rng = Pool(*make_table(truth, predicted, np.arange(30) // 3), list(CLASSES)), np.random.default_rng(0)
    rows, unit = pool.draw(90, rng)
    rival = pd.Series(pool.rival(rows, unit, 0.0, rng))
    assert (rival.groupby(unit).sum() == 1).all()
