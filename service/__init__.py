"""aerofix service: a drone photo in, a GPS position out, with an honest accuracy, offline."""

import os
from importlib.metadata import PackageNotFoundError, version

# From 1.29 on, onnxruntime's wheels report to Microsoft unless told not to before they are imported (its Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    __version__ = version("aerofix")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
