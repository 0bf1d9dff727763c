"""Deployment of a finished run: batch prediction, model export, a web page, Kaggle notebooks.

In: a run's folder and any photos. Out: tables of predictions, model files, a served page, and a Kaggle bundle.
"""
