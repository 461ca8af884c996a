"""aerofix service: a drone photo in, a GPS position out, with an honest accuracy, offline."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("aerofix")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
