"""The competition's files: tables, label corrections, and decoded photos.

In: train.csv, test.csv and image files. Out: validated tables of strings, and memory-mapped uint8 photos.
"""
