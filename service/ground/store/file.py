"""An open gallery file: its connection, its lock, its transactions, and SQLite's errors in words that name the fix.

A write is acknowledged after it is committed and synced (WAL, ``synchronous=FULL``): it survives ``kill -9`` and a
power cut. SQLite's exclusive locking mode keeps other processes out for as long as the file is open.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from service.errors import AerofixError, GalleryInUse, GalleryUnusable, StorageFull
from service.ground.store.schema import APPLICATION_ID, NEW_FILE, SCHEMA_VERSION, migrate

NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)


class GalleryFile:
    """A connection to a gallery file that threads may share; one transaction at a time.

    Args:
        path: the file; created if missing, migrated if of an older schema. ``":memory:"`` keeps it off the disk.

    Raises:
        GalleryInUse: another process, or another object here, has it open.
        GalleryUnusable: the file is no gallery, corrupt, of a newer schema, or cannot be written.
        StorageFull: no space for a new file, or to migrate.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.name = Path(self.path).name  # errors may be told to strangers: they name the file, not its folder
        self.lock = threading.RLock()
        if Path(self.path).exists() and not os.access(self.path, os.W_OK):
            self._read_only()
        with self.errors():
            self.db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self.errors():
                self._prepare()
        except AerofixError:
            self.db.close()
            raise

    def one(self, query: str, *values: object) -> Any:
        """The first column of the first row, or None."""
        rows = self.rows(query, values)
        return rows[0][0] if rows else None

    def rows(self, query: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self.lock, self.errors():
            return self.db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything in the block is committed and on the disk when it ends, or nothing is."""
        with self.lock, self.errors():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file and let other processes in; further calls raise GalleryUnusable."""
        with self.lock:
            self.db.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, which name the file and the fix."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            if "closed" not in str(error):
                raise  # a mistake of ours, not of the file
            raise GalleryUnusable(f"The gallery {self.name} is closed; open it again.") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
            if code == sqlite3.SQLITE_FULL:
                raise StorageFull(
                    f"No space left for the gallery {self.name}; nothing of this write was kept. Free space on its "
                    "disk, or move the file to a larger one."
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise GalleryInUse(
                    f"The gallery {self.name} is in use by another process; stop that one, or talk to it with --url."
                ) from error
            if code == sqlite3.SQLITE_READONLY:
                self._read_only(error)
            if code in NO_ACCESS:
                raise GalleryUnusable(
                    f"The gallery {self.name} cannot be opened for writing ({error}); check that its folder exists, "
                    "that this user may write to both, and that the disk is in order."
                ) from error
            self.corrupt(str(error), error)

    def corrupt(self, why: str, error: Exception | None = None) -> NoReturn:
        """Say that the file is damaged.

        Raises:
            GalleryUnusable: always.
        """
        raise GalleryUnusable(
            f"The gallery file {self.name} is damaged ({why}). Restore a snapshot (aerofix gallery restore FILE), or "
            "move the file away and import the maps again."
        ) from error

    def _read_only(self, error: Exception | None = None) -> NoReturn:
        raise GalleryUnusable(
            f"The gallery {self.name} is read-only; give this user the right to write it, or mount its disk "
            "for writing."
        ) from error

    def _prepare(self) -> None:
        """Take the lock, check that the file is ours, and create the tables in a new one."""
        self.db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: then no shared-memory file is needed
        self.db.execute("BEGIN EXCLUSIVE")  # takes the lock now, not at the first write; kept until close
        self.db.execute("COMMIT")
        application_id = self.one("PRAGMA application_id")
        version = self.one("PRAGMA user_version")
        is_new = application_id == 0 and version == 0 and not self.one("SELECT count(*) FROM sqlite_master")
        if not is_new and application_id != APPLICATION_ID:
            raise GalleryUnusable(f"{self.name} is a database, but not an aerofix gallery; name another file.")
        if not is_new and not 1 <= version <= SCHEMA_VERSION:
            raise GalleryUnusable(
                f"The gallery {self.name} has schema version {version}, this aerofix reads up to {SCHEMA_VERSION}; "
                "use the aerofix that made it, or import the maps into a new gallery."
            )
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        if is_new:
            self.db.executescript(NEW_FILE)
        elif version < SCHEMA_VERSION:
            with self.transaction() as db:
                migrate(db, version)
