"""Training from the clone: `cifar.py` and `imagefolder.py`, `average.py` of runs, `embed.py` for the shipped sets."""
