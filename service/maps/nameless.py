"""Files without a name, for libraries that open files by name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

FDS = "/proc/self/fd"
"""Linux shows a process its open files here, those without another name as well."""


@dataclass(frozen=True)
class Copy:
    """An open file, and a path that opens it again."""

    file: IO[bytes]
    path: str


@contextmanager
def nameless_file(folder: Path) -> Iterator[Copy]:
    """Yield a new file in a folder, or in that for temporary files if nothing can be written there; gone when closed.

    Where ``/proc`` is, it has no name at any time: not even ``kill -9`` leaves it behind.
    """
    where = folder if os.access(folder, os.W_OK) else None
    if os.path.isdir(FDS):
        with tempfile.TemporaryFile(dir=where) as file:
            yield Copy(file, f"{FDS}/{file.fileno()}")
    else:
        with tempfile.NamedTemporaryFile(dir=where) as named:
            yield Copy(named, named.name)
