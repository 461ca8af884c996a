"""aerofix training: cross-view encoders from any orthophoto, exported to one ONNX file."""
