"""Search for near-duplicate photos, without a trained model or labels.

In: photos. Out: groups.csv, with one group per source, and a page for reviewing the least certain groups.
"""

import cv2

cv2.setNumThreads(0)  # a photo is too small for several threads; each of ours processes a different photo or pair
