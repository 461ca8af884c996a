"""Probes, what is loaded, and where the time goes."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service import errors
from service.encoder.session import Encoder
from service.errors import NotReady
from service.ground.gallery import Gallery
from service.http.door import Door
from service.http.problems import documented
from service.routes import schemas
from service.settings import Settings
from service.threads import Threads
from service.watch.health import Health
from service.watch.metrics import Metrics, Timings

router = APIRouter(tags=["system"])


@router.get("/livez", response_model=schemas.Liveness, responses=documented(errors.NotReady))
async def livez(request: Request) -> schemas.Liveness:
    """Say whether the process should go on; never waits for anything.

    503 once the encoder has been dead, stuck or wrong for `AEROFIX_RESTART_AFTER_S`: only a restart mends that.
    """
    health: Health = request.app.state.health
    settings: Settings = request.app.state.settings
    failing_s = health.beyond_help_s()
    if failing_s > settings.restart_after_s:
        raise NotReady(f"the encoder has been dead, stuck or wrong for {failing_s:.0f} s; restart the service.")
    return schemas.Liveness()


@router.get("/readyz", response_model=schemas.Readiness, responses=documented(errors.NotReady))
async def readyz(request: Request) -> schemas.Readiness:
    """Say whether an answer can be given: the encoder works and is right, and the gallery fits it.

    The canary image is embedded beside the queue, not in it: a busy service is still a ready one.
    """
    door: Door = request.app.state.door
    if door.closed:
        raise NotReady("not ready: the service is shutting down.")
    health: Health = request.app.state.health
    checks = await health.checks()
    if broken := [name for name, good in checks.items() if not good]:
        raise NotReady(f"not ready: {', '.join(broken)}. If this lasts, restart the service and read its log.")
    encoder: Encoder = request.app.state.encoder
    return schemas.Readiness(checks=checks, provider=encoder.provider, index_device=health.index_device)


@router.get("/model", response_model=schemas.Model)
async def model(request: Request) -> dict[str, Any]:
    """Describe the loaded model's contract, and where it runs."""
    encoder: Encoder = request.app.state.encoder
    gallery: Gallery = request.app.state.gallery
    watchers: Threads = request.app.state.watchers
    info = await watchers.run(gallery.info)
    devices = {"provider": encoder.provider, "index_device": info.index["device"]}
    return asdict(encoder.contract) | {"identity": encoder.contract.identity} | devices


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Counts and times of everything, for Prometheus."""
    numbers: Metrics = request.app.state.metrics
    watchers: Threads = request.app.state.watchers
    return Response(await watchers.run(numbers.exposition), media_type=CONTENT_TYPE_LATEST)


@router.get("/timings", response_class=PlainTextResponse)
async def timings(request: Request) -> str:
    """Tell where the time of the last requests went, as a table to read."""
    seen: Timings = request.app.state.timings
    return seen.table()
