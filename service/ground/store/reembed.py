"""New features for all tiles of a gallery file: collected batch by batch, and taken over in one step."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from service.ground.local_maps import LocalMap, pack
from service.ground.store.schema import checksum
from service.ground.store.store import Store


class Reembedding:
    """Collects embeddings of another model beside the old ones; a run that was killed goes on where it was.

    Args:
        store: the gallery; its embeddings stay as they are until :meth:`finish`.
        identity: stamp of the new model.
    """

    def __init__(self, store: Store, identity: str) -> None:
        self._store, self._file, self._identity = store, store.file, identity
        with self._file.transaction() as db:
            if self._file.one("SELECT value FROM meta WHERE key = 'reembedding'") != identity:
                db.execute("DELETE FROM reembedded")
                db.execute("UPDATE meta SET value = ? WHERE key = 'reembedding'", (identity,))

    def counts(self) -> tuple[int, int]:
        """Tiles that have their new embedding, and all tiles."""
        done, total = "SELECT count(*) FROM reembedded", "SELECT count(*) FROM tiles"
        return int(self._file.one(done)), int(self._file.one(total))

    def pending(self, batch: int) -> Iterator[list[tuple[int, str, bytes]]]:
        """Lists of at most ``batch`` tiles without a new embedding: number, id, image file.

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
                if not isinstance(image, bytes) or zlib.crc32(image) != check:
                    self._file.corrupt(f"the image of row {number} cannot be read")
            yield [row[:3] for row in rows]

    def put(
        self, numbers: Sequence[int], embeddings: NDArray[np.float16], maps: Sequence[LocalMap] | None = None
    ) -> None:
        """Keep embeddings, shape ``[N, D]``, and the N local descriptors of a model that gives some, on the disk."""
        vectors = [row.astype("<f2").tobytes() for row in embeddings]
        blobs = [None] * len(vectors) if maps is None else [pack(local) for local in maps]
        with self._file.transaction() as db:
            db.executemany("REPLACE INTO reembedded VALUES (?, ?, ?)", zip(numbers, vectors, blobs, strict=True))

    def finish(self) -> None:
        """Replace all embeddings, descriptors and the identity stamp in one transaction.

        Raises:
            ValueError: a tile has no new embedding.
        """
        generation = self._store.generation + 1
        with self._file.transaction() as db:
            if len(set(self.counts())) > 1:
                raise ValueError("not every tile has its new embedding")
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
            db.execute("DELETE FROM reembedded")
            meta = {"identity": self._identity, "generation": generation, "reembedding": None}
            db.executemany("UPDATE meta SET value = ? WHERE key = ?", [(value, key) for key, value in meta.items()])
        self._store.generation = generation
