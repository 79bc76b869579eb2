"""Scripts that show a model at work: on pictures, on a camera, on labelled sets, and backend against backend."""
