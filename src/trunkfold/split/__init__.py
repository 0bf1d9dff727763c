"""Hold-out and folds that never separate the photos of one group.

In: tables and groups. Out: a fold for each labelled photo, and the dataset that training and prediction start from.
"""
