"""Embeddings of photos, pooled from trunk features, to find similar photos."""

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from trunkfold.model.features import FeatureBatches


def pool_features(features: Tensor) -> Tensor:
    """Concatenate mean and standard deviation of each channel over positions, scaled to unit length.

    Args:
        features: Trunk features: maps (batch, channels, height, width) or tokens (batch, tokens, channels).

    Returns:
        float32 of shape (batch, 2 x channels).
    """
    positions = features.float().flatten(2) if features.dim() == 4 else features.float().transpose(1, 2)
    std, mean = torch.std_mean(positions, 2, correction=0)
    return torch.nn.functional.normalize(torch.cat([mean, std], 1))


@torch.no_grad()
def embed(accelerator: Accelerator, features: FeatureBatches, rows: int) -> np.ndarray:
    """Compute the embeddings of all rows, gathered from all processes.

    Args:
        accelerator: Accelerator whose processes pool their own rows.
        features: Batches of this process; each row occurs once over all processes.
        rows: Number of rows.

    Returns:
        float16 of shape (rows, 2 x channels).
    """
    pooled = [(torch.from_numpy(found), pool_features(batch)) for found, batch in features]
    width = torch.tensor(max((vectors.shape[1] for _, vectors in pooled), default=0), device=accelerator.device)
    width = int(accelerator.gather(width[None]).max())  # a process may have no rows
    table = torch.zeros(rows, width, device=accelerator.device)
    for found, vectors in pooled:
        table[found.to(table.device)] = vectors.to(table)
    return accelerator.reduce(table, "sum").half().cpu().numpy()
