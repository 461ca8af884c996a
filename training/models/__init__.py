"""The network that becomes the ONNX file."""
