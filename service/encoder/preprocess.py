"""Image to model input. Training uses the same convention, so it may not change without a new contract version.

``squash``: the whole image is resized to S×S. ``center_crop``: the centre square is cut out and resized to S×S. Both
resize with Pillow's BICUBIC, which widens its kernel when shrinking and so antialiases.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.encoder.contract import ModelContract


def center_square(image: Image.Image, side_px: int | None = None) -> Image.Image:
    """Cut the centre square of ``side_px`` pixels (default: the largest) out of an image."""
    side = min(image.size) if side_px is None else side_px
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def preprocess(image: Image.Image | NDArray[np.uint8], contract: ModelContract) -> NDArray[np.uint8]:
    """Bring an RGB image to the model's input.

    Args:
        image: RGB, as a Pillow image or uint8 ``[H, W, 3]``.
        contract: says the size S and how to resize.

    Returns:
        uint8 ``[S, S, 3]``.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if contract.resize == "center_crop":
        picture = center_square(picture)
    size = (contract.image_size, contract.image_size)
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
