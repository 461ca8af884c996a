"""``AsyncClient``: all that the service offers, as methods."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, Unpack

import anyio
import anyio.to_thread
import httpx

from aerofix import models
from aerofix.options import ImportOptions, Photo, PhotoOptions, TrackOptions, form_of, name_of
from aerofix.transport import FileUnreadable, ServiceError, Transport, open_http, reason, segment
from service.cli.packing import upload_of
from service.ground.maps import check_map_name
from service.ground.tile import check_id
from service.text import visible

POLL_S = 0.2
"""Imports are looked at this often, in seconds, which is often enough to see them move."""


class AsyncClient:
    """Calls of the HTTP interface; every method raises ``ServiceError`` for a problem, whose ``detail`` names the fix.

    A photo that cannot be read raises ``FileUnreadable``.

    A service that is busy or starting (429, or 503 with ``Retry-After``) is asked again when it says, for two minutes
    at the most.

    Args:
        url: base URL of a running service; default ``AEROFIX_URL``, or port 8000 of this machine.
        key: what it wants to be shown; default ``AEROFIX_KEY``.
        http: a prepared connection, in the place of both.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, http: httpx.AsyncClient | None = None
    ) -> None:
        self._transport = Transport(open_http(url, key) if http is None else http)
        self._call = self._transport.call

    @property
    def patience_s(self) -> float:
        """Seconds that a call waits, all its tries together, for a service that is busy; 0: it is tried once."""
        return self._transport.patience_s

    @patience_s.setter
    def patience_s(self, seconds: float) -> None:
        self._transport.patience_s = seconds

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # photos

    async def localize(self, photo: Photo, **options: Unpack[PhotoOptions]) -> models.Localization:
        """Say where a photo was taken; see ``PhotoOptions`` for what may be known of it."""
        files = [("image", (visible(name_of(photo)), await _read(photo)))]
        return await self._call(models.Localization, "POST", "/localize", files=files, data=form_of(options))

    async def open_track(self, **options: Unpack[TrackOptions]) -> models.TrackState:
        """Open a track: the photos of one flight, in the order in which they are taken."""
        return await self._call(models.TrackState, "POST", "/tracks", data=form_of(options))

    async def track_photo(
        self, track_id: str, photo: Photo, timestamp: float | str | None = None, **options: Unpack[PhotoOptions]
    ) -> models.TrackedLocalization:
        """Localize the next photo of a flight and fuse it with those before.

        Args:
            track_id: ``id`` of the track.
            photo: the next photo.
            timestamp: when it was taken: seconds on any clock, or an ISO 8601 time; None: as its EXIF says.
            options: see ``PhotoOptions``.
        """
        files = [("image", (visible(name_of(photo)), await _read(photo)))]
        form = form_of({**options, "timestamp": timestamp})
        path = f"/tracks/{segment(track_id)}/localize"
        return await self._call(models.TrackedLocalization, "POST", path, files=files, data=form)

    async def track(self, track_id: str) -> models.TrackState:
        """Tell where a flight was at its last photo."""
        return await self._call(models.TrackState, "GET", f"/tracks/{segment(track_id)}")

    async def track_history(self, track_id: str) -> models.TrackHistory:
        """Tell what was believed of a flight after each of its photos."""
        return await self._call(models.TrackHistory, "GET", f"/tracks/{segment(track_id)}/history")

    async def tracks(self) -> models.TrackList:
        """List the open tracks of the key that asks."""
        return await self._call(models.TrackList, "GET", "/tracks")

    async def delete_track(self, track_id: str) -> None:
        """Forget a track."""
        await self._transport.send("DELETE", f"/tracks/{segment(track_id)}")

    # maps

    async def add_map(
        self,
        source: str | Path,
        corners: str | Path | None = None,
        watch: Callable[[models.ImportState], None] | None = None,
        **options: Unpack[ImportOptions],
    ) -> models.ImportState:
        """Import a map and wait for the end of it; see ``send_map`` and ``wait_for_import``."""
        sent = await self.send_map(source, corners, **options)
        return await self.wait_for_import(sent.id, watch)

    async def send_map(
        self, source: str | Path, corners: str | Path | None = None, **options: Unpack[ImportOptions]
    ) -> models.ImportState:
        """Send a map, and do not wait for its import.

        When an import of the same file under the same name is under way, as after a crash, the answer is that one's.

        Args:
            source: any map: a file, a folder of tiles or rasters, or a CSV of corners; what lies beside it is sent too.
            corners: a JSON file with the corners of the picture that ``source`` is.
            options: see ``ImportOptions``.

        Raises:
            SourceUnreadable: there is no such file, or it cannot be packed.
        """
        with upload_of(Path(source), None if corners is None else Path(corners)) as (file, called):
            name = visible(called)
            with _opened(file, source) as data:
                upload: dict[str, Any] = {"files": {"file": (name, data)}, "data": form_of(options)}
                try:
                    return await self._call(models.ImportState, "POST", "/gallery/imports", data, **upload)
                except ServiceError as error:
                    extra = (error.problem and error.problem.model_extra) or {}
                    if (import_id := extra.get("import_id")) is None:
                        raise
                    under_way = await self.get_import(str(import_id))
                    if under_way.name != name:
                        raise
                    return under_way

    async def wait_for_import(
        self, import_id: str, watch: Callable[[models.ImportState], None] | None = None
    ) -> models.ImportState:
        """Wait for the end of an import, which the answer's ``state`` names.

        Args:
            import_id: ``id`` of the import.
            watch: is given each state on the way, the first and the last too.
        """
        while True:
            state = await self.get_import(import_id)
            if watch is not None:
                watch(state)
            if state.state not in ("queued", "running"):
                return state
            await anyio.sleep(POLL_S)

    async def get_import(self, import_id: str) -> models.ImportState:
        """Tell how far an import has come."""
        return await self._call(models.ImportState, "GET", f"/gallery/imports/{segment(import_id)}")

    async def imports(self) -> models.ImportList:
        """List the last imports, newest first."""
        return await self._call(models.ImportList, "GET", "/gallery/imports")

    async def cancel_import(self, import_id: str) -> models.ImportState:
        """Stop an import."""
        return await self._call(models.ImportState, "DELETE", f"/gallery/imports/{segment(import_id)}")

    async def maps(self) -> models.MapList:
        """List the maps of the gallery in the order in which they were added."""
        return await self._call(models.MapList, "GET", "/maps")

    async def map(self, name: str) -> models.MapState:
        """Describe a map.

        Raises:
            InvalidParameter: no map can have this name.
            ServiceError: there is none of this name.
        """
        check_map_name(name)
        return await self._call(models.MapState, "GET", f"/maps/{segment(name)}")

    async def delete_map(self, name: str) -> models.MapDeleted:
        """Delete a map.

        Raises:
            InvalidParameter: no map can have this name.
            ServiceError: there is none of this name.
        """
        check_map_name(name)
        return await self._call(models.MapDeleted, "DELETE", f"/maps/{segment(name)}")

    async def add_elevation(self, name: str, raster: str | Path) -> models.ElevationAdded:
        """Say how high the ground of a map is: a raster of heights above sea level, in any projection."""
        with _opened(Path(raster), raster) as data:
            path = f"/maps/{segment(name)}/elevation"
            files = {"file": (visible(Path(raster).name), data)}
            return await self._call(models.ElevationAdded, "POST", path, data, files=files)

    async def delete_elevation(self, name: str) -> models.ElevationDeleted:
        """Forget how high the ground of a map is."""
        return await self._call(models.ElevationDeleted, "DELETE", f"/maps/{segment(name)}/elevation")

    # the gallery

    async def gallery(self) -> models.GalleryState:
        """Describe the gallery."""
        return await self._call(models.GalleryState, "GET", "/gallery")

    async def model(self) -> models.Model:
        """Describe the model that the service runs."""
        return await self._call(models.Model, "GET", "/model")

    async def add_tiles(self, images: Sequence[Photo], tiles: Sequence[Mapping[str, Any]]) -> models.TilesAdded:
        """Add single pictures whose place is known; the answer says what became of each.

        Args:
            images: the pictures.
            tiles: for each an object with its place, as ``POST /gallery`` describes it: ``bounds``, ``corners``,
                ``lat``, ``lon`` and ``gsd_m``, or ``z``, ``x`` and ``y``; optionally ``id`` and ``properties``.
        """
        files = [("image", (visible(name_of(image)), await _read(image))) for image in images]
        form = {"tiles": json.dumps(list(tiles))}
        return await self._call(models.TilesAdded, "POST", "/gallery", files=files, data=form)

    async def tiles(self, limit: int = 1000, cursor: str = "0", bbox: str | None = None) -> models.TilePage:
        """List one page of the tiles whose centre lies in ``w,s,e,n``: the first, or that at the last page's cursor."""
        params = {"limit": str(limit), "cursor": cursor} | ({"bbox": bbox} if bbox else {})
        return await self._call(models.TilePage, "GET", "/gallery/tiles", params=params)

    async def delete_tile(self, tile_id: str) -> models.TilesDeleted:
        """Delete a tile.

        Raises:
            InvalidParameter: no tile can have this id.
            ServiceError: there is none with this id.
        """
        check_id(tile_id)
        return await self._call(models.TilesDeleted, "DELETE", f"/gallery/tiles/{segment(tile_id)}")

    async def delete_area(self, bbox: str) -> models.TilesDeleted:
        """Delete the tiles whose centre lies in ``w,s,e,n``."""
        return await self._call(models.TilesDeleted, "DELETE", "/gallery/tiles", params={"bbox": bbox})

    async def snapshot(self, target: str | Path) -> None:
        """Have a snapshot made, download it, and remove it from the service's folder.

        Raises:
            ServiceError: the service cannot make it or hand it out, or ``target`` cannot be written; then there is no
                such file.
        """
        made = await self._call(models.SnapshotState, "POST", "/gallery/snapshots")
        path = f"/gallery/snapshots/{segment(made.name)}"
        try:
            await self._download(path, Path(target), made.bytes)
        finally:
            with suppress(ServiceError):  # what stays there is listed by GET /gallery/snapshots
                await self._transport.send("DELETE", path)

    async def _download(self, path: str, target: Path, size: int) -> None:
        """Write what is at ``path`` to a new file, whole or not at all."""
        try:
            with _new_file(target) as file:
                async with self._transport.http.stream("GET", path) as response:
                    if response.is_error:
                        await response.aread()
                        self._transport.check(response)
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                if file.tell() != size:
                    raise ServiceError(f"{target} arrived incomplete; try again.")
        except OSError as error:
            raise ServiceError(f"{target} cannot be written: {error.strerror}.") from error
        except httpx.HTTPError as error:
            raise ServiceError(f"{target} arrived incomplete ({reason(error)}); try again.") from error


@contextmanager
def _opened(file: Path, source: str | Path) -> Iterator[BinaryIO]:
    """Open a file to send, which httpx reads in pieces."""
    try:
        data = file.open("rb")
    except OSError as error:
        raise ServiceError(f"{source} cannot be read: {error.strerror}.") from error
    with data:
        yield data


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is there afterwards, unless something goes wrong meanwhile."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


async def _read(photo: Photo) -> bytes:
    if isinstance(photo, bytes):
        return photo
    try:
        return await anyio.to_thread.run_sync(Path(photo).read_bytes)
    except OSError as error:
        raise FileUnreadable(f"the file cannot be read: {error.strerror}.") from error
