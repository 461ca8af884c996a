"""Image files that are not damaged and yet cost far more than they weigh: small pictures of very many parts."""

import io
import struct
import zlib

from PIL import Image


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def picture(side=64):
    return Image.linear_gradient("L").resize((side, side)).convert("RGB")


def jpeg_segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(segments, side=64):
    """A JPEG with these bytes before all others."""
    plain = encoded(picture(side), "JPEG")
    return plain[:2] + segments + plain[2:]


def many_scans(count, side=1024):
    """A progressive JPEG in which scans that change nothing follow the first: each goes over the whole picture."""
    data = encoded(Image.new("RGB", (side, side), (90, 120, 60)), "JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    # the last scan again and again: refinement of a channel that is already whole
    start = data.rindex(b"\xff\xda")
    return data[:end] + data[start:end] * count + data[end:]


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(chunks, side=64):
    """A PNG with these bytes behind its header."""
    plain = encoded(picture(side), "PNG")
    return plain[:33] + chunks + plain[33:]


def webp_with(chunks, side=64):
    """An extended WebP with these bytes behind its picture."""
    plain = encoded(picture(side), "WEBP", lossless=True)
    flags = struct.pack("<I", 0x08 | 0x04) + (side - 1).to_bytes(3, "little") * 2
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + flags + plain[12:] + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(kind, body):
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def tiff(entries, extra=b"", order="<"):
    """A TIFF of one directory of ``(tag, type, values)``, values as numbers or bytes; ``extra`` lies behind it."""
    sizes, formats = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}, {3: "H", 4: "I"}
    directory_size = 2 + 12 * len(entries) + 4
    at, listed, values = 8 + directory_size + len(extra), b"", b""
    for tag, type_, given in sorted(entries):
        packed = given if isinstance(given, bytes) else struct.pack(f"{order}{len(given)}{formats[type_]}", *given)
        count = len(packed) // sizes[type_]
        if len(packed) > 4:
            field = struct.pack(order + "I", at + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        listed += struct.pack(order + "HHI", tag, type_, count) + field
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(entries)) + listed + bytes(4) + extra + values


def tiff_of_strips(count, side=64):
    """A grey TIFF that says it has so many strips."""
    data = bytes(side * side)
    base = [(256, 4, [side]), (257, 4, [side]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1]), (277, 3, [1])]
    at = 8 + 2 + 12 * 9 + 4
    strips = [(273, 4, struct.pack("<I", at) * count), (278, 4, [1]), (279, 4, struct.pack("<I", side) * count)]
    return tiff(base + strips, data)


def heavy(megabytes):
    """Sound little pictures with so many megabytes of what is no picture, by name."""
    size = megabytes * 10**6
    xmp, exif = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0II*\0\x08\0\0\0"
    full = 65_533
    return {
        "jpeg-xmp": jpeg_with(jpeg_segment(0xE1, xmp.ljust(full, b":")) * (size // full)),
        "jpeg-exif": jpeg_with(jpeg_segment(0xE1, exif.ljust(full, b"E")) * (size // full)),
        "jpeg-empty-segments": jpeg_with(jpeg_segment(0xFE, b"") * (size // 4)),
        "jpeg-tables": jpeg_with(jpeg_segment(0xDB, bytes(65) * 1000) * (size // full)),
        "jpeg-fill": jpeg_with(b"\xff" * size),
        "jpeg-junk": jpeg_with(jpeg_segment(0xFE, b"") + b"\0" * size),
        "png-xmp": png_with(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0".ljust(size, b":"))),
        "png-exif": png_with(png_chunk(b"eXIf", exif[6:].ljust(size, b"E"))),
        "png-empty-chunks": png_with(png_chunk(b"nuLL", b"") * (size // 12)),
        "png-empty-pixels": png_with(png_chunk(b"IDAT", b"") * (size // 12)),
        "png-packed-text": png_with(
            png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(250_000))) * (size // 300)
        ),
        "webp-xmp": webp_with(webp_chunk(b"XMP ", b":" * size)),
        "webp-exif": webp_with(webp_chunk(b"EXIF", exif[6:].ljust(size, b"E"))),
        "webp-empty-chunks": webp_with(webp_chunk(b"nuLL", b"") * (size // 8)),
        "tiff-strips": tiff_of_strips(size // 8),
        "tiff-xmp": with_tag(700, b":" * size),
        "tiff-numbers": with_tag(33432, b"\1\0\0\0" * (size // 4)),
        "tiff-palette": with_tag(320, b"\1\0\0\0" * (size // 4)),
    }


def with_tag(number, value):
    """A small grey TIFF with one tag more; of other sizes than bytes a LONG each."""
    side = 64
    base = [(256, 4, [side]), (257, 4, [side]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1]), (277, 3, [1])]
    at = 8 + 2 + 12 * 10 + 4
    strips = [(273, 4, [at]), (278, 4, [side]), (279, 4, [side * side])]
    return tiff([*base, *strips, (number, 1 if number == 700 else 4, value)], bytes(side * side))


def light():
    """Sound pictures of the kinds that ``heavy`` makes too much of."""
    note = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    return [
        many_scans(5, side=64),
        jpeg_with(jpeg_segment(0xE1, note) + jpeg_segment(0xFE, b"") * 3),
        png_with(png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n4\n49492a00\n"))),
        png_with(png_chunk(b"IDAT", b"") * 3 + png_chunk(b"nuLL", b"")),
        webp_with(webp_chunk(b"XMP ", b"<x/>") + webp_chunk(b"nuLL", b"")),
        encoded(picture(), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 64))]),
        tiff_of_strips(64),
        with_tag(700, b"<x:xmpmeta/>"),
        encoded(picture(), "TIFF", big_tiff=True, compression="tiff_lzw"),
    ]
