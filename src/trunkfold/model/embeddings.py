"""Embeddings of photos, pooled from trunk features, to find similar photos."""

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from trunkfold.model.features import FeatureBatches


def pool_features(features: Tensor) -> Tensor:
    """Concatenate mean and standard deviation of each channel over positions, scaled to unit length.

    Maps (batch, channels, height, width) or tokens (batch, tokens, channels) become float32 (batch, 2 x channels).
    """
    positions = features.float().flatten(2) if features.dim() == 4 else features.float().transpose(1, 2)
    std, mean = torch.std_mean(positions, 2, correction=0)
    return torch.nn.functional.normalize(torch.cat([mean, std], 1))


@torch.no_grad()
def embed(features: FeatureBatches) -> np.ndarray:
    """Compute the embeddings of all rows, float16 of shape (rows, 2 x channels), gathered from all processes.

    Each row occurs once in the features of all processes.
    """
    pooled = [(rows, pool_features(batch).half().cpu().numpy()) for rows, batch in features]
    rows, vectors = map(np.concatenate, zip(*gather_object(pooled), strict=True))
    return vectors[np.argsort(rows)]
