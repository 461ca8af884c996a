"""The processes of a worker pool, from outside: for who kills one on purpose."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def workers_of(pid: int) -> list[int]:
    """List the workers of a process's pools, which are started by ``spawn_main``."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it may end while its file is being read
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found
