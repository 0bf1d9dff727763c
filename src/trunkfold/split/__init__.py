"""Hold-out and folds that never separate the photos of a group.

In: tables and groups. Out: a fold for each labelled photo, and the dataset for training and prediction.
"""
