"""A synthetic competition to try the kit with: drawings of damaged cars, three augmented copies of each.

In: number of photos, size and seed. Out: an input folder, byte-identical for the same seed.
"""
