"""Files of a run's folder, and the submission.

In: a trained ensemble and photos. Out: predictions, metrics, thumbnails, provenance, blends and submission.csv.
"""
