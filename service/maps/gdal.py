"""How GDAL is called: one driver, which the file's first bytes name; no other file, no network; errors in our words."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio
from rasterio._err import CPLE_OutOfMemoryError
from rasterio.errors import NotGeoreferencedWarning

from service.errors import AerofixError, OutOfMemory, SourceUnreadable

MAX_BANDS = 64
"""Hyperspectral cubes have hundreds, of which none is red by name; and GDAL makes an object of each of 65,000."""

MAX_DIRECTORIES = 256
"""A TIFF has one for each overview, mask and page; GDAL walks through all of them."""

SAMPLES_PER_PIXEL, PHOTOMETRIC, DNG_VERSION = 277, 262, 50706
"""These are tags of a TIFF's directory (TIFF 6.0; Adobe's DNG specification 1.7)."""

RAW_PHOTOMETRICS = (32803, 34892)
"""A sensor's own pixels are marked like this: behind a colour filter array, or linear (DNG, chapter 4)."""

MAX_BLOCK_BYTES = 256 * 2**20
"""A block is read whole, however small a window of it is asked for."""

SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JP2OpenJPEG": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "GPKG": (b"SQLite format 3\0",),
}
"""For each of GDAL's drivers that are ever asked, this is what its files begin with."""

CACHE_BYTES = 256 * 2**20
"""So much of what was decoded is kept for the next read. By itself GDAL keeps a twentieth of the machine's memory."""

_SETTINGS: dict[str, Any] = {
    "GDAL_CACHEMAX": CACHE_BYTES,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # nothing lies beside the file
    "GDAL_PAM_ENABLED": "NO",  # and nothing is written there
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",  # a truncated JPEG is an error, not a grey map
    "GDAL_HTTP_MAX_RETRY": "0",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",
}


def driver_of(start: bytes) -> str | None:
    """Return the driver for a file that begins with these bytes (at least 16), None if no raster does."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    return next((driver for driver, starts in SIGNATURES.items() if start.startswith(starts)), None)


@contextmanager
def calling(name: str, path: str | Path = "") -> Iterator[None]:
    """Call GDAL with our settings; whatever it raises becomes a refusal that calls the file ``name``.

    Raises:
        OutOfMemory: they could not have the memory that they need.
        SourceUnreadable: they raised something else.
    """
    try:
        with rasterio.Env(**_SETTINGS), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except AerofixError:
        raise
    except Exception as error:  # a damaged file leads rasterio to errors of any kind, not only its own
        if _is_short_of_memory(error):
            raise OutOfMemory(
                f"there is not enough memory to read {name}; give the service more, or store the map in smaller "
                f"blocks: gdal_translate -co TILED=YES {name} tiled.tif"
            ) from error
        what = _first_said(error)
        what = what.replace(str(path), name) if str(path) else what
        raise SourceUnreadable(
            f"{name} cannot be read as a map ({what:.300}): it is damaged or ends early. Copy it again, or write it "
            f"anew: gdal_translate {name} out.tif"
        ) from error


def _first_said(error: BaseException | None) -> str:
    """Return what the first error that says something says; those that follow from it may only point back to it."""
    said = "nothing says why"
    while error is not None:
        said = str(error) or said
        error = error.__cause__
    return said


def _is_short_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the system gave no memory."""
    while error is not None:
        if isinstance(error, (MemoryError, CPLE_OutOfMemoryError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def open_raster(path: str | Path, name: str, **options: Any) -> Any:
    """Open a raster with the one driver that its signature names.

    Args:
        path: the file; nothing beside it is looked at.
        name: what the user calls it.
        options: such as ``overview_level``.

    Raises:
        SourceUnreadable: no raster of an allowed kind, damaged, or of a shape that cannot be read in bounded memory.
    """
    with calling(name, path):
        with open(path, "rb") as file:
            driver = driver_of(file.read(16))
            if driver == "GTiff":
                _check_tiff(file, name)
        if driver is None:
            raise SourceUnreadable(
                f"{name} is not a raster of a kind that is read here (GeoTIFF, JPEG, PNG, WebP, JPEG 2000, "
                f"GeoPackage); first run: gdal_translate {name} out.tif"
            )
        if str(path).startswith("/vsi"):
            raise SourceUnreadable(f"{name} is in one of GDAL's virtual folders; copy it to an ordinary one.")
        dataset = rasterio.open(path, driver=driver, **options)
        try:
            _check_shape(dataset, name)
        except BaseException:
            dataset.close()
            raise
    return dataset


def _check_shape(dataset: Any, name: str) -> None:
    """Refuse what has too many bands, no brightness, or can only be read in pieces that fill the memory."""
    _check_bands(dataset.count, name)
    if any(str(kind).startswith("complex") for kind in dataset.dtypes):
        raise SourceUnreadable(
            f"{name} holds complex numbers, which are no picture; first run: "
            f"gdal_translate DERIVED_SUBDATASET:AMPLITUDE:{name} amplitude.tif"
        )
    together = dataset.count if str(dataset.profile.get("interleave")).lower() == "pixel" else 1
    for (rows, columns), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = rows * columns * np.dtype(kind).itemsize * together
        if size > MAX_BLOCK_BYTES:
            raise SourceUnreadable(
                f"{name} is stored in blocks of {columns} x {rows} pixels, {size} bytes; the limit is "
                f"{MAX_BLOCK_BYTES}. First run: gdal_translate -co TILED=YES {name} tiled.tif",
                limit=MAX_BLOCK_BYTES,
                actual=size,
            )


def _check_bands(count: int, name: str) -> None:
    if count > MAX_BANDS:
        raise SourceUnreadable(
            f"{name} has {count} bands; the limit is {MAX_BANDS}. Keep red, green and blue: "
            f"gdal_translate -b 1 -b 2 -b 3 {name} rgb.tif",
            limit=MAX_BANDS,
            actual=count,
        )


def _check_tiff(file: BinaryIO, name: str) -> None:
    """Look through a TIFF's directories before GDAL does: for their number, that of their bands, and raw sensor files.

    Layout: TIFF 6.0 section 2, and the BigTIFF extension (version 43: 8-byte offsets, 20-byte entries).
    """
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    count_form, entry_size, offset_form = ("Q", 20, "Q") if big else ("H", 12, "I")
    offset_size = struct.calcsize(order + offset_form)
    (offset,) = struct.unpack_from(order + offset_form, start, 8 if big else 4)
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        if len(seen) > MAX_DIRECTORIES:
            raise SourceUnreadable(
                f"{name} has over {MAX_DIRECTORIES} pages; keep the one with the map: gdal_translate GTIFF_DIR:1:{name}"
                " out.tif",
                limit=MAX_DIRECTORIES,
            )
        file.seek(offset)
        head = file.read(struct.calcsize(order + count_form))
        if len(head) < struct.calcsize(order + count_form):
            return  # GDAL names what is wrong with it
        (entries,) = struct.unpack(order + count_form, head)
        body = file.read(min(entries, 4096) * entry_size + offset_size)
        for at in range(0, min(entries, 4096) * entry_size, entry_size):
            entry = body[at : at + entry_size]
            if len(entry) == entry_size:
                (tag,) = struct.unpack_from(order + "H", entry)
                (value,) = struct.unpack_from(order + "H", entry, entry_size - offset_size)
                _check_entry(tag, value, name)
        if entries > 4096 or len(body) < entries * entry_size + offset_size:
            return
        (offset,) = struct.unpack_from(order + offset_form, body, entries * entry_size)


def _check_entry(tag: int, value: int, name: str) -> None:
    """Refuse what an entry of a TIFF's directory tells of the whole file."""
    if tag == SAMPLES_PER_PIXEL:
        _check_bands(value, name)
    if tag == DNG_VERSION or (tag == PHOTOMETRIC and value in RAW_PHOTOMETRICS):
        raise SourceUnreadable(
            f"{name} is a raw sensor file of a camera, and no map. Make an orthophoto of such files first, with "
            "OpenDroneMap for instance, and import that."
        )
