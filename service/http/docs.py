"""The page that shows and tries the interface: Swagger UI, from this machine rather than from the internet."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

from service.http.access import PAGE_POLICY

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>aerofix</title>
<link rel="icon" href="web/icon.svg">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<div id="swagger"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
# A file of its own, so that the page's policy need not allow scripts inside pages. Swagger UI fills forms with the
# least value that is allowed: every field that may be left out is shown empty instead.
_START = """fetch("openapi.json").then((response) => response.json()).then((spec) => {
  for (const form of Object.values(spec.components.schemas)) {
    for (const [name, field] of Object.entries(form.properties ?? {})) {
      if (field.default !== undefined || form.required?.includes(name)) continue;
      delete field.examples;
      field.example = field.type === "array" ? [] : "";
    }
  }
  SwaggerUIBundle({spec, dom_id: "#swagger", deepLinking: true});
});
"""
_POLICY = f"{PAGE_POLICY}; style-src 'self' 'unsafe-inline'"  # Swagger UI writes style attributes


def add_pages(app: FastAPI) -> None:
    """Serve ``/docs`` and what it loads."""

    @app.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    app.mount("/docs/assets", StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-assets")
