"""The service: everything is made and connected here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from service import __version__
from service.encoder.batcher import Batcher
from service.encoder.session import Encoder
from service.gallery.gallery import Gallery
from service.ingest import TileMaker
from service.localization.pipeline import Localizer
from service.routes import gallery as gallery_routes
from service.routes import localize, system, tracks
from service.routes.middleware import BodyLimit, RequestContext
from service.routes.problems import Problem, add_problem_handlers
from service.settings import Settings
from service.tracking.store import TrackStore
from service.tracking.tracker import Tracker


def create_app(settings: Settings) -> FastAPI:
    """Load the model, open the gallery and build the web application.

    Raises:
        ContractBroken: the model file is missing or not what the service can run.
        DeviceUnavailable: the device that was asked for is not there.
        ModelMismatch: the gallery was made with another model.
        GalleryUnusable: the gallery file is corrupt or held by another process.
    """
    # the parts, each made from the ones before
    encoder = Encoder(settings.model, settings.device, settings.threads)
    contract = encoder.contract
    index_device = "cpu" if settings.device == "cpu" else "auto"
    gallery = Gallery.open(settings.gallery, contract.identity, contract.embedding_dim, index_device)
    batcher = Batcher(encoder.encode, settings.max_batch, settings.max_queue)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        try:
            yield
        finally:
            await batcher.close()
            gallery.close()

    app = FastAPI(title="aerofix", summary=_SUMMARY, description=_DESCRIPTION, version=__version__, lifespan=lifespan)
    app.state.encoder = encoder
    app.state.batcher = batcher
    app.state.gallery = gallery
    app.state.tile_maker = TileMaker(contract, batcher, settings)
    app.state.localizer = Localizer(contract, batcher, gallery, settings)
    app.state.tracker = Tracker(app.state.localizer, TrackStore(settings.max_tracks))

    # HTTP: routes, errors, and from the outside in what every request passes
    app.include_router(localize.router)
    app.include_router(tracks.router)
    app.include_router(gallery_routes.router)
    app.include_router(system.router)
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestContext)  # added last, so it is outermost
    _document_problems(app)
    return app


_SUMMARY = "A drone photo in, a GPS position out, with an honest accuracy, offline."
_DESCRIPTION = """
Positions are WGS84 and name the ground point at the photo's centre, not the aircraft. `accuracy_m` is the radius that
holds the truth with 68 % probability. Errors are problem documents (RFC 9457).
"""


def _document_problems(app: FastAPI) -> None:
    """Add the schema of problem documents, which no route names as its model, to the OpenAPI description."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        description = generate()
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        description["components"]["schemas"].setdefault("Problem", schema)
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it
