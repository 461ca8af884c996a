"""``/problems/…``: a page for each kind of problem that an answer may name as its ``type``."""

from html import escape

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from service.http.problems import INTERNAL, PROBLEMS, slug_of_status

# What to do about each; what exactly is wrong, with its numbers, says the ``detail`` of the answer.
FIXES = {
    "archive-refused": "Make the zip anew, without zips, links or folders above it inside, and smaller if it is large.",
    "bad-request": "Send the form as multipart/form-data, as <code>curl -F</code> does; <a href='/docs'>/docs</a> has "
    "every field.",
    "body-too-large": "Send fewer or smaller files, or raise the setting that the answer names.",
    "body-too-slow": "Use a faster link or send smaller files; AEROFIX_BODY_TIMEOUT_S, AEROFIX_MIN_BODY_BYTES_S and "
    "AEROFIX_HEADER_TIMEOUT_S say how slow a request may be.",
    "deadline-exceeded": "Ask again when the service is less busy, send fewer images at once, or raise "
    "AEROFIX_DEADLINE_S.",
    "embedding-failed": "The model computes no number for this image; look whether it shows anything.",
    "forbidden": "Use a write key to change the gallery; or name the host in AEROFIX_ALLOWED_HOSTS, or the page's "
    "origin in AEROFIX_CORS_ORIGINS.",
    "gallery-empty": "Add a map first: POST /gallery/imports, or aerofix gallery add MAP.",
    "gallery-read-only": "Change the gallery's file and copy it: aerofix gallery add, then aerofix gallery copy; "
    "docs/scale.md says how.",
    "gallery-unusable": "Look at the service's log and run aerofix doctor; a snapshot comes back with aerofix gallery "
    "restore FILE.",
    "headers-too-large": "Send fewer or shorter headers, or raise AEROFIX_MAX_HEADER_BYTES or AEROFIX_MAX_HEADERS.",
    "image-too-complex": "Open the image in another program and save it again, as a JPEG that is not progressive or as "
    "PNG; no camera writes files of so many parts.",
    "image-too-many-pixels": "Scale the image down, or raise AEROFIX_MAX_IMAGE_PIXELS if there is memory for it.",
    "image-too-slow": "Open the image in another program and save it again, as a JPEG that is not progressive.",
    "image-truncated": "Send the whole file; it was cut off on its way or when it was written.",
    "image-undecodable": "Open the image in another program and save it as JPEG or PNG.",
    "map-exists": "Give the map another name (form field map, --map), or say replace or extend.",
    "map-not-found": "List the maps with GET /maps.",
    "import-not-found": "List the imports with GET /gallery/imports.",
    "index-unavailable": "Ask again soon; whoever runs the service sees whether Milvus runs, and reads its log.",
    "internal-error": "This is a defect of the service: report it with the request's id.",
    "invalid-footprint": "Give corners in degrees, lat before lon, clockwise from top-left, or another form in "
    "<a href='/docs'>/docs</a>.",
    "invalid-parameter": "Correct the parameter that the answer names; <a href='/docs'>/docs</a> has names and ranges.",
    "method-not-allowed": "Use one of the methods in the answer's Allow header.",
    "missing-parameter": "Give the parameter that the answer names; <a href='/docs'>/docs</a> has all of them.",
    "model-mismatch": "Embed the gallery for the new model with aerofix gallery reembed, or load the model it was made "
    "with.",
    "not-found": "See <a href='/docs'>/docs</a> for what there is.",
    "not-ready": "Ask again after the seconds in Retry-After; if it lasts, read the service's log.",
    "out-of-memory": "Send a smaller image or a JPEG that is not progressive, or give the service more memory; "
    "docs/operating.md says how much images take.",
    "overloaded": "Ask again after the seconds in Retry-After; docs/operating.md has the limits.",
    "snapshot-not-found": "List the snapshots with GET /gallery/snapshots.",
    "snapshots-full": "Remove one that is no longer needed with DELETE /gallery/snapshots/NAME, or raise "
    "AEROFIX_MAX_SNAPSHOTS.",
    "source-unreadable": "Give the map a place on Earth (gdal_translate -a_srs … -a_ullr …), or send another format.",
    "storage-full": "Free space on the disk that the answer names, then try again.",
    "tile-not-found": "List the tiles with GET /gallery/tiles.",
    "track-not-found": "Open one with POST /tracks; it is forgotten when no photo comes for a while, and belongs to "
    "the key that opened it.",
    "unauthorized": "Send a key: Authorization: Bearer KEY.",
    "unsupported-media-type": "Send a photo as JPEG, PNG, WebP or TIFF, or a map in a form of docs/maps.md; the name "
    "of a file does not matter.",
    "url-too-long": "Send long values as fields of a form.",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title} · aerofix</title>
<h1>{title}</h1>
<p>{meaning}
<p>{fix}
<p>HTTP status {status}. The answer itself has <code>type</code> <code>/problems/{slug}</code>, and its
<code>detail</code> says what was wrong with the request.
</html>
"""


def kinds() -> dict[str, tuple[str, int, str]]:
    """Map the slug to title, status and meaning of every problem that an answer may name."""
    found = {slug: (title, status, error.__doc__ or "") for error, (slug, title, status) in PROBLEMS.items()}
    slug, title, status = INTERNAL
    found[slug] = (title, status, "Something failed that should not have.")
    for status, meaning in ((404, "There is nothing at this address."), (405, "The address takes other methods.")):
        slug, title = slug_of_status(status)
        found[slug] = (title, status, meaning)
    return found


def add_problem_pages(app: FastAPI) -> None:
    """Serve a page for each kind of problem."""
    pages = {
        slug: _PAGE.format(
            slug=slug, title=escape(title), status=status, meaning=escape(meaning), fix=FIXES.get(slug, "")
        )
        for slug, (title, status, meaning) in kinds().items()
    }

    @app.get("/problems/{slug}", include_in_schema=False)
    async def explain(slug: str) -> HTMLResponse:
        if slug not in pages:
            raise HTTPException(404)
        return HTMLResponse(pages[slug])
