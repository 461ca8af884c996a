"""A map image and its entry → a tile ready for the gallery."""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from service.encoder.batcher import Batcher
from service.encoder.contract import ModelContract
from service.encoder.preprocess import preprocess
from service.errors import InvalidParameter
from service.gallery.gallery import NewTile
from service.gallery.tile import Footprint, Tile, stable_id
from service.imaging.decode import decode
from service.settings import Settings
from service.telemetry import step

THUMBNAIL_PX = 256  # as large as a candidate is shown, and about 15 kB
THUMBNAIL_QUALITY = 80


@dataclass(frozen=True)
class TileMaker:
    """Makes tiles; holds what all requests share."""

    contract: ModelContract
    batcher: Batcher
    settings: Settings

    async def make(self, data: bytes, entry: Any) -> NewTile:
        """Decode, place and embed one tile.

        Args:
            data: the image file.
            entry: the tile's JSON object: a footprint (see ``Footprint.parse``), optionally ``id`` and ``properties``.

        Raises:
            AerofixError: the image or the entry does not make a tile, or the encoder has no time for it.
        """
        if not isinstance(entry, dict):
            raise InvalidParameter('each entry of tiles must be an object such as {"bounds": [w, s, e, n]}.')
        with step("decode"):
            tile, image = await asyncio.to_thread(self._read, data, entry)
        encoded = await self.batcher.encode(preprocess(image, self.contract), self.settings.deadline_s)
        with step("thumbnail"):
            return NewTile(tile, encoded.embedding, await asyncio.to_thread(_thumbnail, image))

    def _read(self, data: bytes, entry: Mapping[str, Any]) -> tuple[Tile, Image.Image]:
        photo = decode(data, self.settings.max_image_pixels, self.contract.image_size)
        footprint = Footprint.parse(entry, photo.width, photo.height)
        tile_id = entry.get("id")
        properties = entry.get("properties")
        if not isinstance(properties, dict | None):
            raise InvalidParameter("properties must be a JSON object.")
        return Tile(
            stable_id(data, footprint) if tile_id is None else tile_id, footprint, properties or {}
        ), photo.image


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=THUMBNAIL_QUALITY)
    return out.getvalue()
