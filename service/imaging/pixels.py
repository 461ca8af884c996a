"""Pixels of any kind → 8-bit RGB, in bands, so that a large picture is never in memory a second time."""

from PIL import Image

BAND_PX = 250_000
"""So many pixels are converted at a time: a megabyte in each of the forms on the way."""

_BACKGROUND = (128, 128, 128)  # under transparent pixels: mid-grey, as far from every ground as can be


def to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Reduce any Pillow mode to 8-bit RGB; transparency becomes grey, 16-bit values keep their high byte.

    Args:
        image: its pixels are decoded.
        factor: both sides are divided by it, and rounded up: each pixel becomes the mean of ``factor`` x ``factor``.

    Returns:
        The image itself where nothing is to be done.
    """
    if factor == 1 and image.mode == "RGB" and "transparency" not in image.info:
        return image
    width, height = image.size
    rgb = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = factor * max(1, BAND_PX // (width * factor))
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        rgb.paste(_flat(band).reduce(factor), (0, top // factor))
    return rgb


def _flat(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # "I;16" and its byte orders, or "I" holding 16-bit values
        high_byte = image.convert("I").point(lambda value: value * (1 / 256))  # a factor, not a function of each
        return high_byte.convert("L").convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        background = Image.new("RGBA", shown.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(background, shown).convert("RGB")
    return image.convert("RGB")
