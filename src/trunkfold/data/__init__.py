"""The competition on disk: tables, label corrections, and photos decoded once.

In: train.csv, test.csv and image files. Out: checked tables of text, and uint8 photos mapped into memory.
"""
