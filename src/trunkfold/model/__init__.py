"""A timm model as one frozen trunk and K tuned tails.

In: uint8 batches. Out: trunk features, logits, averaged probabilities and Grad-CAM maps; weights in safetensors files.
"""
