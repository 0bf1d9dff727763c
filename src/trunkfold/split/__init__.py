"""Assignment of photos to hold-out and folds without separating groups.

In: tables and groups. Out: a fold for each labelled photo, and the dataset for training and prediction.
"""
