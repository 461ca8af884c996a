"""Shards put together: a map in a gallery file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.bulk.job import plan_of
from service.bulk.table import Marker, Row, check_shard, pieces_in
from service.encoder.contract import ModelContract
from service.errors import MapExists, ModelMismatch, SourceUnreadable
from service.ground.gallery import Gallery
from service.ground.local_maps import unpack
from service.ground.maps import GroundMap, NewMap, check_map_name
from service.ground.store.imports import Step, new_import_id
from service.ground.windows import Lattice, key_of
from service.importing.plan import Plan


@dataclass(frozen=True)
class WholeJob:
    """All shards of a map, checked.

    Attributes:
        markers: of the shards' files, in their order.
        map: what they make together.
        window_px: side of its windows, pixels.
    """

    markers: dict[Path, Marker]
    map: NewMap
    window_px: int


def whole_job(folder: Path, contract: ModelContract, name: str | None) -> WholeJob:
    """Return the shards of a folder, when all are there, undamaged, and belong together.

    Args:
        folder: of the shards.
        contract: of the model that photos will be compared with.
        name: of the map, None for what the shards say.

    Raises:
        SourceUnreadable: some are missing or damaged, or of different jobs.
        ModelMismatch: they were made with another model.
        InvalidParameter: the name is none that a map may have.
    """
    markers = _markers(folder)
    job = next(iter(markers.values())).job
    if job["model"] != contract.identity:
        raise ModelMismatch(
            f"the shards of {folder} were made with another model; give it with --model, or embed anew."
        )
    told = job["map"] | {"bounds": tuple(job["map"]["bounds"]), "levels": tuple(job["map"]["levels"])}
    new = NewMap(**told | ({} if name is None else {"name": name}))
    check_map_name(new.name)
    for path, marker in markers.items():
        check_shard(path, marker)
    return WholeJob(markers, new, contract.image_size)


def _markers(folder: Path) -> dict[Path, Marker]:
    """The markers of all shards in their order.

    Raises:
        SourceUnreadable: some are missing, or of different jobs.
    """
    found = {path.with_suffix(".parquet"): Marker.of(path) for path in sorted(folder.glob("shard-*.json"))}
    markers = {path: marker for path, marker in found.items() if marker is not None}
    if not markers:
        raise SourceUnreadable(f"{folder} holds no whole shard; make them with: aerofix embed SOURCE --out {folder}")
    first = next(iter(markers.values()))
    if strangers := [path.name for path, marker in markers.items() if marker.job != first.job]:
        raise SourceUnreadable(
            f"{folder} holds shards of different jobs ({', '.join(strangers):.200}): other sources, models or options. "
            "Keep those of one."
        )
    missing = set(range(first.job["shards"])) - {marker.shard for marker in markers.values()}
    if missing:
        named = ", ".join(map(str, sorted(missing)[:10]))
        raise SourceUnreadable(
            f"{len(missing)} of {first.job['shards']} shards are missing in {folder} (counted from 0: {named}); run "
            "the same aerofix embed again, it makes what is missing."
        )
    return dict(sorted(markers.items(), key=lambda item: item[1].shard))


def load(job: WholeJob, gallery: Gallery, replace: bool, on_piece: Callable[[int, int], object]) -> GroundMap:
    """Make a map of shards. Until all is stored, nobody finds it; on failure nothing is left.

    Args:
        job: the shards.
        gallery: gets the map; of the same model as they are.
        replace: take the place of a map of this name.
        on_piece: told the places that are done, and of how many.

    Raises:
        MapExists: the name is taken.
    """
    new = job.map
    if gallery.maps.find(new.name) is not None and not replace:
        raise MapExists(f"the gallery has a map {new.name!r} already; give another --map, or say --replace.")
    plan, import_id = plan_of(new, Lattice(job.window_px)), new_import_id()
    gallery.imports.create(new.origin, {"map": new.name, "replace": replace}, len(plan), import_id)
    gallery.imports.begin(import_id, len(plan))
    made = gallery.maps.create(new, False, import_id)
    try:
        for path, marker in job.markers.items():
            gallery.imports.warn(import_id, marker.warnings)
            _put_shard(path, marker, gallery, plan, made, import_id, on_piece)
        gallery.maps.finish(made.number)
    except BaseException:
        gallery.imports.finish(import_id, "failed")
        gallery.maps.delete(made.number)
        raise
    gallery.imports.finish(import_id, "done")
    return gallery.maps.get(new.name)


def _put_shard(
    path: Path,
    marker: Marker,
    gallery: Gallery,
    plan: Plan,
    made: GroundMap,
    import_id: str,
    on_piece: Callable[[int, int], object],
) -> None:
    for done, rows in pieces_in(path, marker):
        piece = plan.pieces[done.piece]
        if piece.kind == "embed":
            _put_windows(gallery, made.number, rows, Step(import_id, piece.end, done.skipped, done.flat))
        else:
            tiles = {key: tile for key, (*_, tile, _, _) in _keyed(made.number, rows).items() if tile is not None}
            gallery.maps.put_tiles(tiles, Step(import_id, piece.end))
        on_piece(piece.end, len(plan))


def _put_windows(gallery: Gallery, number: int, rows: list[Row], step: Step) -> None:
    keyed = _keyed(number, rows)
    vectors = {key: vector for key, (*_, vector, _) in keyed.items() if vector is not None}
    blocks = {key: unpack(block) for key, (*_, block) in keyed.items() if block is not None}
    embeddings = [np.frombuffer(vector, "<f2").astype(np.float32) for vector in vectors.values()]
    gallery.maps.put_windows(number, np.array(list(vectors), np.int64), embeddings, blocks, step)


def _keyed(number: int, rows: list[Row]) -> Mapping[int, Row]:
    """Rows by the ids that their places have in a map of this number."""
    return {key_of(number, zoom, row, column): each for each in rows for zoom, row, column in [each[:3]]}
