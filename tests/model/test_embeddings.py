"""There is one unit vector per photo, independent of the process."""

import numpy as np
import torch

from trunkfold.model.embeddings import embed, pool_features


def test_maps_and_tokens_are_pooled_by_mean_and_deviation():
    maps = torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]])
    expected = torch.tensor([[2.0, 2.0, 1.0, 0.0]]) / 3
    torch.testing.assert_close(pool_features(maps), expected)
    torch.testing.assert_close(pool_features(maps.flatten(2).transpose(1, 2)), expected)


def test_rows_keep_their_places():
    features = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)).half()
    order = np.array([3, 0, 4, 1, 2])
    batches = [(order[:3], features[order[:3]]), (order[3:], features[order[3:]])]
    table = embed(batches)
    assert table.dtype == np.float16
    np.testing.assert_allclose(table, pool_features(features), atol=1e-3)
