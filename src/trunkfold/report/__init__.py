"""A finished run explained: one self-contained page, a summary for the terminal, and comparisons of runs. No torch.

In: a run's folder. Out: report.html, figures/ and tables.
"""
