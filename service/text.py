"""Text that others wrote, on its way to a terminal or a log."""

import re

_UNSEEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: they steer terminals and end lines
    "\u2028\u2029"  # line and paragraph separator
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls: text is read in another order than written
    "\ud800-\udfff"  # half characters, as in names of files that are no UTF-8: no encoding takes them
    "]"
)


def visible(text: str) -> str:
    r"""Write characters that end lines, steer terminals or turn the order of reading as ``\\uXXXX``.

    That is how JSON has them, so what was JSON stays the same JSON, on one line.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
