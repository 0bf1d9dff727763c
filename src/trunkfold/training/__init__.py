"""All tails trained in lockstep on shared trunk features, resumable to the bit.

In: a `Config`, a dataset and a model. Out: tuned tails and their history.
"""
