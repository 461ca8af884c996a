"""Checkpoint → ONNX file, with the calibration of its confidence."""
