"""Rows of a batch that each fold's tail trains on."""

import torch
from torch import Tensor


def learned_shares(batch: Tensor, folds: int) -> list[Tensor]:
    """Return each tail's training rows: the batch without its fold's rows, or the whole batch with a single fold."""
    rows_left_out = len(batch) // folds if folds > 1 else 0
    return [without_fold(batch, fold, rows_left_out) for fold in range(folds)]


def without_fold(batch: Tensor, fold: int, rows_left_out: int) -> Tensor:
    """Return a batch, ordered by fold, without the rows of one fold."""
    start = fold * rows_left_out
    return torch.cat([batch[:start], batch[start + rows_left_out :]])


def rows_of_each_fold(batch: Tensor, folds: int, chosen: slice) -> Tensor:
    """Return the chosen rows of each fold of a batch ordered by fold."""
    return batch.unflatten(0, (folds, -1))[:, chosen].flatten(0, 1)
