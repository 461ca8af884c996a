"""An open gallery file: its connection, its lock, its transactions, and SQLite's errors in words that name the fix.

A write is acknowledged after it is committed and synced (``synchronous=FULL``): it survives ``kill -9`` and a power
cut. Between two writes the file is whole by itself, for a rollback journal only undoes a write that was cut off.
SQLite's exclusive locking mode keeps other processes out for as long as the file is open.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from service.errors import AerofixError, GalleryInUse, GalleryReadOnly, GalleryUnusable, StorageFull, disk_error
from service.ground.store import journal
from service.ground.store.schema import APPLICATION_ID, NEW_FILE, SCHEMA_VERSION

PAUSE_S = 0.005
"""Between the pieces of a long write those who wait for the file have so many seconds for their turn."""

NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)


class GalleryFile:
    """A connection to a gallery file that threads may share; one transaction at a time.

    Args:
        path: the file; created if missing. ``":memory:"`` keeps it off the disk.
        read_only: only look, and change nothing, neither in the file nor beside it.

    Raises:
        GalleryInUse: another process, or another object here, has it open.
        GalleryUnusable: the file is no gallery, corrupt, of another schema, or cannot be written.
        StorageFull: no space for a new file.
    """

    def __init__(self, path: Path | str, read_only: bool = False) -> None:
        self.path, self.read_only = str(path), read_only
        self.name = Path(self.path).name  # errors may be told to strangers: they name the file, not its folder
        self.lock = threading.RLock()
        if not read_only and Path(self.path).exists() and not os.access(self.path, os.W_OK):
            self._read_only()
        database = f"{Path(self.path).absolute().as_uri()}?mode=ro" if read_only else self.path
        try:
            if not read_only:
                journal.set_foreign_aside(Path(self.path))
        except OSError as error:
            raise disk_error(error, f"The journal beside the gallery {self.name} cannot be read or renamed") from error
        with self.errors():
            self.db = sqlite3.connect(database, timeout=0, isolation_level=None, check_same_thread=False, uri=read_only)
        try:
            with self.errors():
                self._prepare()
        except AerofixError:
            self.db.close()
            raise

    def one(self, query: str, *values: object) -> Any:
        """Return the first column of the first row, or None."""
        rows = self.rows(query, values)
        return rows[0][0] if rows else None

    def rows(self, query: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """Fetch all rows of a query."""
        with self.lock, self.errors():
            return self.db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit everything in the block to the disk when it ends, or nothing.

        Raises:
            GalleryReadOnly: the file is open to look only.
            GalleryUnusable: the file is no longer where it was; see :meth:`check_place`.
        """
        self.check_writable()
        with self.lock, self.errors():
            self.check_place()
            self.db.execute("BEGIN IMMEDIATE")
            try:
                self._count_stamp_up()
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
            finally:
                self._seen = self._look()
            self.check_place()  # what was written to a file without a name is not kept

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """Let everything in the block see the file as it is at one moment; nothing may be written."""
        with self.lock, self.errors():
            self.db.execute("BEGIN")
            try:
                yield
            finally:
                self.db.execute("ROLLBACK")

    def check_writable(self) -> None:
        """Make sure that the file is not open to look only.

        Raises:
            GalleryReadOnly: it is.
        """
        if self.read_only:
            raise GalleryReadOnly(
                f"The gallery {self.name} is only looked at here: its vectors are in Milvus, for several services. "
                "Change the file that it is a copy of (aerofix gallery add, without AEROFIX_MILVUS_URI), copy it to "
                "Milvus (aerofix gallery copy) and to the services, and restart these one after the other."
            )

    def pause(self) -> None:
        """Let others have the file, between two pieces of a long write."""
        time.sleep(PAUSE_S)

    def check_place(self) -> None:
        """Make sure that the open file is the one that bears its name, and that nobody else has written to it.

        Raises:
            GalleryUnusable: it was removed, replaced or overwritten.
        """
        if self.lock.acquire(blocking=False):  # else somebody writes, and has just looked
            try:
                if self._look() != self._seen or self._seen[:2] != self._opened:
                    raise GalleryUnusable(
                        f"The file of the gallery {self.name} was removed, replaced or written to by another program "
                        "while it is in use; what is added now would be lost. Restart the service to use what is there "
                        "now; a snapshot (aerofix gallery snapshot FILE) first saves what it held."
                    )
            finally:
                self.lock.release()

    def close(self) -> None:
        """Close the file and let other processes in; further calls raise GalleryUnusable."""
        with self.lock:
            if not self.read_only and self._look()[:2] == self._opened:
                self.drop_journal()
            self.db.close()

    def drop_journal(self) -> None:
        """Remove the journal, which is empty between two writes, while no other process can have one of its name."""
        with suppress(OSError):
            journal.journal_of(Path(self.path)).unlink(missing_ok=True)

    def _look(self) -> tuple[int, int, int, int]:
        """Device, inode, size and time of the last change of the file that bears the gallery's name, zeros if none."""
        try:
            state = os.stat(self.path)
        except OSError:
            return 0, 0, 0, 0
        return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns

    def _count_stamp_up(self) -> None:
        """See ``journal``; this writes the first page, which SQLite first of all notes in its journal."""
        version, stamp = journal.schema_and_stamp(self.one("PRAGMA user_version"))
        self.db.execute(f"PRAGMA user_version = {journal.with_stamp(version, stamp + 1)}")

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
            if code == sqlite3.SQLITE_READONLY and self.read_only:
                raise GalleryUnusable(
                    f"The last write to the gallery {self.name} was cut off; the next start of the service undoes it."
                ) from error
            if code == sqlite3.SQLITE_READONLY:
                self._read_only(error)
            if code in NO_ACCESS:
                raise GalleryUnusable(
                    f"The gallery {self.name} cannot be opened for writing ({error}); check that its folder exists, "
                    "that this user may write to both, and that the disk is in order."
                ) from error
            self.corrupt(str(error), error)

    def whole(self, blob: object, check: int, what: str) -> bytes:
        """Return a stored blob whose CRC-32 is ``check``.

        Raises:
            GalleryUnusable: it is another, or no blob: ``what`` cannot be read.
        """
        if not isinstance(blob, bytes) or zlib.crc32(blob) != check:
            self.corrupt(f"{what} cannot be read")
        return blob

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
        self._seen = self._look()
        self._opened = self._seen[:2]
        if not self.read_only:
            self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.db.execute("BEGIN EXCLUSIVE")  # takes the lock now, not at the first write; kept until close
            self.db.execute("COMMIT")
        application_id = self.one("PRAGMA application_id")
        version, _ = journal.schema_and_stamp(self.one("PRAGMA user_version"))
        is_new = application_id == 0 and version == 0 and not self.one("SELECT count(*) FROM sqlite_master")
        if not is_new and application_id != APPLICATION_ID:
            raise GalleryUnusable(f"{self.name} is a database, but not an aerofix gallery; name another file.")
        if not is_new and version != SCHEMA_VERSION:
            raise GalleryUnusable(
                f"The gallery {self.name} was made by another version of aerofix (its schema is {version}, not "
                f"{SCHEMA_VERSION}). Move the file away and import the maps again: aerofix gallery add SOURCE "
                f"--gallery {self.name}"
            )
        if self.read_only:
            if is_new:
                raise GalleryUnusable(f"{self.name} is empty; `aerofix gallery add SOURCE` makes it a gallery.")
            return
        self.db.execute("PRAGMA journal_mode = TRUNCATE")
        self.db.execute("PRAGMA synchronous = FULL")
        self._seen = self._look()
        if is_new:
            self.db.executescript(NEW_FILE)
        self.db.execute(f"PRAGMA user_version = {journal.with_stamp(SCHEMA_VERSION, journal.new_stamp())}")
        self._seen = self._look()
