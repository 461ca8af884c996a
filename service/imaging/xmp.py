"""What an XMP packet says, by the names that drone makers use."""

import math
import re
from typing import Any

MAX_BYTES = 256 * 1024
"""An XMP packet is read up to here. Drones write 2 to 6 kB; what is longer carries previews or is meant to hurt."""

_PAIR = re.compile(r"""(?<![\w-])([\w-]{1,32}):(\w{1,64})(?:\s{0,8}=\s{0,8}["']([^"'<]{1,64})["']|>([^<]{1,64})<)""")
"""This finds a value as an attribute or as an element. Everything has a bound, so the time grows no faster than the
text."""

_BLOCK = r"<{0}\b(.{{0,2000}}?)(?:/>|</{0}>)"

Values = dict[str, str]
"""Texts are found by ``prefix:Name``."""


def read_xmp(raw: bytes | str) -> tuple[str, Values]:
    """Return the start of a packet as text, and its plain values; the first of a name wins."""
    text = raw[:MAX_BYTES].decode("utf-8", "replace") if isinstance(raw, bytes) else raw[:MAX_BYTES]
    return text, _pairs(text)


def read_structure(text: str, name: str) -> Values:
    """Return the values inside the structure ``prefix:Name``, whether they are its attributes or its elements."""
    found = re.search(_BLOCK.format(re.escape(name)), text, re.DOTALL)
    return {} if found is None else _pairs(found.group(1))


def number(value: Any) -> float | None:
    """Return a finite float, of a number or of text such as ``"+12.5"`` and ``"118000/1000"``; else None."""
    try:
        if isinstance(value, str) and "/" in value:
            above, below = value.split("/")
            value = float(above) / float(below)
        found = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _pairs(text: str) -> Values:
    return {
        f"{prefix}:{name}": attribute or element for prefix, name, attribute, element in reversed(_PAIR.findall(text))
    }
