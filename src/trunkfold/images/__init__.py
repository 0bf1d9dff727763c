"""The model's input: test-time views, training augmentation, and batches.

In: decoded photos. Out: uint8 batches; training batches contain equal numbers of photos of each fold.
"""
