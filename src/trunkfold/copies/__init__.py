"""The search for near-duplicate photos, which need no model and no labels.

In: photos. Out: groups.csv, the photos of one source under one group, and a page to review the least certain ones.
"""
