"""aerofix training: cross-view encoders from any orthophoto, exported to one ONNX file."""

import os

# From 1.29 on, onnxruntime's wheels report to Microsoft unless told not to before they are imported (its Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
