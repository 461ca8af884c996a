"""Embed a gallery again with another model, from the pixels that it keeps."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.encoder.session import Encoder
from service.errors import AerofixError, EmbeddingError, GalleryUnusable
from service.ground.local_maps import to_int8
from service.ground.maps import GroundMap
from service.ground.pyramid import Cutter
from service.ground.store.reembed import Reembedding
from service.ground.store.store import Store
from service.ground.windows import Lattice, key_of
from service.importing.build import cut_windows
from service.importing.features import blocks_of, encode, is_unit
from service.importing.plan import Plan
from service.importing.tiles import model_input
from service.settings import Settings

TILES_PER_STEP = 64
"""So many single pictures are embedded between two writes: at most these, or a piece of a map, are embedded twice when
the run is killed."""

OnProgress = Callable[[int], None]


@dataclass(frozen=True)
class Reembedded:
    """How many pictures and windows there were, how many pictures are smaller than the model's input, and the model."""

    tiles: int
    windows: int
    small: int
    model_id: str
    image_size: int


def reembed(settings: Settings, on_progress: Callable[[int, int], None]) -> Reembedded:
    """Give everything in ``settings.gallery`` the features of ``settings.model``, all in one step at the end.

    Until then the gallery is as it was; a run that was killed goes on where it was.

    Args:
        settings: which gallery, model and device.
        on_progress: told the number of pictures and places for windows that are done, and of all.

    Raises:
        ContractBroken, DeviceUnavailable: the model cannot run.
        GalleryUnusable: the gallery is damaged, or a process has it open.
        StorageFull: no space for the embeddings.
        EmbeddingError: the model fails on a picture, which is named.
    """
    encoder = Encoder.of(settings)
    contract, lattice = encoder.contract, Lattice(encoder.contract.image_size)
    with closing(Store(settings.gallery)) as store, ThreadPoolExecutor() as threads:
        work = Reembedding(store, contract.identity, contract.image_size)
        maps = {each: _levels(each, store.window_px or contract.image_size, lattice) for each in store.maps.all()}
        plans = {each: _windows_of(each, levels, lattice) for each, levels in maps.items()}
        tiles_done, tiles = work.counts()
        total, done = tiles + sum(plan.windows for plan in plans.values()), tiles_done
        on_progress(done, total)
        small = windows = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            on_progress(done, total)

        for number, plan in plans.items():
            windows += _embed_map(store, work, encoder, settings.max_batch, number, plan, step)
        small = _embed_tiles(work, encoder, settings, threads, step)
        work.finish({each.number: levels for each, levels in maps.items()})
    return Reembedded(tiles, windows, small, contract.model_id, contract.image_size)


def _levels(known: GroundMap, window_px: int, lattice: Lattice) -> tuple[int, ...]:
    """The levels of a map for a model with another input: windows of as much ground, of pixels that are kept."""
    before = Lattice(window_px)
    wanted = {lattice.level_of(before.side_m(zoom, known.lat), known.lat) for zoom in known.levels}
    kept = {zoom for zoom in wanted if known.min_zoom <= zoom <= known.max_zoom}
    return tuple(sorted(kept or {known.max_zoom}, reverse=True))


def _windows_of(known: GroundMap, levels: tuple[int, ...], lattice: Lattice) -> Plan:
    return Plan(lattice, known.bounds, levels, known.min_zoom, known.max_zoom)


def _embed_map(
    store: Store, work: Reembedding, encoder: Encoder, max_batch: int, known: GroundMap, plan: Plan, step: OnProgress
) -> int:
    """Embed the windows of a map that have no new embedding yet. Returns how many there are."""
    lattice, has_local = Lattice(encoder.contract.image_size), encoder.contract.local_shape is not None
    stored = Cutter(lambda zoom, x, y: store.maps.tile(key_of(known.number, zoom, y, x)))
    before = [ids for ids, _ in store.maps.windows(known.number)]
    same = store.window_px == lattice.side_px  # else its windows are others
    searched = set(np.concatenate(before).tolist()) if before and same else None
    done, count = work.pieces(known.number), 0
    for piece in (piece for piece in plan.pieces if piece.kind == "embed"):
        if piece.first not in done:
            cuts = cut_windows(piece, known.number, stored, lattice, known.overlap, has_local).cuts
            features = encode(encoder, [cut.pixels for cut in cuts], max_batch)
            kept = [i for i, cut in enumerate(cuts) if cut.searched and (searched is None or cut.key in searched)]
            bad = next((cut for cut, vector in zip(cuts, features.embedding, strict=True) if not is_unit(vector)), None)
            if bad is not None:
                raise EmbeddingError(f"the model gives no finite embedding for a window of the map {known.name}.")
            ids = np.array([cuts[i].key for i in kept], np.int64)
            embeddings = features.embedding[kept].astype(np.float16)
            work.put_piece(known.number, piece.first, ids, embeddings, blocks_of(cuts, features))
            count += len(kept)
        step(len(piece))
    return count


def _embed_tiles(
    work: Reembedding, encoder: Encoder, settings: Settings, threads: ThreadPoolExecutor, step: OnProgress
) -> int:
    """Embed the single pictures that have no new embedding yet. Returns how many are smaller than the model's input."""
    contract, small = encoder.contract, 0

    def read(tile: tuple[int, str, bytes]) -> NDArray[np.uint8]:
        try:
            return model_input(tile[2], contract, settings.max_image_pixels)
        except AerofixError as error:
            raise GalleryUnusable(f"the image of tile {tile[1]} cannot be read: {error.detail}") from error

    for tiles in work.pending(TILES_PER_STEP):
        small += sum(_shorter_side(image) < contract.image_size for _, _, image in tiles)
        features = encode(encoder, list(threads.map(read, tiles)), settings.max_batch)
        good = [is_unit(vector) for vector in features.embedding]
        if not all(good):
            name = tiles[good.index(False)][1]
            raise EmbeddingError(f"the model gives no finite embedding for tile {name}; delete it, then try again.")
        maps = None if features.local is None else [to_int8(local) for local in features.local]
        work.put([number for number, _, _ in tiles], features.embedding.astype(np.float16), maps)
        step(len(tiles))
    return small


def _shorter_side(image: bytes) -> int:
    return min(Image.open(io.BytesIO(image)).size)
