"""Batches are fold-balanced, cover every photo before repeating any, and do not depend on the process."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import cache_photos

from trunkfold.config.schema import DataConfig
from trunkfold.errors import InputError
from trunkfold.images import batches as module
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.batches import (
    FoldBalancedBatches,
    TrainingPhotos,
    ViewedPhotos,
    choose_workers,
)
from trunkfold.images.views import VIEWS
from trunkfold.images.workers import PhotoLoader
from trunkfold.model.features import KeptViews

CPU = torch.device("cpu")
FOLD_OF_ROW = np.array([0] * 7 + [1] * 5 + [-1] * 4 + [2] * 6)


@dataclass
class Process:
    """What `FoldBalancedBatches` asks of an accelerator."""

    process_index: int = 0
    num_processes: int = 1


def make_batches(
    batch_size: int = 6, seed: int = 0, process: Process | None = None, groups: np.ndarray | None = None
) -> FoldBalancedBatches:
    return FoldBalancedBatches(FOLD_OF_ROW, batch_size, seed, process or Process(), groups)


def draw(batches: FoldBalancedBatches, epochs: int = 5) -> list[list[tuple[int, int]]]:
    """The batches of some epochs, one after another."""
    return [batch for _ in range(epochs) for batch in batches]


@pytest.mark.parametrize("batch_size", [3, 6, 12])
def test_each_batch_holds_as_many_photos_of_every_fold_and_none_held_out(batch_size):
    for batch in draw(make_batches(batch_size)):
        assert FOLD_OF_ROW[[row for row, _ in batch]].tolist() == sorted([0, 1, 2] * (batch_size // 3))


@pytest.mark.parametrize("batch_size", [3, 6, 12, 24])
def test_each_pass_covers_each_folds_rows_exactly_once_before_any_comes_again(batch_size):
    """Folds of 7, 5 and 6 rows: also where the end of a pass lies within a batch."""
    drawn = [pair for batch in draw(make_batches(batch_size), epochs=9) for pair in batch]
    for fold in range(3):
        own = np.flatnonzero(np.equal(FOLD_OF_ROW, fold))
        stream = [(row, visit) for row, visit in drawn if FOLD_OF_ROW[row] == fold]
        assert len(stream) > 2 * len(own)
        for first in range(0, len(stream) - len(own) + 1, len(own)):
            rows, visits = zip(*stream[first : first + len(own)], strict=True)
            assert sorted(rows) == own.tolist()
            assert set(visits) == {first // len(own)}


def test_an_epoch_is_about_one_pass_over_the_learning_photos():
    batches = make_batches(batch_size=6)
    assert len(batches) == len(list(batches)) == 3  # 18 photos that learn
    assert len(make_batches(batch_size=180)) == 1


def test_the_next_epoch_goes_on_where_the_last_one_ended():
    batches = make_batches()
    assert list(batches) != list(batches)
    assert batches.epoch == 2
    resumed = make_batches()
    resumed.epoch = 2
    assert list(resumed) == list(batches)


def test_the_order_is_the_seeds():
    assert draw(make_batches(seed=3)) == draw(make_batches(seed=3))
    assert draw(make_batches(seed=3)) != draw(make_batches(seed=4))


@pytest.mark.parametrize(("batch_size", "processes"), [(6, 2), (15, 2), (12, 3), (15, 4)])
def test_the_processes_shares_together_are_the_batches_of_one_process(batch_size, processes):
    """Also when 5 rows a fold are shared by 2 or 4 processes."""
    alone = draw(make_batches(batch_size))
    shares = [draw(make_batches(batch_size, process=Process(rank, processes))) for rank in range(processes)]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert sorted(batch) == sorted(pair for part in parts for pair in part)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_is_told_how_many_rows_of_a_fold_it_draws(rank):
    batches = make_batches(15, process=Process(rank, 2))
    assert batches.rows_per_fold == [3, 2][rank]
    assert all(len(batch) == 3 * batches.rows_per_fold for batch in batches)


@pytest.mark.parametrize(("batch_size", "processes", "least"), [(3, 2, 6), (2, 1, 3), (9, 4, 12)])
def test_a_batch_that_is_too_small_for_all_processes_is_an_error_with_the_least(batch_size, processes, least):
    message = f"train.batch_size {batch_size} is too small for 3 folds on {processes} processes: use at least {least}"
    with pytest.raises(InputError, match=message):
        make_batches(batch_size, process=Process(0, processes))
    make_batches(least, process=Process(0, processes))


# Groups of 1 to 4 rows, not in order, the last of fold 0 also held out and, with a random split, in fold 2.
GROUP_OF_ROW = np.array([5, 9, 5, 2, 9, 5, 7] + [1, 1, 1, 1, 4] + [7, 6, 6, 6] + [8, 7, 8, 0, 3, 3])


def passes(drawn: list[tuple[int, int]], fold: int) -> list[list[int]]:
    """The rows of each whole pass over a fold's groups, in the order in which they were drawn."""
    size = len(set(GROUP_OF_ROW[fold == FOLD_OF_ROW]))
    stream = [row for row, _ in drawn if FOLD_OF_ROW[row] == fold]
    return [stream[first : first + size] for first in range(0, len(stream) - size + 1, size)]


@pytest.mark.parametrize("batch_size", [3, 6, 12])
def test_each_pass_visits_each_group_of_a_fold_once_and_by_turns_all_its_rows(batch_size):
    drawn = [pair for batch in draw(make_batches(batch_size, groups=GROUP_OF_ROW), epochs=12) for pair in batch]
    for fold in range(3):
        groups = GROUP_OF_ROW[fold == FOLD_OF_ROW]
        found = passes(drawn, fold)
        assert len(found) >= 8
        for rows in found:
            assert sorted(GROUP_OF_ROW[rows]) == sorted(set(groups))
        for group in set(groups):
            members = np.flatnonzero((fold == FOLD_OF_ROW) & (group == GROUP_OF_ROW))
            turns = [row for rows in found for row in rows if GROUP_OF_ROW[row] == group]
            for first in range(0, len(turns) - len(members) + 1, len(members)):
                assert sorted(turns[first : first + len(members)]) == members.tolist()


def test_batches_of_one_fold_hold_what_is_only_learned_from():
    fold_of_row = np.array([0, -2, -2, -1, -2, 0, -2, -2])
    batches = FoldBalancedBatches(fold_of_row, 3, 0, Process())
    assert (batches.folds, batches.batch_rows_learned, len(batches)) == (1, 3, 2)
    drawn = [pair for batch in draw(batches, epochs=5) for pair in batch]
    assert len(drawn) == 30
    assert sorted(drawn) == [(row, visit) for row in (1, 2, 4, 6, 7) for visit in range(6)]


def test_groups_are_drawn_in_another_order_in_each_pass():
    drawn = [pair for batch in draw(make_batches(groups=GROUP_OF_ROW), epochs=20) for pair in batch]
    orders = {tuple(GROUP_OF_ROW[rows]) for rows in passes(drawn, 0)}
    assert len(orders) > 3


def test_the_visits_of_each_row_are_counted():
    drawn = [pair for batch in draw(make_batches(12, groups=GROUP_OF_ROW), epochs=12) for pair in batch]
    for row in np.flatnonzero(FOLD_OF_ROW >= 0):
        visits = [visit for drawn_row, visit in drawn if drawn_row == row]
        assert visits == list(range(len(visits)))


@pytest.mark.parametrize("views", [2, 3, 6])
def test_each_copy_is_shown_in_every_cached_view(views):
    """Also if their number is a multiple of that of the copies, here three."""
    batches = FoldBalancedBatches(np.arange(12) // 6, 4, 0, Process(), np.arange(12) // 3)
    kept = KeptViews([torch.full((12,), view) for view in range(views)], np.zeros(12))
    drawn = [draw for _ in range(3 * views) for batch in batches for draw in batch]
    shown = {(row, int(kept[row, visit][0])) for row, visit in drawn}
    assert shown == {(row, view) for row in range(12) for view in range(views)}


def test_batches_of_groups_too_hold_as_many_photos_of_every_fold():
    for batch in draw(make_batches(6, groups=GROUP_OF_ROW)):
        assert FOLD_OF_ROW[[row for row, _ in batch]].tolist() == [0, 0, 1, 1, 2, 2]


def test_an_epoch_is_about_one_pass_over_the_groups():
    """4, 2 and 4 groups learn, of 18 photos; held-out ones do not count."""
    assert len(make_batches(3)) == 6
    assert len(make_batches(3, groups=GROUP_OF_ROW)) == len(list(make_batches(3, groups=GROUP_OF_ROW))) == 3
    assert len(make_batches(180, groups=GROUP_OF_ROW)) == 1


def test_groups_of_one_photo_are_drawn_as_photos_without_groups():
    single = np.random.default_rng(0).permutation(len(FOLD_OF_ROW))
    by_row = make_batches(groups=np.arange(len(FOLD_OF_ROW)))
    assert draw(make_batches()) == draw(by_row)
    assert len(make_batches(groups=single)) == len(make_batches())


@pytest.mark.parametrize(("batch_size", "processes"), [(6, 2), (15, 2), (12, 3)])
def test_the_processes_share_batches_of_groups_too(batch_size, processes):
    alone = draw(make_batches(batch_size, groups=GROUP_OF_ROW))
    shares = [
        draw(make_batches(batch_size, process=Process(rank, processes), groups=GROUP_OF_ROW))
        for rank in range(processes)
    ]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert sorted(batch) == sorted(pair for part in parts for pair in part)


def some_photos(rows: int = len(FOLD_OF_ROW)) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (rows, 20, 30, 3)).astype(np.uint8))


def test_a_photos_augmentation_depends_on_seed_row_and_visit_alone():
    targets = np.arange(len(FOLD_OF_ROW))
    photos = TrainingPhotos(some_photos(), targets, Augmentation("standard", 32), seed=1)
    first, target = photos[4, 0]
    assert (first.shape, first.dtype, target) == ((32, 32, 3), torch.uint8, 4)
    other_visit, other_seed = photos[4, 1][0], TrainingPhotos(photos.pixels, targets, photos.augment, seed=2)[4, 0][0]
    assert torch.equal(first, photos[4, 0][0])
    assert not torch.equal(first, other_visit)
    assert not torch.equal(first, other_seed)


def test_the_loader_gives_the_batches_photos_in_their_order_with_and_without_workers():
    targets = np.arange(len(FOLD_OF_ROW))
    photos = TrainingPhotos(some_photos(), targets, Augmentation("standard", 32), seed=1)
    expected = [[row for row, _ in batch] for batch in draw(make_batches(), epochs=2)]
    alone, shared = (PhotoLoader(photos, make_batches(), workers, CPU) for workers in (0, 2))
    loaded = [batch for _ in range(2) for batch in alone]
    assert [batch[1].tolist() for batch in loaded] == expected
    for (pixels, rows), (same_pixels, same_rows) in zip(loaded, [b for _ in range(2) for b in shared], strict=True):
        assert torch.equal(pixels, same_pixels)
        assert torch.equal(rows, same_rows)


@pytest.mark.parametrize("start", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_workers_that_are_sent_everything_load_the_same(tmp_path, start):
    """As on Windows and macOS, and on Linux since Python 3.14: photos and augmentation have to be pickled."""
    targets = np.arange(len(FOLD_OF_ROW))
    photos = TrainingPhotos(cache_photos(tmp_path, some_photos()), targets, Augmentation("standard", 32), seed=1)
    alone, sent = (PhotoLoader(photos, make_batches(), workers, CPU) for workers in (0, 1))
    sent.multiprocessing_context = start
    for (pixels, rows), (same_pixels, same_rows) in zip(alone, sent, strict=True):
        assert torch.equal(pixels, same_pixels)
        assert torch.equal(rows, same_rows)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_hand_over_pieces_that_are_joined_to_the_batches(monkeypatch, workers):
    """Of 1, 16, 17 and 40 photos, and again after an iteration that was given up."""
    pixels = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 5, 3), np.uint8)
    viewed = ViewedPhotos(list(pixels), VIEWS["plain"], size=4)
    batches = [range(1), range(3, 19), range(20, 37), range(40)]
    loader = PhotoLoader(viewed, batches, workers, CPU)
    assert max(map(len, loader.batch_sampler)) == 16  # what a worker puts into the shared memory at once
    assert len(loader) == 4
    next(iter(loader))
    shared, join = [], torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts: (shared.extend(part.is_shared() for part in parts), join(parts))[1])
    loaded = list(loader)
    assert shared
    assert not any(shared)  # pieces that wait for the rest of their batch occupy no shared memory
    assert [batch[:, 0, 0, 0].tolist() for batch in loaded] == [list(batch) for batch in batches]
    assert {batch.shape[1:] for batch in loaded} == {(3, 4, 4)}
    assert loaded[3].is_contiguous(memory_format=torch.channels_last)
    assert not any(batch.is_shared() for batch in loaded)


def test_viewed_photos_are_those_of_their_rows():
    pixels = some_photos()
    square = ViewedPhotos([photo[:, :20] for photo in pixels], VIEWS["hflip"], size=20)
    np.testing.assert_array_equal(square[3], pixels[3][:, :20][:, ::-1])
    np.testing.assert_array_equal(square[0], pixels[0][:, :20][:, ::-1])


@dataclass
class Launched:
    """What `choose_workers` asks of an accelerator."""

    num_processes: int
    device: torch.device


@pytest.mark.parametrize(
    ("device", "processes", "wanted", "chosen"),
    [
        *(("cpu", 1, None, 0), ("cpu", 1, 0, 0), ("cpu", 1, 8, 8), ("cpu", 1, 9, 8), ("cpu", 3, 4, 2)),
        *(("cuda", 1, None, 8), ("cuda", 3, None, 2), ("cuda", 2, 3, 3), ("cuda", 2, 8, 4), ("cuda", 9, None, 1)),
    ],
)
def test_workers_are_at_most_one_a_core(monkeypatch, device, processes, wanted, chosen):
    """And on a CPU none, unless they are asked for: the model needs its cores."""
    monkeypatch.setattr("trunkfold.cores.cpu_count", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert (
        choose_workers(DataConfig(workers=wanted, image_size=64), Launched(processes, torch.device(device))) == chosen
    )


def test_too_many_workers_are_warned_of_once(monkeypatch, caplog):
    monkeypatch.setattr("trunkfold.cores.cpu_count", lambda: 3)
    for _ in range(3):
        choose_workers(DataConfig(workers=70, image_size=64), Launched(1, torch.device("cpu")))
        choose_workers(DataConfig(workers=3, image_size=64), Launched(1, torch.device("cpu")))
    assert caplog.messages == ["data.workers 70 is reduced to 3: there are 3 usable cores"]


@pytest.mark.parametrize(("megabytes", "processes", "workers"), [(64, 1, 6), (64, 2, 3), (5, 1, 0), (4096, 1, 16)])
def test_workers_have_to_fit_into_the_shared_memory(monkeypatch, caplog, tmp_path, megabytes, processes, workers):
    """Docker gives a container 64 MB; two pieces of 16 photos of 224 pixels take 10 MB at most."""
    module._warn_of_workers.cache_clear()
    monkeypatch.setattr("trunkfold.cores.cpu_count", lambda: 16 * processes)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=megabytes << 20))
    monkeypatch.setattr(module, "SHARED", tmp_path)
    data = DataConfig(image_size=224)
    assert choose_workers(data, Launched(processes, torch.device("cuda"))) == workers
    assert ("--shm-size" in caplog.text) == (workers < 16)
    monkeypatch.setattr(module, "SHARED", tmp_path / "absent")
    assert choose_workers(data, Launched(processes, torch.device("cuda"))) == 16
