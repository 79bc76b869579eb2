"""Frame sources: cameras, streams, videos, images and a synthetic scene."""
