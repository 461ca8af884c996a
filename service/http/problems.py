"""Errors as problem documents (RFC 9457)."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from service import errors
from service.errors import AerofixError, disk_error
from service.telemetry import request_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# class → (slug of the type URI, title, HTTP status)
PROBLEMS: dict[type[AerofixError], tuple[str, str, int]] = {
    errors.ImageUndecodable: ("image-undecodable", "The image cannot be decoded", 422),
    errors.ImageTruncated: ("image-truncated", "The image ends early", 422),
    errors.EmbeddingError: ("embedding-failed", "The model fails on this image", 422),
    errors.UnsupportedMediaType: ("unsupported-media-type", "The file is of no supported type", 415),
    errors.ImageTooManyPixels: ("image-too-many-pixels", "The image has too many pixels", 413),
    errors.ImageTooComplex: ("image-too-complex", "The image file has too many parts", 422),
    errors.ImageTooSlow: ("image-too-slow", "The image takes too long to decode", 422),
    errors.BodyTooLarge: ("body-too-large", "The request is too large", 413),
    errors.BodyMalformed: ("bad-request", "The request is malformed", 400),
    errors.BodyTooSlow: ("body-too-slow", "The request did not arrive in time", 408),
    errors.HeadersTooLarge: ("headers-too-large", "The headers are too large", 431),
    errors.UrlTooLong: ("url-too-long", "The URL is too long", 414),
    errors.Unauthorized: ("unauthorized", "A key is needed", 401),
    errors.Forbidden: ("forbidden", "This is not allowed", 403),
    errors.InvalidFootprint: ("invalid-footprint", "The footprint is not a place on Earth", 422),
    errors.InvalidParameter: ("invalid-parameter", "A parameter is invalid", 422),
    errors.MissingParameter: ("missing-parameter", "A parameter is missing", 422),
    errors.SourceUnreadable: ("source-unreadable", "The map cannot be read", 422),
    errors.ArchiveRefused: ("archive-refused", "The zip file is refused", 422),
    errors.TileNotFound: ("tile-not-found", "There is no such tile", 404),
    errors.MapNotFound: ("map-not-found", "There is no such map", 404),
    errors.MapExists: ("map-exists", "There is a map of this name already", 409),
    errors.ImportNotFound: ("import-not-found", "There is no such import", 404),
    errors.SnapshotNotFound: ("snapshot-not-found", "There is no such snapshot", 404),
    errors.SnapshotsFull: ("snapshots-full", "There are as many snapshots as may be", 409),
    errors.GalleryEmpty: ("gallery-empty", "The gallery is empty", 409),
    errors.ModelMismatch: ("model-mismatch", "The gallery was made with another model", 409),
    errors.TrackNotFound: ("track-not-found", "There is no such track", 404),
    errors.Overloaded: ("overloaded", "Too many requests wait", 429),
    errors.GalleryReadOnly: ("gallery-read-only", "The gallery cannot be changed here", 409),
    errors.IndexUnavailable: ("index-unavailable", "The index does not answer", 503),
    errors.GalleryUnusable: ("gallery-unusable", "The gallery cannot be used", 503),
    errors.NotReady: ("not-ready", "The service is not ready", 503),
    errors.OutOfMemory: ("out-of-memory", "There is not enough memory", 503),
    errors.DeadlineExceeded: ("deadline-exceeded", "No answer in time", 504),
    errors.StorageFull: ("storage-full", "The disk is full", 507),
}
INTERNAL = ("internal-error", "Something failed inside the service", 500)
# what the framework itself answers
_HTTP = {404: "not-found", 405: "method-not-allowed"}


class Problem(BaseModel):
    """An error, as RFC 9457 has it; numbers such as ``limit`` and ``actual`` come beside these fields."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="stable URI path of the kind of problem", examples=["/problems/image-truncated"])
    title: str = Field(description="the kind of problem in words", examples=["The image ends early"])
    status: int = Field(description="HTTP status", examples=[422])
    detail: str = Field(description="what is wrong here, and what to do about it")
    instance: str | None = Field(default=None, description="id of the request, as in X-Request-ID")


def problem_of(error: Exception) -> Problem:
    """Describe an error; one that is not of the domain is logged with its stack and told without its internals."""
    if isinstance(error, MemoryError):
        log.error("out of memory", exc_info=error)
        error = errors.OutOfMemory(
            "there is not enough memory for this now; send less at once, or give the service more."
        )
    if isinstance(error, AerofixError) and (kind := _public(error)) is not None:
        return _problem(*PROBLEMS[kind], error.detail, error.numbers)
    log.error("unexpected error", exc_info=error)
    return _problem(*INTERNAL, "this is a defect of the service; report it with the request id.")


def slug_of(error: AerofixError) -> str:
    """Return the public name of an error's kind: the last part of its problem's ``type``."""
    kind = _public(error)
    return (INTERNAL if kind is None else PROBLEMS[kind])[0]


def problem_named(slug: str, detail: str) -> Problem:
    """Describe an error that is known by its public name, see :func:`slug_of`, and its words."""
    return _problem(*next((each for each in PROBLEMS.values() if each[0] == slug), INTERNAL), detail)


def _public(error: AerofixError) -> type[AerofixError] | None:
    """The most special class of an error that has a public name."""
    return next((kind for kind in type(error).__mro__ if kind in PROBLEMS), None)


def problem_response(error: Exception) -> JSONResponse:
    """Return the HTTP answer to an error."""
    return _respond(problem_of(error))


def slug_of_status(status: int) -> tuple[str, str]:
    """Return slug and title of what the framework itself answers."""
    slug = _HTTP.get(status, "http-error")
    return slug, slug.replace("-", " ").capitalize()


def add_problem_handlers(app: FastAPI, max_field_bytes: int = 2**20) -> None:
    """Answer every error of the app with a problem document.

    Args:
        app: whose errors they are.
        max_field_bytes: of a text field in a form, for which the framework's own words are wrong.
    """

    @app.exception_handler(AerofixError)
    async def domain(request: Request, error: AerofixError) -> JSONResponse:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem_response(_as_domain_error(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:
            if isinstance(error.__cause__, OSError):  # large uploads wait in files until their body is complete
                return problem_response(disk_error(error.__cause__, "the upload cannot be kept", "temporary files"))
            if " exceeded maximum size of " in error.detail:  # "Part" or "Field", then a rounded number
                fix = f"a text field of the form has more than {max_field_bytes} bytes; send less in it."
                return problem_response(errors.BodyTooLarge(fix, limit=max_field_bytes))
            if error.detail.startswith("Too many "):
                return problem_response(errors.InvalidParameter(f"the form has too many parts. {error.detail}"))
            return problem_response(errors.BodyMalformed(f"{error.detail} Send the form as multipart/form-data."))
        (slug, title), detail, headers = slug_of_status(error.status_code), str(error.detail), dict(error.headers or {})
        if error.status_code == 404:
            detail = f"there is nothing at {request.url.path}; see /docs for what there is."
        elif error.status_code == 405:
            headers["Allow"] = _allowed(request, headers.get("Allow"))
            detail = f"{request.method} is not for {request.url.path}; send {headers['Allow']}, see /docs."
        answer = _respond(_problem(slug, title, error.status_code, detail))
        answer.headers.update(headers)
        return answer


def _allowed(request: Request, named: str | None) -> str:
    """Methods of all routes of a path: Starlette names those of the first, and of files none."""
    route = request.scope.get("route")
    described = {} if route is None else request.app.openapi()["paths"].get(route.path_format, {})
    methods = {method.upper() for method in described or (named or "GET").split(", ")}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def documented(*kinds: type[AerofixError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI ``responses`` of a route that answers these problems."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        slug, title, status = PROBLEMS[kind]
        entry = by_status.setdefault(
            status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        entry["description"] = "; ".join(filter(None, [entry["description"], title]))
        example = _problem(slug, title, status, (kind.__doc__ or "").strip()).model_dump(exclude_none=True)
        entry["content"][MEDIA_TYPE]["examples"][slug] = {"value": example}
        if kind is errors.Overloaded:
            entry["headers"] = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
    return by_status


def _problem(
    slug: str, title: str, status: int, detail: str, numbers: Mapping[str, float | int | str] = MappingProxyType({})
) -> Problem:
    fields = dict(numbers) | {"type": f"/problems/{slug}", "title": title, "status": status, "detail": detail}
    return Problem.model_validate(fields | {"instance": request_id.get()})


def _respond(problem: Problem) -> JSONResponse:
    answer = JSONResponse(problem.model_dump(exclude_none=True), problem.status, media_type=MEDIA_TYPE)
    if (seconds := (problem.model_extra or {}).get("retry_after_s")) is not None:
        answer.headers["Retry-After"] = str(seconds)
    if (challenge := _challenge(problem)) is not None:
        answer.headers["WWW-Authenticate"] = challenge
    return answer


def _challenge(problem: Problem) -> str | None:
    """What tells a client that a key would help (RFC 6750, section 3)."""
    extra = problem.model_extra or {}
    if problem.status == 401:
        return 'Bearer realm="aerofix"' + (f', error="{extra["error"]}"' if "error" in extra else "")
    if problem.status == 403 and "scope" in extra:
        return f'Bearer realm="aerofix", error="insufficient_scope", scope="{extra["scope"]}"'
    return None


def _as_domain_error(error: RequestValidationError) -> AerofixError:
    """Name the parameters that are missing or, when none is, those that are invalid."""
    found: Sequence[dict[str, Any]] = error.errors()
    missing = [_name(item) for item in found if item["type"] == "missing"]
    if missing:
        return errors.MissingParameter(f"{', '.join(missing)} must be given; see /docs.")
    reasons = [f"{_name(item)}: {item['msg']}" for item in found]
    return errors.InvalidParameter(f"{'; '.join(reasons)}; see /docs.")


def _name(item: dict[str, Any]) -> str:
    """The parameter's name: the location without its first part, which says body, query or path."""
    return ".".join(str(part) for part in item["loc"][1:]) or "the request"
