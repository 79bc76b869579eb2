"""Making artifacts from the clone: `to_torch.py`, `to_onnx.py`, `to_openvino.py` and `to_tensorrt.py`."""
