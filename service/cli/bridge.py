"""``aerofix bridge``: fixes of a flight, told to an autopilot as they come."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from aerofix.async_client import AsyncClient
from aerofix.bridge.links import open_link
from aerofix.bridge.mavlink import Mavlink, Message, Origin
from aerofix.bridge.nmea import CLAIMED, sentences
from aerofix.bridge.solution import Solution, solve
from aerofix.footage.newest import Taken, filling, newest, played
from aerofix.footage.video import Video
from aerofix.options import PhotoOptions
from aerofix.transport import ServiceError
from service.cli.common import DEFAULT_URL, DeviceName, GalleryFile, ModelFile, Url, command, reach
from service.cli.localize import SearchCircle, parse_prior
from service.cli.shots import PHOTO_ENDINGS, is_video, open_video
from service.cli.terminal import remark, say, warn
from service.errors import AerofixError, SourceUnreadable
from service.localization.looks import Effort

NOTICE = "Not for flight control: aerofix has not been certified, or flown. Treat a fix as advice and check it."

HEARTBEAT_S = 1.0
"""Heartbeats are sent this often, in seconds, as MAVLink wants them."""

RETRY_S = 1.0
"""A service that does not answer is asked about the next picture after so many seconds."""

bridge_app = typer.Typer(help="Tell an autopilot where it is. " + NOTICE, no_args_is_help=True)


def _parse_origin(text: str) -> Origin:
    try:
        return Origin(*map(float, text.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter("give LAT,LON,ALTITUDE_M, for example 24.26,120.72,35.") from None


Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="A folder that fills, a video, or a stream: rtsp://… or udp://…."),
]
GroundElevation = Annotated[
    float | None, typer.Option(help="The ground above sea level, metres; without it no altitude is told.")
]
Every = Annotated[float, typer.Option(min=0.01, help="Seconds from one frame of a video or stream to the next.")]
Latency = Annotated[float, typer.Option(min=0.0, help="Seconds from taking a picture to its coming here.")]
PriorOption = Annotated[
    SearchCircle | None, typer.Option(metavar="LAT,LON,RADIUS_M", parser=parse_prior, help="Search only near here.")
]
Heading = Annotated[float | None, typer.Option(help="Compass direction of the top edge, degrees.")]
Pitch = Annotated[float | None, typer.Option(help="-90 looks straight down, 0 at the horizon, degrees.")]
Altitude = Annotated[float | None, typer.Option(help="Height above ground, metres.")]
Hfov = Annotated[float | None, typer.Option(help="Horizontal field of view, degrees.")]
EffortOption = Annotated[Effort, typer.Option(help="How many looks are taken while the answer is unsure.")]


@command(bridge_app, "nmea")
async def nmea(
    source: Source,
    to: Annotated[
        list[str],
        typer.Option(help="/dev/ttyUSB0, pty, tcp://0.0.0.0:10110 (listens), udp://HOST:PORT; may be repeated."),
    ],
    baud: Annotated[int, typer.Option(help="Of a serial line.")] = 4800,
    satellites: Annotated[
        int, typer.Option(min=0, max=99, help="How many to claim: there are none, but readers ask for some.")
    ] = CLAIMED,
    ground_elevation: GroundElevation = None,
    every: Every = 0.5,
    latency: Latency = 0.0,
    prior: PriorOption = None,
    heading: Heading = None,
    pitch: Pitch = None,
    altitude: Altitude = None,
    hfov: Hfov = None,
    effort: EffortOption = "fast",
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Send RMC, GGA, VTG and GST sentences (NMEA 0183) for every photo that is located, and none for others."""
    options = PhotoOptions(
        prior=prior, heading_deg=heading, pitch_deg=pitch, altitude_m=altitude, hfov_deg=hfov, effort=effort
    )
    links = [await open_link(target, baud, warn) for target in to]
    try:
        for link in links:
            say(f"sends to {link.name}")

        def tell(solution: Solution) -> None:
            for link in links:
                link.send(sentences(solution, satellites))

        async with reach(url, gallery, model, device) as client:
            await _follow(client, _pictures(source, every, latency), options, ground_elevation, tell)
    finally:
        for link in links:
            link.close()
    return 0


@command(bridge_app, "mavlink")
async def mavlink(
    source: Source,
    to: Annotated[str, typer.Option(help="As pymavlink has it: udpout:127.0.0.1:14550, tcp:HOST:PORT, /dev/ttyACM0.")],
    message: Annotated[Message, typer.Option(help="GPS_INPUT, ODOMETRY or VISION_POSITION_ESTIMATE.")] = "gps-input",
    origin: Annotated[
        Origin | None,
        typer.Option(
            metavar="LAT,LON,ALTITUDE_M",
            parser=_parse_origin,
            help="Where local coordinates begin; the autopilot is told. Default: it is asked.",
        ),
    ] = None,
    fixed_camera: Annotated[
        bool, typer.Option("--fixed-camera", help="The photo's top edge faces where the nose does; tell it too.")
    ] = False,
    baud: Annotated[int, typer.Option(help="Of a serial line.")] = 115_200,
    system: Annotated[int, typer.Option(min=1, max=255, help="MAVLink's number of the aircraft.")] = 1,
    ground_elevation: GroundElevation = None,
    every: Every = 0.5,
    latency: Latency = 0.0,
    prior: PriorOption = None,
    heading: Heading = None,
    pitch: Pitch = None,
    altitude: Altitude = None,
    hfov: Hfov = None,
    effort: EffortOption = "fast",
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Send a MAVLink message for every photo that is located, and none for others."""
    options = PhotoOptions(
        prior=prior, heading_deg=heading, pitch_deg=pitch, altitude_m=altitude, hfov_deg=hfov, effort=effort
    )
    link = await asyncio.to_thread(Mavlink, to, message, origin, baud, fixed_camera, system, warn)
    say(f"sends {message} to {to}")

    async def beat() -> None:
        while True:
            link.heartbeat()
            await asyncio.sleep(HEARTBEAT_S)

    beating = asyncio.create_task(beat())
    try:
        async with reach(url, gallery, model, device) as client:
            await _follow(client, _pictures(source, every, latency), options, ground_elevation, link.send)
    finally:
        beating.cancel()
        link.close()
    return 0


def _pictures(source: str, every_s: float, latency_s: float) -> AsyncGenerator[Taken, None]:
    """The pictures of a folder, a video or a stream as they come.

    Raises:
        SourceUnreadable: it is none of these.
    """
    path = Path(source)
    if "://" in source:
        return played(Video(source, every_s), latency_s)
    if path.is_dir():
        return filling(path, PHOTO_ENDINGS, latency_s, warn)
    if is_video(path):
        return played(open_video(path, every_s))
    raise SourceUnreadable(f"{source} is no folder, no video and no stream; name one of these.")


async def _follow(
    client: AsyncClient,
    pictures: AsyncGenerator[Taken, None],
    options: PhotoOptions,
    ground_elevation_m: float | None,
    tell: Callable[[Solution], None],
) -> None:
    """Locate each newest picture, and tell where that is; a service that fails stops the telling, not the bridge."""
    remark(NOTICE)
    client.patience_s = 0.0  # the next picture is newer
    track_id: str | None = None
    answered, fused = False, 0
    try:
        async with aclosing(newest(pictures)) as latest:
            async for picture in latest:
                clock = f"{datetime.fromtimestamp(picture.time_s, UTC):%H:%M:%S.%f}"[:-5]
                try:
                    if track_id is None:
                        track_id, fused = (await client.open_track()).id, 0
                    step = await client.track_photo(track_id, picture.photo, picture.time_s, **options)
                except ServiceError as error:
                    if error.kind == "invalid-parameter" and not answered:
                        raise
                    if error.kind in (None, "track-not-found", "invalid-parameter"):  # the last: a clock was set back
                        track_id = None
                    warn(f"{clock}: {error.detail}")
                    await asyncio.sleep(RETRY_S if error.problem is None else 0.0)
                    continue
                except AerofixError as error:
                    warn(f"{clock}: {error.detail}")
                    continue
                answered = True
                solution = solve(step, picture.time_s, ground_elevation_m, first=not fused)
                fused += step.use == "fused"
                if isinstance(solution, Solution):
                    tell(solution)
                    where = f"{solution.lat:.6f} {solution.lon:.6f} ± {solution.accuracy_m:.1f} m"
                    say(f"{clock} {where}, {time.time() - picture.time_s:.1f} s after it was taken")
                else:
                    say(f"{clock} silent: {solution}")
    finally:
        if track_id is not None:
            with suppress(ServiceError):
                await client.delete_track(track_id)
