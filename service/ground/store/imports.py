"""Imports in a gallery file: what is to be added, how far it is, and what went wrong."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from service.errors import AerofixError, SourceUnreadable
from service.ground.store.file import GalleryFile

Ended = Literal["done", "failed", "cancelled"]
State = Literal["queued", "running"] | Ended
MAX_TROUBLES = 20
"""So many troubles are kept of an import: enough to see what is wrong with a source, whatever its size."""

MAX_STARTS = 2
"""The process may die of so many runs of an import without any progress: one may be chance, and each takes the whole
service with it."""

_COLUMNS = (
    "id, state, name, options, created_at, total, done, added, updated, failed, skipped, map, flat, warnings, troubles"
)


class ImportStopped(AerofixError):
    """The import is not to go on: it has been cancelled."""


@dataclass(frozen=True)
class Trouble:
    """Something that went wrong.

    Attributes:
        item: what it is about; None: the import as a whole.
        kind: public name of the kind of problem, such as ``source-unreadable``.
        detail: the error's words.
    """

    item: str | None
    kind: str
    detail: str


@dataclass(frozen=True)
class Step:
    """Progress of an import that is written together with its tiles.

    Attributes:
        import_id: of the import.
        done: places of the source that are finished after this step.
        skipped: of this step's windows, how many were left out.
        flat: of those, how many have no contrast; the others are mostly empty.
        troubles: one for each of this step's that failed.
    """

    import_id: str
    done: int
    skipped: int = 0
    flat: int = 0
    troubles: Sequence[Trouble] = ()


@dataclass(frozen=True)
class Import:
    """An import as it is stored.

    Attributes:
        total, done: pieces of work: tiles of pixels to store, and windows to embed.
        added, updated, failed, skipped: windows; those left out are mostly empty or, ``flat`` of them, of one colour.
        map: number of the map that it makes, None before it runs.
        warnings: what the user should know, in sentences.
    """

    id: str
    state: State
    name: str
    options: Mapping[str, Any]
    created_at: str
    total: int
    done: int
    added: int
    updated: int
    failed: int
    skipped: int
    map: int | None = None
    flat: int = 0
    warnings: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def is_live(self) -> bool:
        """Whether it is still to go on."""
        return self.state in ("queued", "running")


class Imports:
    """The imports in a gallery file.

    Args:
        file: the open file; all errors are those of ``GalleryFile``.
    """

    def __init__(self, file: GalleryFile) -> None:
        self._file = file

    def create(self, name: str, options: Mapping[str, Any], total: int, import_id: str) -> Import:
        """Queue an import of ``total`` pieces of work."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        values = (import_id, "queued", name, json.dumps(dict(options)), now, total)
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO imports (id, state, name, options, created_at, total) VALUES (?, ?, ?, ?, ?, ?)", values
            )
        return Import(import_id, "queued", name, options, now, total, 0, 0, 0, 0, 0)

    def get(self, import_id: str) -> Import | None:
        """Return the import with this id, or None."""
        return next(iter(self._select("WHERE id = ?", import_id)), None)

    def newest(self, limit: int) -> list[Import]:
        """Return the last ``limit`` imports, newest first."""
        return self._select("ORDER BY number DESC LIMIT ?", limit)

    def live(self) -> list[Import]:
        """Return the imports that are still to go on, in their order."""
        return self._select("WHERE state IN ('queued', 'running') ORDER BY number")

    def start(self, import_id: str) -> None:
        """Count a run of an import, before it touches the source.

        Raises:
            SourceUnreadable: the last runs neither made progress nor came to an end: the process died of them.
        """
        job, starts = self.get(import_id), "SELECT starts FROM imports WHERE id = ?"
        if job is not None and self._file.one(starts, import_id) >= MAX_STARTS:
            raise SourceUnreadable(
                f"the import ended the service {MAX_STARTS} times at the same place, after {job.done} of {job.total} "
                "pieces; the log of the system says whether it lacked memory or crashed. Send smaller pieces, or the "
                "map as gdal_translate -co TILED=YES writes it."
            )
        with self._file.transaction() as db:
            db.execute("UPDATE imports SET starts = starts + 1 WHERE id = ?", (import_id,))

    def outlived(self, import_id: str) -> None:
        """Note that a run of an import ended, for whatever reason, and the process did not."""
        with self._file.transaction() as db:
            db.execute("UPDATE imports SET starts = 0 WHERE id = ?", (import_id,))

    def begin(self, import_id: str, total: int) -> None:
        """Note that an import runs, from its start if the source has another number of places than it had.

        Raises:
            ImportStopped: it has been cancelled.
        """
        with self._file.transaction() as db:
            # SQLite evaluates all right-hand sides before it assigns
            again = "iif(total = :total, {0}, 0)"
            columns = ("done", "added", "updated", "failed", "skipped", "flat")
            counts = ", ".join(f"{column} = {again.format(column)}" for column in columns)
            query = f"""
                UPDATE imports SET state = 'running', {counts}, total = :total
                WHERE id = :id AND state IN ('queued', 'running')
            """  # noqa: S608 - built from the constants above
            if not db.execute(query, {"id": import_id, "total": total}).rowcount:
                raise ImportStopped(f"import {import_id} has been cancelled.")

    def set_map(self, import_id: str, number: int) -> None:
        """Note which map an import makes, inside the caller's transaction."""
        self._file.db.execute("UPDATE imports SET map = ? WHERE id = ?", (number, import_id))

    def warn(self, import_id: str, warnings: Sequence[str]) -> None:
        """Add warnings that an import does not have yet."""
        with self._file.transaction() as db:
            job = self.get(import_id)
            if job is not None:
                told = list(dict.fromkeys([*job.warnings, *warnings]))
                db.execute("UPDATE imports SET warnings = ? WHERE id = ?", (json.dumps(told), import_id))

    def advance(self, step: Step, added: int, updated: int) -> None:
        """Note progress inside the caller's transaction.

        Raises:
            ImportStopped: it has been cancelled.
        """
        stored = self._file.one("SELECT troubles FROM imports WHERE id = ? AND state = 'running'", step.import_id)
        if stored is None:
            raise ImportStopped(f"import {step.import_id} has been cancelled.")
        troubles = [*json.loads(stored), *map(vars, step.troubles)][:MAX_TROUBLES]
        query = """
            UPDATE imports SET done = ?, added = added + ?, updated = updated + ?, failed = failed + ?,
            skipped = skipped + ?, flat = flat + ?, troubles = ?, starts = 0 WHERE id = ?
        """
        counts = (step.done, added, updated, len(step.troubles), step.skipped, step.flat)
        self._file.db.execute(query, (*counts, json.dumps(troubles), step.import_id))

    def finish(self, import_id: str, state: Ended, why: Trouble | None = None) -> bool:
        """End an import; ``why`` it failed comes first among its troubles. Returns False if it had ended before."""
        with self._file.transaction() as db:
            current = self.get(import_id)
            if current is None or not current.is_live:
                return False
            troubles = [*([why] if why else []), *current.troubles][:MAX_TROUBLES]
            values = (state, json.dumps([vars(trouble) for trouble in troubles]), import_id)
            db.execute("UPDATE imports SET state = ?, troubles = ? WHERE id = ?", values)
            return True

    def _select(self, condition: str, *values: object) -> list[Import]:
        rows = self._file.rows(f"SELECT {_COLUMNS} FROM imports {condition}", values)  # noqa: S608 - constants
        names = _COLUMNS.split(", ")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        for each in found:
            each["options"] = json.loads(each["options"])
            each["warnings"] = json.loads(each["warnings"])
            each["troubles"] = [Trouble(**trouble) for trouble in json.loads(each["troubles"])]
        return [Import(**each) for each in found]


IMPORT_ID = re.compile(r"[0-9a-f]{16}")


def new_import_id() -> str:
    """Make an id that cannot be guessed."""
    return secrets.token_hex(8)
