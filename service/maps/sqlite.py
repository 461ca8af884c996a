"""SQLite files from strangers: read only, no functions that a schema brings, no query without an end."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from service.errors import SourceUnreadable

MAX_STEPS = 200_000_000
"""SQLite's machine may do so many instructions for one query: the list of a million tiles takes a tenth; a view that
calls itself has no end."""

STEPS_A_LOOK = 1_000_000
MAX_CELL_BYTES = 32 * 2**20
"""A tile is a few hundred kilobytes."""


class Database:
    """An open file.

    Args:
        path: where it is.
        name: what the user calls it.

    Raises:
        SourceUnreadable: it is no database, or damaged.
    """

    def __init__(self, path: str | Path, name: str) -> None:
        self._name = name
        where = f"file:{quote(str(path))}?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(where, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._refusal(error) from error
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._connection.set_progress_handler(self._look, STEPS_A_LOOK)
        self._steps = 0
        self.query("PRAGMA trusted_schema = OFF")

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Fetch all rows of a query.

        Raises:
            SourceUnreadable: the database is damaged, or the query has no end.
        """
        self._steps = 0
        try:
            return self._connection.execute(sql, values).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._refusal(error) from error

    def kinds(self) -> dict[str, str]:
        """Map the name of each table and view, in lower case, to ``table`` or ``view``."""
        return {str(name).lower(): str(kind) for name, kind in self.query("SELECT name, type FROM sqlite_master")}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _look(self) -> int:
        self._steps += STEPS_A_LOOK
        return int(self._steps > MAX_STEPS)  # not zero: stop

    def _refusal(self, error: Exception) -> SourceUnreadable:
        return SourceUnreadable(f"{self._name} is damaged ({error}); copy it again, or export it anew.")
