"""What can go wrong, in the words of the domain.

Every error carries a sentence that names the fix, and the numbers behind it where they help. Nothing here knows
HTTP; ``service/http/problems.py`` maps each class to a status, and the command line prints the sentence.
"""

import errno


class AerofixError(Exception):
    """Base of all errors a user can meet.

    Args:
        detail: what is wrong and what to do about it; shown to the user as it is.
        numbers: machine-readable extras such as ``limit`` and ``actual``.
    """

    def __init__(self, detail: str, **numbers: float | int | str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.numbers = numbers


class ImageUndecodable(AerofixError):
    """The bytes are of an allowed image type but cannot be decoded."""


class ImageTruncated(AerofixError):
    """The image ends before its data does."""


class UnsupportedMediaType(AerofixError):
    """The bytes are of no kind that is read here, whatever the file name says."""


class ImageTooManyPixels(AerofixError):
    """The image header announces more pixels than the limit; nothing was decoded."""


class ImageTooComplex(AerofixError):
    """The image file has more parts than a picture needs, such as scans, strips or chunks; nothing was decoded."""


class ImageTooSlow(AerofixError):
    """Decoding the image takes more time than any ordinary one does; it was given up."""


class OutOfMemory(AerofixError):
    """There is not enough memory for this, such as to decode a large image."""


class BodyTooLarge(AerofixError):
    """The request body is over the byte limit."""


class InvalidFootprint(AerofixError):
    """A tile's corners, bounds or centre do not describe a place on Earth."""


class InvalidParameter(AerofixError):
    """A request parameter is outside its range or of the wrong form."""


class MissingParameter(AerofixError):
    """A required request parameter is absent."""


class Unauthorized(AerofixError):
    """The request carries no key, or one that is not known."""


class Forbidden(AerofixError):
    """The request may not do this: its key only reads, or it comes from a place that is not trusted."""


class BodyMalformed(AerofixError):
    """The request body is not what its Content-Type says."""


class BodyTooSlow(AerofixError):
    """The request's headers or body did not arrive in time."""


class HeadersTooLarge(AerofixError):
    """The request has more headers, or larger ones, than the limit."""


class UrlTooLong(AerofixError):
    """The request's URL is over the byte limit."""


class GalleryEmpty(AerofixError):
    """There is no tile to search."""


class TrackNotFound(AerofixError):
    """There is no open track of this id."""


class GalleryUnusable(AerofixError):
    """The gallery file is corrupt, of another schema, or held by another process."""


class GalleryInUse(GalleryUnusable):
    """Another process has the gallery file open."""


class TileNotFound(AerofixError):
    """There is no tile with this id."""


class MapNotFound(AerofixError):
    """There is no map of this name."""


class MapExists(AerofixError):
    """The gallery has a map of this name already."""


class ImportNotFound(AerofixError):
    """There is no import with this id."""


class SnapshotNotFound(AerofixError):
    """There is no snapshot with this name."""


class SnapshotsFull(AerofixError):
    """As many snapshots as may be are kept already; none is removed unless somebody says which."""


class ModelMismatch(AerofixError):
    """The gallery was made with another model than the one that is loaded."""


class ContractBroken(AerofixError):
    """The model file breaks a clause of the model contract."""


class DeviceUnavailable(AerofixError):
    """A device was asked for that this installation or machine cannot give."""


class ConfigurationInvalid(AerofixError):
    """Settings that do not go together, or that this installation or machine cannot follow."""


class SourceUnreadable(AerofixError):
    """A map source (GeoTIFF, image with corners) cannot be read or is not georeferenced."""


class ArchiveRefused(AerofixError):
    """A zip file is damaged, too large when unpacked, or holds what no archive of images should."""


class EmbeddingError(AerofixError):
    """The model gives no finite embedding for this image."""


class Overloaded(AerofixError):
    """The queue is full; ask again after ``retry_after_s``."""


class DeadlineExceeded(AerofixError):
    """The request waited longer than its deadline."""


class IndexUnavailable(AerofixError):
    """The engine that has the gallery's vectors does not answer."""


class GalleryReadOnly(AerofixError):
    """The gallery file may only be looked at, for its vectors are elsewhere."""


class NotReady(AerofixError):
    """The service is starting, draining or has lost its encoder."""


class StorageFull(AerofixError):
    """The gallery's disk is full; nothing of this write was kept."""


def disk_error(error: OSError, what: str, disk_of: str = "the gallery") -> StorageFull | GalleryUnusable:
    """Name the fix of an error of the disk.

    Args:
        error: what the operating system says.
        what: what could not be done, in words that name no folder.
        disk_of: what else lies on the full disk.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"No space left: {what}. Free space on the disk of {disk_of}, then try again.")
    return GalleryUnusable(f"{what} ({error.strerror}); check that the folder exists and this user may write to it.")
