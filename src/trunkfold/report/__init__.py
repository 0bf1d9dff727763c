"""Reports on finished runs: a self-contained page, a terminal summary, and comparisons. Does not import torch.

In: a run's folder. Out: report.html, figures/ and tables.
"""
