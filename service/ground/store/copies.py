"""Copies of a gallery file: taken while it is in use, checked, and put back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from service.errors import GalleryInUse, GalleryUnusable, NotReady, disk_error
from service.ground.store.file import GalleryFile
from service.ground.store.journal import journal_of
from service.ground.store.store import Store

PAGES_PER_STEP = 4096
"""So many pages (of 4 KiB) are copied before other threads get their turn."""

MAPS_PER_STEP = 256
"""So many local descriptors are checked at once: 16 MB."""

REPLACED_SUFFIX = ".replaced"


def snapshot(store: Store, target: Path, is_stopped: Callable[[], bool] = lambda: False) -> None:
    """Write a consistent copy of an open gallery, while it is read and written.

    SQLite's backup keeps up with what this process writes meanwhile. The copy holds no imports: they belong to the
    service that runs them. It gets its name after it was checked and synced: a file of this name is whole.

    Args:
        store: the gallery.
        target: where the copy goes.
        is_stopped: whether to give up; asked at every step.

    Raises:
        NotReady: it was given up.
        StorageFull: no space for the copy.
        GalleryUnusable: the gallery is damaged, or the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")

    def go_on(*_: int) -> None:
        if is_stopped():
            raise NotReady(f"the service stopped before the copy {target.name} was whole; ask again.")

    try:
        _remove(part)
        with store.file.errors(), closing(sqlite3.connect(part, isolation_level=None)) as copy:
            store.file.db.backup(copy, pages=PAGES_PER_STEP, sleep=0.01, progress=go_on)
            copy.execute("DELETE FROM imports")
        with closing(Store(part)) as written:
            verify(written)
        _sync(part)
        os.replace(part, target)
        _sync(target.parent)
    except OSError as error:
        raise disk_error(error, f"the copy {target.name} could not be written") from error
    finally:
        _remove(part)


def verify(store: Store) -> int:
    """Read everything in a gallery and check it; returns the number of windows of its maps and of single pictures.

    Raises:
        GalleryUnusable: something is damaged, which it names.
    """
    file = store.file
    if (state := file.one("PRAGMA integrity_check(1)")) != "ok":
        file.corrupt(str(state))
    if (state := file.one("SELECT rtreecheck('centres')")) != "ok":
        file.corrupt(f"spatial index: {state}")
    count = sum(1 for _ in store.load())
    placed = file.one(
        "SELECT count(*) FROM tiles JOIN centres USING (number) "
        "WHERE lat BETWEEN south AND north AND lon BETWEEN west AND east"
    )
    if placed != count:
        file.corrupt("its spatial index has tiles in other places")
    images = 0
    with file.lock, file.errors():
        for number, image, check in file.db.execute("SELECT number, image, checksum FROM details"):
            images += 1
            file.whole(image, check, f"the image of row {number}")
    if images != count:
        file.corrupt("not every tile has its image")
    numbers = [number for (number,) in file.rows("SELECT number FROM descriptors ORDER BY number")]
    for start in range(0, len(numbers), MAPS_PER_STEP):
        store.local_maps(numbers[start : start + MAPS_PER_STEP])
    if file.one("SELECT EXISTS (SELECT 1 FROM descriptors WHERE number NOT IN (SELECT number FROM tiles))"):
        file.corrupt("it has descriptors of tiles that it does not list")
    return count + store.maps.check()


def restore(source: Path, target: Path) -> tuple[int, Path | None]:
    """Put a copy in the place of a gallery, whatever state that is in.

    Nothing is touched before the copy lies beside the gallery, checked and synced; then it takes the gallery's name in
    one step. What was there before is kept under another name.

    Returns:
        Number of tiles, and where the replaced gallery is, None if there was none.

    Raises:
        GalleryInUse: a process has the gallery open.
        GalleryUnusable: ``source`` is no gallery or damaged, or a file cannot be read or written.
        StorageFull: no space for it.
    """
    part = target.with_name(target.name + ".part")
    try:
        shutil.copyfile(source, part)
        count = _check(part, source.name)
        _sync(part)
        replaced = _replace(target, part)
        _sync(target.parent)
        return count, replaced
    except OSError as error:
        raise disk_error(error, f"{source.name} could not be restored to {target.name}") from error
    finally:
        _remove(part)


def _check(part: Path, name: str) -> int:
    """Read a copy of the gallery called ``name``, which is not touched; returns the number of tiles."""
    try:
        with closing(Store(part)) as copy:
            return verify(copy)
    except GalleryUnusable as error:
        raise type(error)(error.detail.replace(part.name, name)) from error


def _replace(target: Path, part: Path) -> Path | None:
    """Give ``part`` the name of a gallery that no process has open; returns the new name of that one, if there is."""
    if not target.exists():
        os.replace(part, target)  # a journal that is there is not its own, see ``journal``
        return None
    replaced = target.with_name(target.name + REPLACED_SUFFIX)
    _remove(replaced)
    try:
        with closing(GalleryFile(target)) as file:
            file.drop_journal()  # while nobody else can have opened what bears the name
            os.link(target, replaced)
            os.replace(part, target)
    except GalleryInUse:
        raise
    except GalleryUnusable:  # damaged or of another schema: kept as it is
        os.link(target, replaced)
        with suppress(FileNotFoundError):
            os.replace(journal_of(target), journal_of(replaced))
        os.replace(part, target)
    return replaced


def _remove(path: Path) -> None:
    for leftover in (path, journal_of(path)):
        leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
