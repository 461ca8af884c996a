"""New features for everything in a gallery file: collected piece by piece, and taken over in one step."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.ground.local_maps import LocalMap, pack
from service.ground.store.maps import packed
from service.ground.store.schema import checksum
from service.ground.store.store import Store
from service.ground.windows import Ids, range_of

_TABLES = ("reembedded", "reembedded_windows", "reembedded_blocks", "reembedded_pieces")


class Reembedding:
    """Collects embeddings of another model beside the old ones; a run that was killed goes on where it was.

    Args:
        store: the gallery; its embeddings stay as they are until :meth:`finish`.
        identity: stamp of the new model.
        window_px: side of its input.
    """

    def __init__(self, store: Store, identity: str, window_px: int) -> None:
        self._store, self._file, self._identity, self._window_px = store, store.file, identity, window_px
        with self._file.transaction() as db:
            if self._file.one("SELECT value FROM meta WHERE key = 'reembedding'") != identity:
                for table in _TABLES:
                    db.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
                db.execute("UPDATE meta SET value = ? WHERE key = 'reembedding'", (identity,))

    def counts(self) -> tuple[int, int]:
        """Return single pictures that have their new embedding, and all of them."""
        done, total = "SELECT count(*) FROM reembedded", "SELECT count(*) FROM tiles"
        return int(self._file.one(done)), int(self._file.one(total))

    def pending(self, batch: int) -> Iterator[list[tuple[int, str, bytes]]]:
        """Yield lists of at most ``batch`` pictures without a new embedding: number, id, image file.

        Raises:
            GalleryUnusable: an image is damaged.
        """
        last = 0
        query = """
            SELECT number, id, image, details.checksum FROM tiles JOIN details USING (number)
            WHERE number > ? AND number NOT IN (SELECT number FROM reembedded) ORDER BY number LIMIT ?
        """
        while rows := self._file.rows(query, (last, batch)):
            last = rows[-1][0]
            for number, _, image, check in rows:
                self._file.whole(image, check, f"the image of row {number}")
            yield [row[:3] for row in rows]

    def put(
        self, numbers: Sequence[int], embeddings: NDArray[np.float16], maps: Sequence[LocalMap] | None = None
    ) -> None:
        """Keep embeddings, shape ``[N, D]``, and the N local descriptors of a model that gives some, on the disk."""
        vectors = [row.astype("<f2").tobytes() for row in embeddings]
        blobs = [None] * len(vectors) if maps is None else [pack(local) for local in maps]
        with self._file.transaction() as db:
            db.executemany("REPLACE INTO reembedded VALUES (?, ?, ?)", zip(numbers, vectors, blobs, strict=True))

    def pieces(self, number: int) -> set[int]:
        """Return pieces of a map that have their new embeddings."""
        return {piece for (piece,) in self._file.rows("SELECT piece FROM reembedded_pieces WHERE map = ?", (number,))}

    def put_piece(
        self, number: int, piece: int, ids: Ids, embeddings: NDArray[np.float16], blocks: Mapping[int, LocalMap]
    ) -> None:
        """Keep the embeddings and blocks of a piece of a map on the disk."""
        with self._file.transaction() as db:
            if len(ids):
                query = "INSERT INTO reembedded_windows (map, ids, embeddings, checksum) VALUES (?, ?, ?, ?)"
                db.execute(query, (number, *packed(ids, embeddings)))
            rows = [(key, (blob := pack(local)), zlib.crc32(blob)) for key, local in blocks.items()]
            db.executemany("INSERT INTO reembedded_blocks VALUES (?, ?, ?)", rows)
            db.execute("INSERT INTO reembedded_pieces VALUES (?, ?)", (number, piece))

    def finish(self, levels: Mapping[int, Sequence[int]]) -> None:
        """Replace all embeddings, descriptors and the identity stamp in one transaction.

        Args:
            levels: of each map by its number, those that its windows have now.

        Raises:
            ValueError: a picture has no new embedding.
        """
        generation = self._store.generation + 1
        with self._file.transaction() as db:
            if len(set(self.counts())) > 1:
                raise ValueError("not every picture has its new embedding")
            db.create_function("tile_checksum", 5, checksum, deterministic=True)
            db.execute(
                "UPDATE tiles SET generation = ?, embedding = "
                "(SELECT embedding FROM reembedded WHERE reembedded.number = tiles.number)",
                (generation,),
            )
            db.execute("UPDATE tiles SET checksum = tile_checksum(id, corners, gsd_m, properties, embedding)")
            db.create_function("crc32", 1, zlib.crc32, deterministic=True)
            db.execute("DELETE FROM descriptors")
            db.execute(
                "INSERT INTO descriptors SELECT number, local, crc32(local) FROM reembedded WHERE local IS NOT NULL"
            )
            for old, columns in (("windows", "map, ids, embeddings, checksum"), ("blocks", "id, local, checksum")):
                db.execute(f"DELETE FROM {old}")  # noqa: S608 - constants
                db.execute(
                    f"INSERT INTO {old} ({columns}) SELECT {columns} FROM reembedded_{old} ORDER BY rowid"  # noqa: S608
                )
            new_levels = [
                (json.dumps(list(zooms)), *range_of(number), *range_of(number), number)
                for number, zooms in levels.items()
            ]
            db.executemany(
                "UPDATE maps SET levels = ?, bytes = ("
                "SELECT coalesce(sum(length(image)), 0) FROM pixels WHERE id BETWEEN ? AND ?) + ("
                "SELECT coalesce(sum(length(local)), 0) FROM blocks WHERE id BETWEEN ? AND ?) WHERE number = ?",
                new_levels,
            )
            for table in _TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608
            meta = {"identity": self._identity, "generation": generation, "reembedding": None}
            meta["window_px"] = self._window_px
            db.executemany("UPDATE meta SET value = ? WHERE key = ?", [(value, key) for key, value in meta.items()])
        self._store.generation = generation
