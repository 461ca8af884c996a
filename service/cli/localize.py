"""``aerofix localize``: where photos, folders of them and videos were taken."""

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Annotated, NamedTuple, Self

import typer

from aerofix.footage.video import Video
from aerofix.models import Problem
from aerofix.options import PhotoOptions
from service.cli.answers import ENDINGS, FORMATS, Answered, FormatName
from service.cli.asking import answers_to
from service.cli.common import DEFAULT_URL, ERROR, NOT_LOCATED, DeviceName, GalleryFile, ModelFile, Url, reach
from service.cli.report import table
from service.cli.results import Results, Stream
from service.cli.shots import each_of, is_video, new_frames_of, open_video, photos_in
from service.cli.terminal import complain, err, out, progress_bar, remark
from service.localization.looks import Effort

AT_ONCE = 4
"""So many photos are under way at a time: the service then decodes one while it matches another."""


class SearchCircle(NamedTuple):
    """A circle to search."""

    lat: float
    lon: float
    radius_m: float


def parse_prior(prior: str) -> SearchCircle:
    """Parse three numbers with commas between them; their ranges are the service's to check."""
    try:
        return SearchCircle(*map(float, prior.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter("give LAT,LON,RADIUS_M, for example 24.26,120.72,500.") from None


async def localize(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO|FOLDER|VIDEO…", help="JPEG, PNG, WebP, TIFF; folders; videos."),
    ],
    form: Annotated[
        FormatName | None, typer.Option("--format", help="How answers are written, a photo a line.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    as_geojson: Annotated[bool, typer.Option("--geojson", help="The same as --format geojson.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
    as_kml: Annotated[bool, typer.Option("--kml", help="The same as --format kml.")] = False,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="Write to this file, by its ending; one that exists is gone on with."),
    ] = None,
    prior: Annotated[
        SearchCircle | None, typer.Option(metavar="LAT,LON,RADIUS_M", parser=parse_prior, help="Search only near here.")
    ] = None,
    heading: Annotated[float | None, typer.Option(help="Compass direction of the top edge, degrees.")] = None,
    pitch: Annotated[float | None, typer.Option(help="-90 looks straight down, 0 at the horizon, degrees.")] = None,
    roll: Annotated[float | None, typer.Option(help="Clockwise, seen from behind the camera, degrees.")] = None,
    altitude: Annotated[float | None, typer.Option(help="Height above ground, metres.")] = None,
    ground_elevation: Annotated[
        float | None, typer.Option(help="Ground above sea level, metres, for photos with a GPS altitude alone.")
    ] = None,
    hfov: Annotated[float | None, typer.Option(help="Horizontal field of view, degrees.")] = None,
    maps: Annotated[list[str] | None, typer.Option("--map", help="Search only this map; repeated for several.")] = None,
    effort: Annotated[Effort, typer.Option(help="How many looks are taken while the answer is unsure.")] = "normal",
    no_exif: Annotated[
        bool, typer.Option("--no-exif", help="Read no attitude, height and lens from EXIF, or from a video's SRT.")
    ] = False,
    exif_position: Annotated[
        bool, typer.Option("--exif-position", help="Search near the position in EXIF, or in a video's SRT.")
    ] = False,
    no_refine: Annotated[bool, typer.Option("--no-refine", help="The best window's centre, and no more.")] = False,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Candidates to list.")] = 5,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Photos under way at a time; of a flight, one.")] = AT_ONCE,
    every: Annotated[float, typer.Option(min=0.01, help="Seconds from one frame of a video to the next.")] = 1.0,
    srt: Annotated[
        Path | None, typer.Option(help="What the drone wrote beside the video; default: the .SRT file of its name.")
    ] = None,
    track: Annotated[
        bool | None, typer.Option("--track/--no-track", help="Follow a flight; default: yes for videos, no for photos.")
    ] = None,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Say where photos were taken. Exit code 0: all located; 1: an error; 3: not found or ambiguous.

    With --out it speaks of all photos in the file, also of those that earlier runs have answered.
    """
    name = _format(form, {"json": as_json, "geojson": as_geojson, "csv": as_csv, "kml": as_kml}, to)
    photos = [shot for source in sources if not is_video(source) for shot in photos_in(source)]
    if srt is not None and sum(map(is_video, sources)) != 1:
        raise typer.BadParameter("--srt goes with one video.")
    videos = [open_video(source, every, srt) for source in sources if is_video(source)]
    options = PhotoOptions(
        prior=prior,
        heading_deg=heading,
        pitch_deg=pitch,
        roll_deg=roll,
        altitude_m=altitude,
        ground_elevation_m=ground_elevation,
        hfov_deg=hfov,
        maps=maps or None,
        effort=effort,
        use_exif=not no_exif,
        use_exif_position=exif_position or None,
        refine=False if no_refine else None,
        top_k=top_k,
    )
    counts: Counter[str] = Counter()
    late = 0
    with _sink(name, to) as sink:
        shots = [shot for shot in photos if shot.name not in sink.done]
        async with reach(url, gallery, model, device) as client:
            with progress_bar(err.is_terminal and (len(photos) > 1 or bool(videos))) as progress:
                task = progress.add_task("photos", total=len(shots) + _frames(videos))
                runs = [answers_to(client, each_of(shots), options, bool(track), jobs)] if shots else []
                runs += [
                    answers_to(client, new_frames_of(video, sink.done.keys()), options, track is not False, jobs)
                    for video in videos
                ]
                for run in runs:
                    async with aclosing(run) as answers:
                        async for answered in answers:
                            if isinstance(answered.answer, Problem):
                                complain(f"{answered.name}: {answered.answer.detail}")
                                late += answered.answer.status == HTTPStatus.GATEWAY_TIMEOUT
                            if not (answered.passing and to is not None):  # it is asked again by the next run
                                sink.write(answered)
                            counts[answered.status] += 1
                            progress.advance(task)
    if late:
        remark(f"not answered in time: {late}; ask again, with fewer photos at a time (--jobs 1).")
    before = Counter(sink.done.values())
    if to is not None:
        known = f"; {before.total()} from earlier runs: {_listed(before)}" if before else ""
        remark(f"{to}: {_listed(counts) or 'nothing new'}{known}")
    statuses = set(counts) | set(before)
    return ERROR if "error" in statuses else 0 if statuses <= {"located"} else NOT_LOCATED


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items())


class _Listing:
    """Writes a table of all answers at the end, also when that comes early."""

    def __init__(self) -> None:
        self.done: dict[str, str] = {}
        self._answers: list[Answered] = []

    def write(self, answered: Answered) -> None:
        self._answers.append(answered)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._answers:
            out.print(table(self._answers))


def _format(form: FormatName | None, flags: dict[FormatName, bool], to: Path | None) -> FormatName | None:
    """How answers are written: as said, or by the ending of the file."""
    said = {name for name, given in flags.items() if given} | ({form} if form is not None else set())
    if len(said) > 1:
        raise typer.BadParameter(f"give one of {', '.join(f'--{name}' for name in FORMATS)}.")
    if said or to is None:
        return next(iter(said), None)
    if to.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(f"--out {to} ends in none of {', '.join(ENDINGS)}; say how with --format.")
    return ENDINGS[to.suffix.lower()]


def _sink(name: FormatName | None, to: Path | None) -> Results | Stream | _Listing:
    if name is None:
        return _Listing()
    return Stream(FORMATS[name]) if to is None else Results(to, name)


def _frames(videos: Sequence[Video]) -> int:
    return sum(video.count() or 0 for video in videos)
