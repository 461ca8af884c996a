"""``GET /``: the map page, and what it loads under ``/web/``; all of it comes from this machine."""

from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

_FOLDER = files("service") / "web"
_HEADERS = {"Cache-Control": "no-cache"}  # may be kept, is to be asked for again: an update replaces all files at once


class _Assets(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response


def add_map_page(app: FastAPI) -> None:
    """Serve the page and its files."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(str(_FOLDER / "index.html"), media_type="text/html", headers=_HEADERS)

    app.mount("/web", _Assets(directory=str(_FOLDER)), name="web")
