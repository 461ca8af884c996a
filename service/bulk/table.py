"""Shards as Parquet files: a row for each tile of pixels and for each window, a row group for each piece of the plan.

A shard is whole when its ``.json`` lies beside it: that is written last, and holds the checksum of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import SourceUnreadable, disk_error

SCHEMA = pa.schema(
    [
        ("zoom", pa.int8()),
        ("row", pa.int32()),
        ("column", pa.int32()),
        ("tile", pa.binary()),  # WebP
        ("embedding", pa.binary()),  # float16, little-endian
        ("block", pa.binary()),  # see service.ground.local_maps.pack
    ]
)

Row = tuple[int, int, int, bytes | None, bytes | None, bytes | None]


@dataclass(frozen=True)
class Done:
    """What became of a piece of the plan: its number, and how many of its windows were left out, ``flat`` of them."""

    piece: int
    skipped: int
    flat: int


@dataclass(frozen=True)
class Marker:
    """Says that a shard is whole.

    Attributes:
        job: what shards that belong together have alike.
        shard: its number, from 0.
        sha256: of its Parquet file.
        windows: how many embeddings are in it.
        pieces: those in it, in the order of its row groups.
        warnings: what the source had to say, in sentences.
        seconds: that it took, of one process.
    """

    job: dict[str, Any]
    shard: int
    sha256: str
    windows: int
    pieces: list[Done]
    warnings: list[str]
    seconds: float

    @classmethod
    def of(cls, path: Path) -> Marker | None:
        """Return the marker of a shard's file, None while it is not whole."""
        try:
            told = json.loads(path.with_suffix(".json").read_text())
            return cls(**told | {"pieces": [Done(**each) for each in told["pieces"]]})
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SourceUnreadable(
                f"{path.with_suffix('.json')} cannot be read ({error}); delete it and embed the shard again."
            ) from error


def check_shard(path: Path, marker: Marker) -> None:
    """See that a shard's file is as it was written.

    Raises:
        SourceUnreadable: it is not what its marker says.
    """
    try:
        if digest(path) == marker.sha256:
            return
    except FileNotFoundError:
        pass
    raise SourceUnreadable(
        f"{path} is not the file that its marker describes; delete it and its .json, and embed the shard again."
    )


class Writer:
    """Writes a shard; what is not finished leaves nothing that could be taken for whole.

    Args:
        path: of the shard.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._unfinished = path, path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        self._pieces: list[Done] = []
        self._windows = 0
        with self._disk():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._unfinished, SCHEMA, compression="none")  # all is compressed or noise

    def put(self, done: Done, rows: list[Row]) -> None:
        """Write a piece."""
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        with self._disk():
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), row_group_size=max(1, len(rows)))
        self._pieces.append(done)
        self._windows += sum(embedding is not None for *_, embedding, _ in rows)

    def finish(self, job: dict[str, Any], shard: int, warnings: list[str], seconds: float) -> Marker:
        """Close the file, give it its name, and then say that it is whole."""
        with self._disk():
            self._writer.close()
            marker = Marker(job, shard, digest(self._unfinished), self._windows, self._pieces, warnings, seconds)
            os.replace(self._unfinished, self._path)
            said = self._unfinished.with_suffix(".said")
            said.write_text(json.dumps(asdict(marker)))
            os.replace(said, self._path.with_suffix(".json"))
        return marker

    def abandon(self) -> None:
        """Remove what was written so far; harmless after ``finish``."""
        with suppress(OSError):
            self._writer.close()
        self._unfinished.unlink(missing_ok=True)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Name the fix of what a disk does not take.

        Raises:
            StorageFull, GalleryUnusable: as said.
        """
        try:
            yield
        except OSError as error:
            folder = self._path.parent
            raise disk_error(error, f"{folder} cannot be written", str(folder)) from error


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces_in(path: Path, marker: Marker) -> Iterator[tuple[Done, list[Row]]]:
    """Yield the pieces of a shard in their order."""
    with pq.ParquetFile(path) as file:
        for number, done in enumerate(marker.pieces):
            table = file.read_row_group(number)
            columns = [column.to_pylist() for column in table.columns]
            yield done, list(zip(*columns, strict=True))
