"""What the model is shown of a photo: test-time views, training augmentation, and batches.

In: decoded photos. Out: uint8 batches of one size, the same number of photos of every fold in each training batch.
"""
