"""A finished run in use: predicted folders of photos, exported models, a web page, a Kaggle bundle.

In: a run's folder and any photos. Out: tables of predictions, model files, and pages that need no training code.
"""
