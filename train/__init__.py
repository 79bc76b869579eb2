"""Training from the clone: `cifar.py` for small-image data sets, `embed.py` for the sets that are shipped."""
