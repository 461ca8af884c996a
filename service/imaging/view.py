"""Photo → the square that is compared with tiles: north-up, and of a tile's ground size where these are known."""

import math

from PIL import Image, ImageStat

from service.encoder.preprocess import center_square
from service.imaging.decode import Photo


def ground_width_m(altitude_m: float, hfov_deg: float) -> float:
    """Ground that the photo's width covers, for a camera that looks straight down: 2 · h · tan(hfov / 2).

    Never 0, which positive numbers of hostile metadata can multiply to.
    """
    return max(1e-6, 2 * altitude_m * math.tan(math.radians(hfov_deg) / 2))


def kept_share(short_side_m: float, tile_side_m: float | None) -> float:
    """Share of a photo's shorter side, in (0, 1], that is compared with tiles.

    A photo that shows more than a tile is cropped to one; one that shows less is left: there is nothing to add.

    Args:
        short_side_m: ground that the photo's shorter side covers.
        tile_side_m: side of the tiles to compare with; None crops nothing.
    """
    return 1.0 if tile_side_m is None else min(1.0, tile_side_m / short_side_m)


def make_view(photo: Photo, heading_deg: float | None = None, share: float = 1.0) -> Image.Image:
    """Cut the view to search with out of a photo.

    Args:
        photo: the decoded photo.
        heading_deg: compass direction of its top edge; None leaves it as it is.
        share: of its shorter side, see ``kept_share``.

    Returns:
        A square RGB image around the photo's centre.
    """
    side_px = max(1, round(share * min(photo.image.size)))
    if heading_deg is None or heading_deg % 360 == 0:
        return center_square(photo.image, side_px)
    return north_up(photo.image, heading_deg, side_px)


def north_up(image: Image.Image, heading_deg: float, side_px: int) -> Image.Image:
    """Cut the square round the centre of an image out of it whose top faces north.

    Where the image ends, the square gets its mean colour, which disturbs an embedding least.

    Args:
        image: its top edge faces ``heading_deg``.
        heading_deg: compass direction, degrees.
        side_px: of the square, in pixels of the image.
    """
    cos, sin = math.cos(math.radians(heading_deg)), math.sin(math.radians(heading_deg))
    # A pixel (x, y) right of and below the square's centre shows the image at (x cos + y sin, y cos - x sin) from its.
    half = side_px / 2
    left, top = image.width / 2 - half * (cos + sin), image.height / 2 - half * (cos - sin)
    mean = tuple(round(channel) for channel in ImageStat.Stat(image.reduce(max(1, side_px // 64))).mean)
    return image.transform(
        (side_px, side_px),
        Image.Transform.AFFINE,
        (cos, sin, left, -sin, cos, top),
        Image.Resampling.BILINEAR,  # enough: the square is shrunk to the model's input with antialiasing
        fillcolor=mean,
    )
