"""Hyperparameter studies whose trials train all folds on cached features.

In: a `TuningConfig`. Out: an Optuna study in a folder, the best configuration, and a page.
"""
