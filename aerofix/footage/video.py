"""Frames of a video or a live stream, as photos that carry what the drone wrote beside them."""

import io
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image

from aerofix.footage.clock import StreamClock
from aerofix.footage.srt import Telemetry, moment_at
from service.errors import DeviceUnavailable, SourceUnreadable

if TYPE_CHECKING:
    import av.container

ENDINGS = {".mp4", ".mov", ".m4v", ".mkv", ".avi", ".ts", ".mts", ".webm"}
"""Files that end like this are taken for videos."""

QUALITY = 92
"""Frames become JPEGs of this quality; above it files grow, and answers stay the same to a centimetre."""

SILENCE_S = 10.0
"""A live stream counts as ended after so many seconds without a packet."""

_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" {}/></rdf:RDF></x:xmpmeta>'
)


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        time_s: seconds from the start of the video.
        jpeg: the file of a photo, with EXIF and XMP as the drone would write them into one.
        taken_s: of a live stream, when it was taken, in seconds of this machine's clock; None for a file.
    """

    time_s: float
    jpeg: bytes
    taken_s: float | None = None


@dataclass(frozen=True)
class Video:
    """A video or a live stream that PyAV (FFmpeg) opens; it needs the extra ``video``.

    Args:
        source: a file, or an address such as ``rtsp://host/path`` or ``udp://0.0.0.0:5600``.
        every_s: seconds from one frame that is taken to the next.
        telemetry: what was written beside it.
    """

    source: str | Path
    every_s: float = 1.0
    telemetry: Sequence[Telemetry] = ()

    @property
    def live(self) -> bool:
        """Whether it is a stream, which does not wait."""
        return "://" in str(self.source)

    def count(self) -> int | None:
        """Count the frames that will be taken; None when the video does not say how long it is.

        Raises:
            SourceUnreadable: it is no video.
        """
        with self._open() as container:
            return None if container.duration is None else int(container.duration / 1e6 / self.every_s) + 1

    def frames(self) -> Generator[Frame, None, None]:
        """Decode the video and take the frames that are due; those of a live stream's first second only set its clock.

        Raises:
            SourceUnreadable: it is no video, or cannot be read further.
        """
        import av

        due_s, start_s, clock = 0.0, None, StreamClock()
        try:
            with self._open() as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for image in container.decode(stream):
                    at_s = image.time or 0.0
                    taken_s = clock.taken_s(at_s, time.time()) if self.live else None
                    if self.live and taken_s is None:
                        continue
                    start_s = at_s if start_s is None else start_s
                    time_s = at_s - start_s
                    if time_s + 1e-6 < due_s:
                        continue
                    due_s = max(due_s + self.every_s, time_s)
                    picture = Image.fromarray(image.to_ndarray(format="rgb24"))
                    yield Frame(time_s, as_photo(picture, moment_at(self.telemetry, time_s)), taken_s)
        except av.error.FFmpegError as error:
            raise self._unreadable(error) from error

    def _open(self) -> "av.container.InputContainer":
        try:
            import av
        except ImportError as error:
            raise DeviceUnavailable("videos need PyAV; `pip install aerofix[video]`.") from error
        options = {"rtsp_transport": "tcp"} if str(self.source).startswith("rtsp:") else {}
        try:
            container = av.open(str(self.source), options=options, timeout=SILENCE_S if self.live else None)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._unreadable(error) from error
        if not container.streams.video:
            container.close()
            raise SourceUnreadable(f"{self.source} has no pictures; name a video.")
        return container

    def _unreadable(self, error: Exception) -> SourceUnreadable:
        if type(error).__name__ == "ExitError":  # FFmpeg was told to leave because the time was over
            return SourceUnreadable(f"{self.source} has been silent for {SILENCE_S:.0f} s; start it again.")
        what = getattr(error, "strerror", None) or str(error)
        return SourceUnreadable(f"{self.source} cannot be read as a video: {what}.")


def as_photo(image: Image.Image, moment: Telemetry | None) -> bytes:
    """Make a JPEG that carries what is known of the camera where a DJI drone writes it into its photos."""
    exif, described = Image.Exif(), dict[str, str]()
    details: dict[int, Any] = exif.get_ifd(ExifTags.IFD.Exif)
    if moment is not None:
        if moment.attitude_deg is not None:
            for name, angle in zip(("Yaw", "Pitch", "Roll"), moment.attitude_deg, strict=True):
                described[f"drone-dji:Gimbal{name}Degree"] = f"{angle:+.2f}"
        if moment.height_m is not None:
            described["drone-dji:RelativeAltitude"] = f"{moment.height_m:+.2f}"
        if moment.focal_mm is not None:
            details[ExifTags.Base.FocalLengthIn35mmFilm] = round(moment.focal_mm)
        if moment.taken_at is not None:
            details[ExifTags.Base.DateTimeOriginal] = moment.taken_at.strftime("%Y:%m:%d %H:%M:%S")
            details[ExifTags.Base.SubsecTimeOriginal] = f"{moment.taken_at.microsecond // 1000:03d}"
        if moment.position is not None:
            exif.get_ifd(ExifTags.IFD.GPSInfo).update(_gps(*moment.position))
    out = io.BytesIO()
    attributes = " ".join(f"{name}={quoteattr(value)}" for name, value in described.items())
    xmp = {"xmp": _XMP.format(attributes).encode()} if described else {}
    image.save(out, "JPEG", quality=QUALITY, exif=exif, **xmp)
    return out.getvalue()


def _gps(lat: float, lon: float) -> dict[int, Any]:
    """A position as EXIF has it (EXIF 2.32, section 4.6.6); degrees with their fraction, to a centimetre."""
    return {
        ExifTags.GPS.GPSLatitudeRef: "N" if lat >= 0 else "S",
        ExifTags.GPS.GPSLatitude: (abs(lat), 0.0, 0.0),
        ExifTags.GPS.GPSLongitudeRef: "E" if lon >= 0 else "W",
        ExifTags.GPS.GPSLongitude: (abs(lon), 0.0, 0.0),
    }


def beside(video: Path) -> Path | None:
    """Find the subtitle file that a drone left beside its video; None when there is none."""
    return next((each for ending in (".SRT", ".srt") if (each := video.with_suffix(ending)).is_file()), None)
