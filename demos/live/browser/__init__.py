"""The model in the visitor's browser, through onnxruntime-web."""
