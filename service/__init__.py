"""aerofix service: a drone photo in, a GPS position out, with an honest accuracy, offline."""

import os
from importlib.metadata import PackageNotFoundError, version

# Requests already run side by side. The threads of one matrix product would only get in their way: on busy cores
# OpenBLAS's wait for each other, which makes the products of localization/matching.py thirty times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is loaded

# From 1.29 on, onnxruntime's wheels report to Microsoft unless told not to before they are imported (its Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# CUDA's own order is the fastest first; this is nvidia-smi's, so that AEROFIX_CUDA_DEVICE names the GPU that it lists.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # read when CUDA starts

try:
    __version__ = version("aerofix")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
