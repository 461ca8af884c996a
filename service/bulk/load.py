"""Shards put together: a map in a gallery file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from service.bulk.job import plan_of
from service.bulk.table import Marker, Row, pieces_in
from service.encoder.contract import ModelContract
from service.errors import MapExists, ModelMismatch, SourceUnreadable
from service.ground.gallery import Gallery
from service.ground.local_maps import unpack
from service.ground.maps import GroundMap, NewMap, check_map_name
from service.ground.store.imports import Step, new_import_id
from service.ground.windows import Lattice, key_of
from service.importing.plan import Plan


def whole_job(folder: Path) -> dict[Path, Marker]:
    """The shards of a folder in their order, when all are there and belong together.

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


def load(
    folder: Path,
    gallery: Gallery,
    contract: ModelContract,
    name: str | None,
    replace: bool,
    on_piece: Callable[[int, int], object],
) -> GroundMap:
    """Make a map of a folder of shards. Until all is stored, nobody finds it; on failure nothing is left.

    Args:
        folder: of the shards.
        gallery: gets the map.
        contract: of the gallery's model.
        name: of the map, None for what the shards say.
        replace: take the place of a map of this name.
        on_piece: told the places that are done, and of how many.

    Raises:
        SourceUnreadable: the shards are not whole.
        ModelMismatch: they were made with another model.
        MapExists: the name is taken.
        InvalidParameter: it is none that a map may have.
    """
    markers = whole_job(folder)
    job = next(iter(markers.values())).job
    if job["model"] != contract.identity:
        raise ModelMismatch(
            f"the shards of {folder} were made with another model; give it with --model, or embed anew."
        )
    told = job["map"] | {"bounds": tuple(job["map"]["bounds"]), "levels": tuple(job["map"]["levels"])}
    new = NewMap(**told | ({} if name is None else {"name": name}))
    check_map_name(new.name)
    if gallery.maps.find(new.name) is not None and not replace:
        raise MapExists(f"the gallery has a map {new.name!r} already; give another --map, or say --replace.")
    plan, import_id = plan_of(new, Lattice(contract.image_size)), new_import_id()
    gallery.imports.create(new.origin, {"map": new.name, "replace": replace}, len(plan), import_id)
    gallery.imports.begin(import_id, len(plan))
    made = gallery.maps.create(new, False, import_id)
    try:
        for path, marker in markers.items():
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
