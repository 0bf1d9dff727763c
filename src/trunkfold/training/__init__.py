"""Lockstep training of all tails on shared trunk features, with bit-exact resumption.

In: a `Config`, a dataset and a model. Out: tuned tails and the training history.
"""
