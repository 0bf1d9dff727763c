"""All tails trained in lockstep on shared trunk features, with bit-exact resumption.

In: a `Config`, a dataset and a model. Out: tuned tails and their history.
"""
