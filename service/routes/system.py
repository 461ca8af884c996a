"""Probes, and what is loaded."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from service import errors
from service.encoder.batcher import Batcher
from service.encoder.session import Encoder
from service.errors import NotReady
from service.gallery.gallery import Gallery
from service.routes import schemas
from service.routes.problems import documented

router = APIRouter(tags=["system"])


@router.get("/livez", response_model=schemas.Liveness)
async def livez() -> schemas.Liveness:
    """Whether the process answers; never waits for anything."""
    return schemas.Liveness()


@router.get("/readyz", response_model=schemas.Readiness, responses=documented(errors.NotReady))
async def readyz(request: Request) -> schemas.Readiness:
    """Whether an answer can be given: the encoder works and is right, and the gallery fits it.

    The canary image is embedded beside the queue, not in it: a busy service is still a ready one.
    """
    encoder: Encoder = request.app.state.encoder
    batcher: Batcher = request.app.state.batcher
    gallery: Gallery = request.app.state.gallery
    checks = {
        "batcher": batcher.healthy,
        "canary": await asyncio.to_thread(_canary_agrees, encoder),
        "gallery": (await asyncio.to_thread(gallery.info)).identity == encoder.contract.identity,
    }
    if broken := [name for name, good in checks.items() if not good]:
        raise NotReady(f"not ready: {', '.join(broken)}. If this lasts, restart the service and read its log.")
    return schemas.Readiness(checks=checks)


@router.get("/model", response_model=schemas.Model)
async def model(request: Request) -> dict[str, Any]:
    """The loaded model's contract, and where it runs."""
    encoder: Encoder = request.app.state.encoder
    return asdict(encoder.contract) | {"identity": encoder.contract.identity, "provider": encoder.provider}


def _canary_agrees(encoder: Encoder) -> bool:
    try:
        return encoder.canary_agrees()
    except Exception:  # a lost device raises what it likes; the probe's answer is the same
        return False
