"""A drawn competition to try the kit with: damaged cars, three augmented copies of each.

In: number of photos, size and seed. Out: an input folder, the same to the byte for the same seed.
"""
