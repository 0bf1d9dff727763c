"""Embeddings of copies are closer than those of other photos, and computing them changes nothing else."""

import numpy as np
import pytest
import torch
from drawn_photos import WAYS, draw_car, draw_source

from trunkfold.copies import embedding
from trunkfold.copies.embedding import embed, moved_by_augmentation, one_thread, project
from trunkfold.copies.record import CHANNELS, EMBEDDING, GRID

SOURCES = [draw_source(seed) for seed in range(6)] + [draw_car(seed) for seed in range(6)]


def test_copies_are_closer_than_other_photos():
    ways = [WAYS[place % len(WAYS)] for place in range(len(SOURCES))]
    embeddings = project(
        [embed(pixels)[0] for pixels in SOURCES]
        + [embed(way(pixels))[0] for way, pixels in zip(ways, SOURCES, strict=True)]
    )
    similarity = embeddings[: len(SOURCES)] @ embeddings[len(SOURCES) :].T
    assert (similarity.argmax(1) == np.arange(len(SOURCES))).mean() > 0.9


def test_features_of_each_layer_and_projected_embeddings_are_of_unit_length():
    found, cells = embed(SOURCES[0])
    assert found.shape == (EMBEDDING,)
    assert cells.shape == (2, GRID, GRID, CHANNELS)
    np.testing.assert_allclose(embed(SOURCES[0][:, ::-1])[1][::-1], cells, atol=1e-4)
    assert np.linalg.norm(found) == pytest.approx(11**0.5)  # seven stages, three spreads, and the last layer
    projected = project([found, embed(SOURCES[1])[0]])
    assert projected.shape[0] == 2
    assert np.linalg.norm(projected, axis=1) == pytest.approx(1, abs=1e-3)


def test_few_or_equal_photos_can_be_projected():
    assert project([]).shape == (0, 1)
    for photos in (1, 3):
        assert np.isfinite(project([embed(SOURCES[0])[0]] * photos)).all()


def test_what_augmentation_changes_counts_less():
    directions, variances = moved_by_augmentation()
    np.testing.assert_allclose(directions.T @ directions, np.eye(len(variances)), atol=0.01)
    rows = np.random.default_rng(0).normal(size=(40, EMBEDDING)).astype(np.float32)
    most, least = directions[:, variances.argmax()], directions[:, variances.argmin()]
    similarity = [project(np.vstack([rows, rows[0] + 60 * direction]))[[0, -1]] for direction in (most, least)]
    moved_most, moved_least = (float(one @ other) for one, other in similarity)
    assert moved_most > moved_least + 0.1


def test_loading_the_network_does_not_change_the_random_numbers_of_a_training():
    embedding._network.cache_clear()
    before = torch.get_rng_state()
    with one_thread():
        assert torch.get_num_threads() == 1
        embed(SOURCES[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_fusing_normalizations_changes_rounding_only(monkeypatch):
    fused, _ = embed(SOURCES[0])
    monkeypatch.setattr(embedding, "_fuse", lambda network: network)
    embedding._network.cache_clear()
    assert embed(SOURCES[0])[0] == pytest.approx(fused, abs=1e-5)
    embedding._network.cache_clear()
