"""Scripts that show a model at work: on pictures, on a camera, on labeled sets, and backend against backend."""
