"""Training from the clone: `cifar.py`, `imagefolder.py`, `average.py`, and `make_shipped_subsets.py`."""
