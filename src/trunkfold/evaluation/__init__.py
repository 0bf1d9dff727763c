"""Evaluation of predictions: scores, intervals, calibration, leaderboard simulation, label issues. No torch.

In: tables of probabilities by image id. Out: numbers and tables for metrics.json and the report.
"""
