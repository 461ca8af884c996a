"""Embed a gallery again with another model, from the images that it keeps."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import AerofixError, EmbeddingError, GalleryUnusable
from service.ground.local_maps import to_int8
from service.ground.store.reembed import Reembedding
from service.ground.store.store import Store
from service.importing.tiles import model_input
from service.settings import Settings

TILES_PER_STEP = 64
"""Tiles between two writes: at most these are embedded twice when the run is killed."""

UNIT_TOLERANCE = 1e-2
"""As for photos: reduced precision leaves a unit vector within 1e-3; a failed image gives 0 or NaN."""


@dataclass(frozen=True)
class Reembedded:
    """What was done: number of tiles, how many of their images are smaller than the model's input, and the model."""

    tiles: int
    small: int
    model_id: str
    image_size: int


def reembed(settings: Settings, on_progress: Callable[[int, int], None]) -> Reembedded:
    """Give all tiles of ``settings.gallery`` the features of ``settings.model``, all in one step at the end.

    Until then the gallery is as it was; a run that was killed goes on where it was.

    Args:
        settings: which gallery, model and device.
        on_progress: told the number of tiles that are done, and of all.

    Raises:
        ContractBroken, DeviceUnavailable: the model cannot run.
        GalleryUnusable: the gallery is damaged, or a process has it open.
        StorageFull: no space for the embeddings.
        EmbeddingError: the model fails on a tile, which is named.
    """
    from service.encoder.session import Encoder  # loads onnxruntime, which the other commands do without

    encoder = Encoder.of(settings)
    contract, at_once = encoder.contract, encoder.useful_batch(settings.max_batch)
    small = 0
    with closing(Store(settings.gallery)) as store, ThreadPoolExecutor() as threads:
        work = Reembedding(store, contract.identity)
        done, total = work.counts()
        on_progress(done, total)

        def read(tile: tuple[int, str, bytes]) -> NDArray[np.uint8]:
            try:
                return model_input(tile[2], contract, settings.max_image_pixels)
            except AerofixError as error:
                raise GalleryUnusable(f"the image of tile {tile[1]} cannot be read: {error.detail}") from error

        for tiles in work.pending(TILES_PER_STEP):
            inputs = list(threads.map(read, tiles))
            small += sum(_shorter_side(image) < contract.image_size for _, _, image in tiles)
            batches = range(0, len(tiles), at_once)
            features = [encoder.encode(np.stack(inputs[start : start + at_once])) for start in batches]
            embeddings = np.concatenate([batch.embedding for batch in features])
            maps = [to_int8(local) for batch in features if batch.local is not None for local in batch.local]
            good = np.abs(np.linalg.norm(embeddings, axis=1) - 1) < UNIT_TOLERANCE  # false for NaN
            if not good.all():
                name = tiles[int(np.argmin(good))][1]
                raise EmbeddingError(f"the model gives no finite embedding for tile {name}; delete it, then try again.")
            work.put([number for number, _, _ in tiles], embeddings.astype(np.float16), maps or None)
            done += len(tiles)
            on_progress(done, total)
        work.finish()
    return Reembedded(total, small, contract.model_id, contract.image_size)


def _shorter_side(image: bytes) -> int:
    return min(Image.open(io.BytesIO(image)).size)
