"""Search for near-duplicate photos, without a model or labels.

In: photos. Out: groups.csv, with one group per source, and a page for reviewing the least certain groups.
"""
