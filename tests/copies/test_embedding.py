"""Embeddings of copies are closer than those of other photos, and computing them changes nothing else."""

import numpy as np
import pytest
import torch
from drawn_photos import WAYS, draw_car, draw_source

from trunkfold.copies import embedding
from trunkfold.copies.embedding import CHANNELS, GRID, LENGTH, embed, one_thread, whiten

SOURCES = [draw_source(seed) for seed in range(6)] + [draw_car(seed) for seed in range(6)]


def test_copies_are_closer_than_other_photos():
    ways = [WAYS[place % len(WAYS)] for place in range(len(SOURCES))]
    embeddings = whiten(
        [embed(pixels)[0] for pixels in SOURCES]
        + [embed(way(pixels))[0] for way, pixels in zip(ways, SOURCES, strict=True)]
    )
    similarity = embeddings[: len(SOURCES)] @ embeddings[len(SOURCES) :].T
    assert (similarity.argmax(1) == np.arange(len(SOURCES))).mean() > 0.9


def test_both_parts_and_whitened_embeddings_are_of_unit_length():
    found, cells = embed(SOURCES[0])
    assert found.shape == (LENGTH,)
    assert cells.shape == (2, GRID, GRID, CHANNELS)
    np.testing.assert_allclose(embed(SOURCES[0][:, ::-1])[1][::-1], cells, atol=1e-4)
    assert np.linalg.norm(found) == pytest.approx(2**0.5)
    whitened = whiten([found, embed(SOURCES[1])[0]])
    assert whitened.shape[0] == 2
    assert np.linalg.norm(whitened, axis=1) == pytest.approx(1, abs=1e-3)


def test_few_or_equal_photos_can_be_whitened():
    assert whiten([]).shape == (0, 1)
    assert np.isfinite(whiten([embed(SOURCES[0])[0]] * 3)).all()


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


def test_few_rows_have_the_components_of_their_covariance():
    rows = np.random.default_rng(0).normal(size=(12, 30)) * np.arange(1, 31)
    centred = rows - rows.mean(0)
    variances, axes = embedding._principal_components(centred)
    expected, _ = np.linalg.eigh(np.cov(centred, rowvar=False, bias=True))
    np.testing.assert_allclose(variances, expected[::-1][:12], atol=1e-9)
    np.testing.assert_allclose((centred @ axes).var(0), variances, atol=1e-9)
    many = np.concatenate([centred, -centred, centred, -centred])
    np.testing.assert_allclose(embedding._principal_components(many)[0][:11], variances[:11])
