"""Hyperparameter studies whose trials train all folds on cached features.

In: a `TuningConfig`. Out: a folder with an Optuna study, the best configuration and an HTML page.
"""
