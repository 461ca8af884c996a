"""What is sent of a map that consists of several files: one zip of them."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import SourceUnreadable

SIDE_ENDINGS = {".prj", ".wld", ".json", ".aux.xml", ".ovr"}
"""Files that end like this say where the raster beside them lies; so do world files, whose endings are three letters
that end in w."""

IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@contextmanager
def upload_of(source: Path, corners: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Give the file to send for a source, and what to call it; a zip that is made for it is gone afterwards.

    Args:
        source: a file, or a folder of tiles or rasters.
        corners: a JSON file with the corners of the image that ``source`` is.

    Raises:
        SourceUnreadable: there is no such file, or it cannot be read.
    """
    if not source.exists():
        raise SourceUnreadable(f"there is no file {source}; check its name.")
    files = _files_of(source, corners)
    if files is None:
        yield source, source.name
        return
    name = (source.resolve().name if source.is_dir() else source.stem) + ".zip"
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "upload"
        try:
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
                for path, inside in files:
                    archive.write(path, inside)
        except OSError as error:
            raise SourceUnreadable(f"{source} cannot be packed to be sent: {error.strerror}.") from error
        yield packed, name


def _files_of(source: Path, corners: Path | None) -> list[tuple[Path, str]] | None:
    """The files that a source consists of and their names inside a zip; None when it is one that is sent as it is."""
    if source.is_dir():
        return [(file, file.relative_to(source).as_posix()) for file in sorted(source.rglob("*")) if file.is_file()]
    if corners is not None:
        return [(source, source.name), (corners, f"{source.stem}.json")]
    if source.suffix.lower() == ".csv":
        beside = [file for file in sorted(source.parent.rglob("*")) if file.suffix.lower() in IMAGE_ENDINGS]
        return [(source, source.name), *((file, file.relative_to(source.parent).as_posix()) for file in beside)]
    beside = [file for file in sorted(source.parent.iterdir()) if _is_beside(file, source)]
    return [(source, source.name), *((file, file.name) for file in beside)] if beside else None


def _is_beside(file: Path, raster: Path) -> bool:
    """Whether a file says where the raster in its folder lies."""
    name, stem = file.name.lower(), raster.stem.lower()
    if raster.suffix.lower() not in IMAGE_ENDINGS or file == raster or not file.is_file():
        return False
    ending = name.removeprefix(stem) if name.startswith(stem) else ""
    ending = ending.removeprefix(raster.suffix.lower()) or ending
    is_world = ending.startswith(".") and ending.endswith("w") and len(ending) in (4, 5)
    return ending in SIDE_ENDINGS or is_world or name == "corners.json"
