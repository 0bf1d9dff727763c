"""Evaluation of predictions: scores, intervals, calibration, leaderboard simulation, label issues. No torch.

In: tables of probabilities by image id. Out: scores and tables for metrics.json and the report. `classes` are the names
of the labels, in the order of the probabilities.
"""
