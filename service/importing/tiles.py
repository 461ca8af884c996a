"""A map image and its entry → a tile ready for the gallery."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.encoder.batcher import Batcher
from service.encoder.contract import ModelContract
from service.encoder.preprocess import preprocess
from service.errors import InvalidParameter
from service.ground.local_maps import to_int8
from service.ground.records import NewTile
from service.ground.tile import Footprint, Tile, stable_id
from service.imaging.decode import Photo, decode, open_photo
from service.imaging.decoders import Decoders
from service.settings import Settings
from service.telemetry import step

KEPT_PX = 512
"""The image that is kept of a tile has this shorter side, or the model's input size if that is larger: another model
can embed the gallery again without the map."""

KEPT_BYTES = 256 * 2**10
"""Files up to this size are kept as they are: a JPEG of 512 x 512 pixels at quality 95 takes about 200 kB. Larger ones
are encoded anew."""

KEPT_QUALITY = 92
"""They are encoded as JPEG of this quality; its noise is far below the differences that an encoder looks at."""


@dataclass(frozen=True)
class TileMaker:
    """Makes tiles; holds what all requests share.

    Embedding and local descriptors are those of the image as it was sent. A JPEG or WebP of moderate size is kept as it
    is, so embedding the gallery again with its own model gives the same; of others a JPEG is kept, which comes close.
    """

    contract: ModelContract
    batcher: Batcher
    settings: Settings
    decoders: Decoders

    async def make(self, data: bytes, entry: Any) -> NewTile:
        """Decode, place and embed one tile. A large image waits in line with others, however long that takes.

        Args:
            data: the image file.
            entry: the tile's JSON object: a footprint (see ``Footprint.parse``), optionally ``id`` and ``properties``.

        Raises:
            AerofixError: the image or the entry does not make a tile, or the encoder has no time for it.
        """
        if not isinstance(entry, dict):
            raise InvalidParameter('each entry of tiles must be an object such as {"bounds": [w, s, e, n]}.')
        with step("decode"):
            file = await self.decoders.run(open_photo, data, self.settings.max_image_pixels)
            read = partial(self._read, data, entry)
            tile, kept, pixels = await self.decoders.decode(file, read, kept_side_px(self.contract), in_line=True)
        encoded = await self.batcher.encode(pixels, self.settings.deadline_s)
        local = None if encoded.local is None else to_int8(encoded.local)
        return NewTile(tile, encoded.embedding, kept, local)

    def _read(self, data: bytes, entry: Mapping[str, Any], photo: Photo) -> tuple[Tile, bytes, NDArray[np.uint8]]:
        """The tile, the image to keep, and the model's input."""
        side_px = kept_side_px(self.contract)
        footprint = Footprint.parse(entry, photo.width, photo.height)
        tile_id = entry.get("id")
        properties = entry.get("properties")
        if not isinstance(properties, dict | None):
            raise InvalidParameter("properties must be a JSON object.")
        tile = Tile(stable_id(data, footprint) if tile_id is None else tile_id, footprint, properties or {})
        kept = data if _can_be_kept(data, photo, side_px) else _smaller(photo.image, side_px)
        return tile, kept, preprocess(photo.image, self.contract)


def kept_side_px(contract: ModelContract) -> int:
    """Return the shorter side in pixels that images are kept at, for galleries of this model."""
    return max(KEPT_PX, contract.image_size)


def model_input(kept: bytes, contract: ModelContract, max_pixels: int) -> NDArray[np.uint8]:
    """Return the model's input, uint8 ``[S, S, 3]``, from a tile's kept image.

    Raises:
        AerofixError: it cannot be decoded.
    """
    return preprocess(decode(kept, max_pixels, kept_side_px(contract)).image, contract)


def _can_be_kept(data: bytes, photo: Photo, side_px: int) -> bool:
    is_compact = data.startswith(b"\xff\xd8\xff") or data[8:12] == b"WEBP"
    return is_compact and len(data) <= KEPT_BYTES and min(photo.width, photo.height) <= side_px


def _smaller(image: Image.Image, side_px: int) -> bytes:
    """A JPEG of the image, shrunk until its shorter side is ``side_px``."""
    scale = min(1.0, side_px / min(image.size))
    out = io.BytesIO()
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=KEPT_QUALITY, subsampling="4:4:4")
    return out.getvalue()
