"""Photo → the square that is compared with tiles: north-up, and of a tile's ground size where these are known."""

import math

from PIL import Image, ImageStat

from service.encoder.preprocess import center_square
from service.imaging.decode import Photo


def ground_width_m(altitude_m: float, hfov_deg: float) -> float:
    """Ground that the photo's width covers, for a camera that looks straight down: 2 · h · tan(hfov / 2)."""
    return 2 * altitude_m * math.tan(math.radians(hfov_deg) / 2)


def make_view(
    photo: Photo,
    heading_deg: float | None = None,
    width_m: float | None = None,
    tile_side_m: float | None = None,
) -> Image.Image:
    """Cut the view to search with out of a photo.

    Args:
        photo: the decoded photo.
        heading_deg: compass direction of its top edge; None leaves it as it is.
        width_m: ground that its width covers, in metres.
        tile_side_m: side of the gallery's tiles; with ``width_m``, a photo that shows more than a tile is cropped to
            one. One that shows less is left as it is: there is nothing to add.

    Returns:
        A square RGB image around the photo's centre.
    """
    image = photo.image
    if heading_deg is not None:
        image = north_up(image, heading_deg)
    side_px = min(image.size)
    if width_m is not None and tile_side_m is not None:
        side_px = min(side_px, max(1, round(tile_side_m / width_m * image.width)))
    return center_square(image, side_px)


def north_up(image: Image.Image, heading_deg: float) -> Image.Image:
    """Turn an image whose top edge faces ``heading_deg`` about its centre until its top faces north.

    The size stays; corners that the photo does not show get its mean colour, which disturbs an embedding least.
    """
    if heading_deg % 360 == 0:
        return image
    mean = tuple(round(channel) for channel in ImageStat.Stat(image).mean)
    # Pillow turns counter-clockwise; a top edge that faces east must turn clockwise, to the right.
    return image.rotate(-heading_deg, Image.Resampling.BICUBIC, fillcolor=mean)
