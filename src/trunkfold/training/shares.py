"""Which rows of a batch each fold's tail learns from."""

import torch
from torch import Tensor


def learned_shares(batch: Tensor, folds: int) -> list[Tensor]:
    """What each fold's tail learns from: the batch without the rows of that fold; all of it where there is one fold."""
    rows_left_out = len(batch) // folds if folds > 1 else 0
    return [without_fold(batch, fold, rows_left_out) for fold in range(folds)]


def without_fold(batch: Tensor, fold: int, rows_left_out: int) -> Tensor:
    """A batch without a fold, of each of which it holds so many rows behind each other."""
    start = fold * rows_left_out
    return torch.cat([batch[:start], batch[start + rows_left_out :]])


def rows_of_each_fold(batch: Tensor, folds: int, chosen: slice) -> Tensor:
    """A part of a batch that holds as many rows of each fold as of any other, fold by fold."""
    return batch.unflatten(0, (folds, -1))[:, chosen].flatten(0, 1)
