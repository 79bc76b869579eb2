"""The OpenCV window, recordings and snapshots."""
