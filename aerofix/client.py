"""``Client`` and ``Localizer``: ``AsyncClient`` for programs without an event loop."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from weakref import finalize

from anyio.from_thread import start_blocking_portal
from pydantic import ValidationError

from aerofix import models
from aerofix.async_client import AsyncClient
from aerofix.local import in_process
from aerofix.options import ImportOptions, Photo, PhotoOptions, TrackOptions
from service.errors import ConfigurationInvalid, GalleryUnusable
from service.settings import Settings

T = TypeVar("T")


class Client:
    """Calls of the HTTP interface that wait for their answers; ``AsyncClient`` has the same methods and describes them.

    Several threads may use one client at once. Use it in a ``with`` statement, or ``close`` it. A forgotten one is
    closed when nothing refers to it any more, at the latest when the program ends.

    Args:
        url: base URL of a running service; default ``AEROFIX_URL``, or port 8000 of this machine.
        key: what it wants to be shown; default ``AEROFIX_KEY``.
    """

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self._open(AsyncClient(url, key))

    def _open(self, client: AbstractAsyncContextManager[AsyncClient]) -> None:
        """Run a client in an event loop of its own, in a thread."""
        with ExitStack() as opened:
            self._portal = opened.enter_context(start_blocking_portal(name="aerofix"))
            self._client = opened.enter_context(self._portal.wrap_async_context_manager(client))
            self._opened = opened.pop_all()
        # a program that forgets the client must end as well, while the loop's thread can still be told
        self._closing = finalize(self, self._opened.close)

    def close(self) -> None:
        """Close the connection, or the gallery file."""
        self._closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.detach()
        self._opened.__exit__(kind, error, trace)  # what is under way is given up when the caller is interrupted

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            return self._portal.call(_awaited, call)
        finally:
            call.close()  # nothing happens unless the client was closed before

    # photos

    def localize(self, photo: Photo, **options: Unpack[PhotoOptions]) -> models.Localization:
        """Say where a photo was taken; see ``PhotoOptions`` for what may be known of it."""
        return self._wait(self._client.localize(photo, **options))

    def open_track(self, **options: Unpack[TrackOptions]) -> models.TrackState:
        """Open a track: the photos of one flight, in the order in which they are taken."""
        return self._wait(self._client.open_track(**options))

    def track_photo(
        self, track_id: str, photo: Photo, timestamp: float | str | None = None, **options: Unpack[PhotoOptions]
    ) -> models.TrackedLocalization:
        """Localize the next photo of a flight and fuse it with those before."""
        return self._wait(self._client.track_photo(track_id, photo, timestamp, **options))

    def track(self, track_id: str) -> models.TrackState:
        """Tell where a flight was at its last photo."""
        return self._wait(self._client.track(track_id))

    def track_history(self, track_id: str) -> models.TrackHistory:
        """Tell what was believed of a flight after each of its photos."""
        return self._wait(self._client.track_history(track_id))

    def tracks(self) -> models.TrackList:
        """List the open tracks of the key that asks."""
        return self._wait(self._client.tracks())

    def delete_track(self, track_id: str) -> None:
        """Forget a track."""
        self._wait(self._client.delete_track(track_id))

    # maps

    def add_map(
        self,
        source: str | Path,
        corners: str | Path | None = None,
        watch: Callable[[models.ImportState], None] | None = None,
        **options: Unpack[ImportOptions],
    ) -> models.ImportState:
        """Import a map and wait for the end of it; ``watch`` is called in another thread."""
        return self._wait(self._client.add_map(source, corners, watch, **options))

    def send_map(
        self, source: str | Path, corners: str | Path | None = None, **options: Unpack[ImportOptions]
    ) -> models.ImportState:
        """Send a map, and do not wait for its import."""
        return self._wait(self._client.send_map(source, corners, **options))

    def wait_for_import(
        self, import_id: str, watch: Callable[[models.ImportState], None] | None = None
    ) -> models.ImportState:
        """Wait for the end of an import; ``watch`` is called in another thread."""
        return self._wait(self._client.wait_for_import(import_id, watch))

    def get_import(self, import_id: str) -> models.ImportState:
        """Tell how far an import has come."""
        return self._wait(self._client.get_import(import_id))

    def imports(self) -> models.ImportList:
        """List the last imports, newest first."""
        return self._wait(self._client.imports())

    def cancel_import(self, import_id: str) -> models.ImportState:
        """Stop an import."""
        return self._wait(self._client.cancel_import(import_id))

    def maps(self) -> models.MapList:
        """List the maps of the gallery in the order in which they were added."""
        return self._wait(self._client.maps())

    def map(self, name: str) -> models.MapState:
        """Describe a map."""
        return self._wait(self._client.map(name))

    def delete_map(self, name: str) -> models.MapDeleted:
        """Delete a map."""
        return self._wait(self._client.delete_map(name))

    def add_elevation(self, name: str, raster: str | Path) -> models.ElevationAdded:
        """Say how high the ground of a map is: a raster of heights above sea level, in any projection."""
        return self._wait(self._client.add_elevation(name, raster))

    def delete_elevation(self, name: str) -> models.ElevationDeleted:
        """Forget how high the ground of a map is."""
        return self._wait(self._client.delete_elevation(name))

    # the gallery

    def gallery(self) -> models.GalleryState:
        """Describe the gallery."""
        return self._wait(self._client.gallery())

    def model(self) -> models.Model:
        """Describe the model that the service runs."""
        return self._wait(self._client.model())

    def add_tiles(self, images: Sequence[Photo], tiles: Sequence[Mapping[str, Any]]) -> models.TilesAdded:
        """Add single pictures whose place is known; the answer says what became of each."""
        return self._wait(self._client.add_tiles(images, tiles))

    def tiles(self, limit: int = 1000, cursor: str = "0", bbox: str | None = None) -> models.TilePage:
        """List one page of the tiles whose centre lies in ``w,s,e,n``: the first, or that at the last page's cursor."""
        return self._wait(self._client.tiles(limit, cursor, bbox))

    def delete_tile(self, tile_id: str) -> models.TilesDeleted:
        """Delete a tile."""
        return self._wait(self._client.delete_tile(tile_id))

    def delete_area(self, bbox: str) -> models.TilesDeleted:
        """Delete the tiles whose centre lies in ``w,s,e,n``."""
        return self._wait(self._client.delete_area(bbox))

    def snapshot(self, target: str | Path) -> None:
        """Have a snapshot of the gallery made and write it to a new file."""
        self._wait(self._client.snapshot(target))


class Localizer(Client):
    """The whole service in this process, on a gallery file: the methods of ``Client``, and no network.

    Nobody else may have the file open meanwhile. It needs the extra ``cpu`` or ``gpu``.

    Args:
        gallery: the gallery file.
        model: ONNX model file; default the one that comes with aerofix.
        device: ``auto``, ``cpu`` or ``cuda``.
        create: make the file if there is none, to add maps to.

    Raises:
        GalleryUnusable: there is no such file, or it cannot be read.
        ConfigurationInvalid: an argument, or a setting in the environment, is none.
        AerofixError: model or device cannot be used.
    """

    def __init__(
        self,
        gallery: str | Path,
        model: str | Path | None = None,
        device: str | None = None,
        *,
        create: bool = False,
    ) -> None:
        if not create and not Path(gallery).exists():
            raise GalleryUnusable(f"there is no gallery at {gallery}; with create=True one is made to add maps to.")
        given: dict[str, Any] = {"gallery": Path(gallery), "model": model, "device": device}
        try:
            settings = Settings(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationInvalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
        self._open(in_process(settings))


async def _awaited(call: Awaitable[T]) -> T:
    return await call
