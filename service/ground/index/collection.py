"""A Milvus collection of windows: their keys, vectors and centres. pymilvus is used in this file only.

Every call has a time limit, and a Milvus that does not answer is an error that says so.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from service.errors import ConfigurationInvalid, GalleryUnusable, IndexUnavailable
from service.ground.index.keys import padded
from service.ground.index.protocol import Centres, Half, Vectors
from service.settings import Settings

log = logging.getLogger(__name__)

Consistency = Literal["Strong", "Bounded"]

ROWS_AT_ONCE = 4096
"""So many rows are written or read together: 8 MB at 512 dimensions, and Milvus takes messages of 64 MB."""

MAX_ROWS = 16_384
"""An answer has at most so many rows; Milvus refuses to give more."""

GRAPH = {"M": 16, "efConstruction": 200}
"""The HNSW graph (Malkov and Yashunin, TPAMI 2018) has so many neighbours and candidates, as Milvus has them by
default."""

LEAST_EF, MOST_EF = 512, 32_768
"""A search follows at least so many candidates in the graph, and twice as many as are asked for where that is more.
Milvus follows no more than the second number."""

MORE_EF = 8
"""So many times as many are followed when those that meet a condition are fewer than were asked for."""

SEARCH_TIMEOUT_S = 3.0
"""A search takes milliseconds; one that hangs leaves time to answer within the default deadline of 10 s."""

CALL_TIMEOUT_S = 60.0
"""Writes, and what reads many rows, may take so many seconds."""

STALLED_S = 600.0
"""When the index of a collection takes in no further row for so many seconds, nobody waits any longer."""

DOWN_S = 1.0
"""For so many seconds after a failure searches fail at once, so that photos do not all wait for a Milvus that is
gone."""

CREATE_TRIES, CREATE_PAUSE_S = 20, 0.5
"""A collection is tried to be made so many times, with so many seconds between: while another writer makes it, it is
half there."""


@dataclass(frozen=True, eq=False)
class CollectionRows:
    """Rows of a collection: keys, centres ``[N, 2]``, and if asked for vectors ``[N, D]`` and scores ``[N]``."""

    keys: list[str]
    centres: Centres
    vectors: Vectors
    scores: Vectors


class Collection:
    """A collection of windows that were embedded by one model. Safe to use from several threads.

    Args:
        uri: of Milvus, such as ``http://milvus:19530``.
        name: of the collection, without the part that stands for the model.
        identity: stamp of the model; another model's windows are another collection.
        dim: dimensions of the vectors.
        token: ``user:password`` or a key, where Milvus wants one.
        consistency: ``Strong`` reads see every write that was acknowledged before; ``Bounded`` ones may miss the last
            seconds, and wait for nothing.

    Raises:
        ConfigurationInvalid: pymilvus is not installed.
        IndexUnavailable: Milvus does not answer.
    """

    def __init__(
        self, uri: str, name: str, identity: str, dim: int, token: str = "", consistency: Consistency = "Strong"
    ) -> None:
        try:
            import grpc
            import pymilvus
        except ImportError as error:
            raise ConfigurationInvalid(
                "vectors are to be in Milvus, and pymilvus is not installed: pip install 'aerofix[cpu,milvus]'."
            ) from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a stack for whatever it raises as well
        self._milvus, self.dim = pymilvus, dim
        self._errors = (pymilvus.MilvusException, grpc.RpcError)
        self.name = f"{name}_{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        self._consistency = consistency
        self._failed_at = -DOWN_S
        with self._reaching():
            self._client = pymilvus.MilvusClient(uri, token=token, timeout=SEARCH_TIMEOUT_S, dedicated=True)

    @classmethod
    def of(cls, settings: Settings, identity: str, dim: int, consistency: Consistency = "Strong") -> Collection:
        """Open the collection that settings name, whose ``milvus_uri`` is set; the class says what is raised."""
        token, uri = settings.milvus_token.get_secret_value(), settings.milvus_uri or ""
        return cls(uri, settings.milvus_collection, identity, dim, token, consistency)

    @classmethod
    def shared(cls, settings: Settings, identity: str, dim: int) -> Collection | None:
        """Open the collection that a service searches, None where the vectors are in its own memory; see the class."""
        return None if settings.milvus_uri is None else cls.of(settings, identity, dim, "Bounded")

    # what is there

    def exists(self) -> bool:
        """Say whether the collection has been made."""
        with self._reaching():
            return bool(self._client.has_collection(self.name, timeout=SEARCH_TIMEOUT_S))

    def open(self) -> None:
        """Make sure that the collection is there and can be searched.

        Raises:
            GalleryUnusable: it has not been made.
        """
        if not self.exists():
            raise GalleryUnusable(
                f"Milvus has no collection {self.name}, which is that of this model; fill it first: aerofix gallery "
                "copy FILE URI."
            )
        with self._reaching():
            self._client.load_collection(self.name, timeout=CALL_TIMEOUT_S)

    def count(self, first: str, end: str) -> int:
        """Count the keys from ``first`` on and below ``end``."""
        (row,) = self._query(_between(first, end), ["count(*)"])
        return int(row["count(*)"])

    def rows(self, first: str, end: str) -> Iterator[CollectionRows]:
        """Yield the rows of keys from ``first`` on and below ``end``, in no order, some thousand at a time."""
        found = self._query(_between(first, end), ["id", "vector", "lat", "lon"], MAX_ROWS)
        if len(found) < MAX_ROWS:
            yield _rows(found)
            return
        middle = padded((int(first, 16) + int(end, 16)) // 2)
        yield from self.rows(first, middle)
        yield from self.rows(middle, end)

    def places(self, condition: str) -> CollectionRows:
        """Return keys and centres of the rows that meet a condition, at most ``MAX_ROWS``."""
        return _rows(self._query(condition, ["id", "lat", "lon"], MAX_ROWS))

    def search(self, query: Vectors, limit: int, condition: str = "") -> CollectionRows:
        """Find the rows most like a query ``[D]`` that meet a condition, with scores and centres, best first."""
        if time.monotonic() - self._failed_at < DOWN_S:
            raise _unavailable()
        try:
            return self._search(query, limit, condition)
        except IndexUnavailable:
            self._failed_at = time.monotonic()
            raise

    def check(self) -> None:
        """Make sure that a search is answered.

        Raises:
            IndexUnavailable: it is not.
        """
        some = np.eye(1, self.dim, dtype=np.float32)[0]
        try:
            self._search(some, 1, "")
        except IndexUnavailable:  # one that was restarted may have the collection on its disk only
            with self._reaching():
                self._client.load_collection(self.name, timeout=SEARCH_TIMEOUT_S)
            self._search(some, 1, "")

    def _search(self, query: Vectors, limit: int, condition: str) -> CollectionRows:
        """Follow more candidates while few of them meet the condition: some servers leave the others out afterwards."""
        ef = min(max(2 * limit, LEAST_EF), MOST_EF)
        while True:
            found = self._followed(query, limit, condition, ef)
            if not condition or len(found.keys) == limit or ef == MOST_EF:
                return found
            ef = min(MORE_EF * ef, MOST_EF)

    def _followed(self, query: Vectors, limit: int, condition: str, ef: int) -> CollectionRows:
        params = {"params": {"ef": ef}}
        with self._reaching():
            (hits,) = self._client.search(
                self.name,
                data=[query.tolist()],
                filter=condition,
                limit=limit,
                output_fields=["lat", "lon"],
                search_params=params,
                consistency_level=self._consistency,
                timeout=SEARCH_TIMEOUT_S,
            )
        self._failed_at = -DOWN_S
        found = [{"id": hit.id, **hit["entity"]} for hit in hits]
        return _rows(found, np.array([hit.distance for hit in hits], np.float32))

    # changing it

    def create(self) -> None:
        """Make the collection unless it is there; another writer may be at it, so it is tried several times."""
        for left in reversed(range(CREATE_TRIES)):
            try:
                if not self.exists():
                    self._make()
                self.open()
                return
            except IndexUnavailable:
                if not left:
                    raise
                time.sleep(CREATE_PAUSE_S)

    def _make(self) -> None:
        kinds = self._milvus.DataType
        schema = self._milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=len(padded(0)))
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self.dim)
        schema.add_field("lat", kinds.DOUBLE)
        schema.add_field("lon", kinds.DOUBLE)
        index = self._milvus.MilvusClient.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=GRAPH)
        options = {"consistency_level": self._consistency, "timeout": CALL_TIMEOUT_S}
        with self._reaching():
            self._client.create_collection(self.name, schema=schema, index_params=index, **options)

    def put(self, keys: Sequence[str], vectors: Half, centres: Centres) -> None:
        """Add rows, or replace those of the same keys; vectors are float16 as a gallery stores them."""
        wide = vectors.astype(np.float32)
        rows = [
            {"id": key, "vector": vector, "lat": lat, "lon": lon}
            for key, vector, (lat, lon) in zip(keys, wide, centres.tolist(), strict=True)
        ]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            with self._reaching():
                self._client.upsert(self.name, rows[start : start + ROWS_AT_ONCE], timeout=CALL_TIMEOUT_S)

    def remove(self, keys: Sequence[str]) -> None:
        """Delete rows; keys that are not there are ignored."""
        for start in range(0, len(keys), ROWS_AT_ONCE):
            with self._reaching():
                self._client.delete(self.name, ids=list(keys[start : start + ROWS_AT_ONCE]), timeout=CALL_TIMEOUT_S)

    def flush(self) -> None:
        """Let Milvus seal what was written, so that it is put into the index."""
        with self._reaching():
            self._client.flush(self.name, timeout=CALL_TIMEOUT_S)

    def drop(self) -> None:
        """Delete the collection with all that is in it."""
        with self._reaching():
            self._client.drop_collection(self.name, timeout=CALL_TIMEOUT_S)

    def settle(self, pause_s: float = 0.5) -> None:
        """Wait until every flushed row is in the index: before that, filters and search parameters may have no effect.

        ``Finished`` says nothing: Milvus 2.3.5 says it with no row indexed.

        Args:
            pause_s: between two looks.

        Raises:
            IndexUnavailable: it does not get on.
        """
        before, since = -1, time.monotonic()
        while True:
            with self._reaching():
                state = self._client.describe_index(self.name, "vector", timeout=CALL_TIMEOUT_S)
            total, done = int(state["total_rows"]), int(state["indexed_rows"])
            if done >= total and not int(state["pending_index_rows"]):
                return
            if done != before:
                before, since = done, time.monotonic()
            elif time.monotonic() - since > STALLED_S:
                raise IndexUnavailable(
                    f"Milvus has indexed {done} of {total} windows and gets no further; look at its log."
                )
            time.sleep(pause_s)

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def _query(self, condition: str, fields: list[str], limit: int | None = None) -> list[dict[str, Any]]:
        with self._reaching():
            return list(
                self._client.query(
                    self.name,
                    filter=condition,
                    output_fields=fields,
                    consistency_level=self._consistency,
                    timeout=CALL_TIMEOUT_S,
                    **({} if limit is None else {"limit": limit}),
                )
            )

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn what pymilvus raises into ours; its words, which name machines, are for the log."""
        try:
            yield
        except self._errors as error:
            log.warning("Milvus: %s", error)
            raise _unavailable() from error


def _unavailable() -> IndexUnavailable:
    return IndexUnavailable(
        "Milvus, which has the vectors of this gallery, does not answer; ask again soon. Whoever runs the service: see "
        "that it runs at AEROFIX_MILVUS_URI, and look at the service's log."
    )


def _between(first: str, end: str) -> str:
    return f'id >= "{first}" and id < "{end}"'


def _rows(found: Sequence[dict[str, Any]], scores: Vectors | None = None) -> CollectionRows:
    centres = np.array([(row["lat"], row["lon"]) for row in found]).reshape(-1, 2)
    vectors = np.array([row["vector"] for row in found if "vector" in row], np.float32)
    return CollectionRows(
        [row["id"] for row in found], centres, vectors, np.empty(0, np.float32) if scores is None else scores
    )
