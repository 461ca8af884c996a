"""One shard, from the source to its file: the same for a process here, a worker of Ray, or a machine by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from service.bulk.job import Job, Outline
from service.bulk.pixels import MAP, SourcePixels
from service.bulk.table import Done, Marker, Row, Writer
from service.encoder.contract import check_contract
from service.encoder.session import Encoder
from service.errors import EmbeddingError, InvalidParameter
from service.ground.local_maps import pack
from service.ground.windows import cells_of, zooms_of
from service.importing.build import cut_windows
from service.importing.features import blocks_of, encode, is_unit
from service.importing.plan import PlanPiece


def embed_shard(job: Job, shard: int, on_piece: Callable[[int], object] = lambda places: None) -> Marker:
    """Make a shard, unless it is whole already; one of another job is not written over.

    What is in it depends on the source, the options and the model alone: not on the number of processes, nor on what
    was interrupted before.

    Args:
        job: what there is to do.
        shard: its number, from 0.
        on_piece: told how many places of the plan are done.

    Returns:
        What is in the file.

    Raises:
        AerofixError: the source cannot be read, the model not be run, or the file not be written.
        InvalidParameter: there is no such shard, or the folder has that of another job.
    """
    if not 0 <= shard < job.shards:
        raise InvalidParameter(f"shards are counted from 0 to {job.shards - 1}; got {shard}.")
    path, started = job.path(shard), time.monotonic()
    with job.opened(check_contract(job.settings.model)) as outline:
        there = Marker.of(path)
        if there is not None:
            if there.job != outline.identity:
                raise InvalidParameter(
                    f"{path} is a shard of another source, model or options; name another --out, or delete those "
                    "shards."
                )
            return there
        encoder, writer = Encoder.of(job.settings), Writer(path)
        try:
            pixels = SourcePixels(outline.mosaic, outline.plan)
            for number, piece in outline.share(shard):
                writer.put(*_made(outline, job, encoder, pixels, number, piece))
                on_piece(len(piece))
            return writer.finish(outline.identity, shard, list(outline.mosaic.notes), time.monotonic() - started)
        finally:
            writer.abandon()


def _made(
    outline: Outline, job: Job, encoder: Encoder, pixels: SourcePixels, number: int, piece: PlanPiece
) -> tuple[Done, list[Row]]:
    """The rows of a piece."""
    if piece.kind != "embed":
        tiles = pixels.made(piece)
        return Done(number, 0, 0), [(*_place(key), data, None, None) for key, data in tiles.items()]
    local = outline.contract.local_shape is not None
    windows = cut_windows(piece, MAP, pixels.cutter, outline.lattice, outline.map.overlap, local)
    features = encode(encoder, [cut.pixels for cut in windows.cuts], job.settings.max_batch)
    blocks = blocks_of(windows.cuts, features)
    rows: list[Row] = []
    for cut, vector in zip(windows.cuts, features.embedding, strict=True):
        if not is_unit(vector):
            raise EmbeddingError(f"the model gives no finite embedding for a window of {job.source.name}.")
        embedding = vector.astype("<f2").tobytes() if cut.searched else None
        block = pack(blocks[cut.key]) if cut.key in blocks else None
        rows.append((*_place(cut.key), None, embedding, block))
    return Done(number, windows.empty + windows.flat, windows.flat), rows


def _place(key: int) -> tuple[int, int, int]:
    """Zoom, row and column of an id."""
    ids = np.array([key], np.int64)
    rows, columns = cells_of(ids)
    return int(zooms_of(ids)[0]), int(rows[0]), int(columns[0])
