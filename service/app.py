"""The service: everything is made and connected here."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from service import __version__
from service.encoder.batcher import Batcher
from service.encoder.session import Encoder
from service.ground.gallery import Gallery
from service.ground.index.collection import Collection
from service.ground.snapshots import Snapshots
from service.http import docs, pages
from service.http.access import Guard, SecurityHeaders
from service.http.admission import GRACE_S, Admission, BodyLimits
from service.http.door import Door, Stage
from service.http.explanations import add_problem_pages
from service.http.head import Head
from service.http.middleware import HEADER, RequestContext
from service.http.openapi import describe
from service.http.prefix import Prefix
from service.http.problems import add_problem_handlers
from service.http.security import Keys
from service.imaging.decoders import Decoders
from service.importing.builder import Builder
from service.importing.jobs import Importer
from service.importing.tiles import TileMaker
from service.localization.pipeline import PhotoLocalizer
from service.routes import elevations, histories, imports, localize, maps, snapshots, system, tiles, tracks
from service.routes import gallery as gallery_routes
from service.routes.fields import only_known
from service.settings import Settings
from service.threads import Threads
from service.tracking.store import TrackStore
from service.tracking.tracker import Tracker
from service.watch.health import Health
from service.watch.metrics import Metrics, Timings
from service.watch.tracing import otlp

# Seconds to give up what is left in the encoder's queue when the server has already waited for every request.
CLOSE_TIMEOUT_S = 2.0


def create_app(settings: Settings) -> FastAPI:
    """Load the model, open the gallery and build the web application.

    Raises:
        ContractBroken: the model file is missing or not what the service can run.
        DeviceUnavailable: the device that was asked for is not there.
        ModelMismatch: the gallery was made with another model.
        GalleryUnusable: the gallery file is corrupt or held by another process.
        IndexUnavailable: Milvus, which is to have the vectors, does not answer.
        ConfigurationInvalid: settings cannot be followed, such as a file of keys that is not there.
    """
    keys = Keys.of(settings)
    tracer = otlp(settings.otlp_endpoint) if settings.otlp_endpoint else None

    # the parts, each made from the ones before
    encoder = Encoder.of(settings)
    contract = encoder.contract
    collection = Collection.shared(settings, contract.identity, contract.embedding_dim)
    gallery = Gallery.of(settings, contract, collection)
    door = Door(settings.max_in_flight, settings.max_arriving, settings.max_uploads, settings.max_body_bytes_in_all)
    metrics = Metrics(
        lambda: {
            "version": __version__,
            "model_id": contract.model_id,
            "provider": encoder.provider,
            "index_device": gallery.info().index["device"],
        },
        lambda: gauges(batcher, health, door, gallery),
    )
    timings = Timings()
    batcher = Batcher(
        encoder.encode,
        encoder.useful_batch(settings.max_batch),
        settings.max_queue,
        stuck_after_s=settings.deadline_s,  # by then all who waited for that batch have been answered
        on_batch=metrics.on_batch,
        describe_turned=encoder.describe_turned,
        describe=encoder.describe,
    )
    health = Health(encoder, batcher, gallery)
    decoders, matchers, watchers = Decoders(), Threads("match"), Threads("watch", 1)
    tile_maker = TileMaker(contract, batcher, settings, decoders)
    importer = Importer(
        gallery, Builder(contract, batcher, gallery), settings.imports or settings.beside_gallery("imports")
    )

    folder = settings.snapshots or settings.beside_gallery("snapshots")
    copies = Snapshots(folder, gallery.snapshot, settings.max_snapshots)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        await importer.start()
        watch = asyncio.create_task(health.watch())
        try:
            yield
        finally:
            watch.cancel()
            await importer.close()
            copies.close()
            decoders.close()
            matchers.close()
            watchers.close()
            await batcher.close(CLOSE_TIMEOUT_S)
            gallery.close()
            if collection is not None:
                collection.close()
            if tracer is not None:
                tracer.close()

    max_field_bytes = settings.max_images * gallery_routes.MAX_ENTRY_BYTES
    app = FastAPI(
        title="aerofix",
        summary=_SUMMARY,
        description=_DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        servers=[{"url": settings.root_path or "/"}],
        form_limits={"max_part_size": max_field_bytes},
    )
    app.state.settings = settings
    app.state.encoder = encoder
    app.state.batcher = batcher
    app.state.gallery = gallery
    app.state.door = door
    app.state.health = health
    app.state.metrics = metrics
    app.state.timings = timings
    app.state.tile_maker = tile_maker
    app.state.importer = importer
    app.state.snapshots = copies
    app.state.watchers = watchers  # a thread for what needs no disk, and so never waits for one
    app.state.localizer = PhotoLocalizer(contract, batcher, gallery, settings, decoders, matchers)
    app.state.tracker = Tracker(app.state.localizer, TrackStore(settings.max_tracks, settings.max_tracks_per_key))

    # HTTP: routes, errors, and what every request passes
    routers = [
        room.router
        for room in (localize, tracks, histories, maps, elevations, gallery_routes, tiles, imports, snapshots, system)
    ]
    for router in routers:
        app.include_router(router, dependencies=[Depends(only_known)])
    docs.add_pages(app)
    pages.add_map_page(app)
    add_problem_pages(app)
    add_problem_handlers(app, max_field_bytes)
    observers = [metrics.on_request, timings.on_request, *([] if tracer is None else [tracer.on_request])]
    _add_entrance(app, settings, door, keys)
    routes = [route for router in routers for route in router.routes]
    app.add_middleware(RequestContext, observers=observers, routes=routes)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Prefix, root_path=settings.root_path)
    describe(app, keys.needed)
    return app


_SUMMARY = "A drone photo in, a GPS position out, with an honest accuracy, offline."
_DESCRIPTION = """
Positions are WGS84 and name the ground point at the photo's centre, not the aircraft. `accuracy_m` is the radius that
holds the truth with 68 % probability. Errors are problem documents (RFC 9457).
"""


def gauges(batcher: Batcher, health: Health, door: Door, gallery: Gallery) -> Mapping[str, tuple[str, float]]:
    """Tell what has a value now, for ``Metrics``."""
    info = gallery.info()
    return {
        "aerofix_arriving_requests": ("Requests whose body is on the way.", door.here[Stage.ARRIVING]),
        "aerofix_uploading_requests": ("Imports whose file is on the way.", door.here[Stage.UPLOADING]),
        "aerofix_body_bytes": ("Bytes of bodies that are here, but for imports.", door.body_bytes),
        "aerofix_in_flight_requests": ("Requests inside now.", door.here[Stage.INSIDE]),
        "aerofix_answering_requests": ("Requests whose answer is on the way.", door.here[Stage.ANSWERING]),
        "aerofix_in_flight_limit": ("Requests that the door lets in now.", int(door.limit)),
        "aerofix_queue_images": ("Images that wait for the encoder.", batcher.queued),
        "aerofix_encoder_failing_seconds": (
            "How long the encoder has been dead, stuck or wrong; 0: it works.",
            health.beyond_help_s(),
        ),
        "aerofix_index_tiles": ("Tiles in the index.", info.count),
        "aerofix_gallery_generation": ("Grows with every change of the gallery.", info.generation),
    }


def _add_entrance(app: FastAPI, settings: Settings, door: Door, keys: Keys) -> None:
    """Who may come in, and how many; from the inside out, for each middleware added goes round those before it."""
    app.add_middleware(Head)
    pace = settings.min_body_bytes_s
    grace_s = min(GRACE_S, settings.body_timeout_s)
    usual = BodyLimits(settings.max_body_bytes, "AEROFIX_MAX_BODY_BYTES", settings.body_timeout_s, pace, grace_s)
    upload = BodyLimits(settings.max_import_bytes, "AEROFIX_MAX_IMPORT_BYTES", None, pace, grace_s)
    app.add_middleware(Admission, door=door, usual=usual, uploads={imports.PATH: upload, elevations.PATTERN: upload})
    app.add_middleware(Guard, keys=keys, hosts=settings.allowed_hosts, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", HEADER],
            expose_headers=[HEADER, "Location", "Retry-After"],
        )
