"""Writing a run's files and the submission.

In: a trained ensemble and photos. Out: predictions, metrics, thumbnails, provenance, blends and submission.csv.
"""
