"""Scripts: classify images, evaluate accuracy, compare backends, and a live demo for cameras and videos."""
