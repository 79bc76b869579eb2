"""The live demo's web page: images and predictions in a browser, and visitors' own cameras."""
