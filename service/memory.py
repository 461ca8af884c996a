"""Memory that was freed, given back to the system."""

import ctypes
import sys

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc has it


def give_back() -> None:
    """Let the C library return what was freed: glibc keeps much of what a large gallery or image took."""
    if _malloc_trim is not None:
        _malloc_trim(0)
