"""The reference pages of the site, written from the code itself while mkdocs builds it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from service.app import create_app
from service.cli.main import app as aerofix
from service.settings import Settings
from training.cli import app as aerofix_train


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder."""
    pages = {
        "http": http_page(openapi()),
        "settings": settings_page(),
        "commands": commands_page(),
        "python": "# Python\n\n::: aerofix\n",
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def openapi() -> dict[str, Any]:
    """The description that a service gives of itself."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(gallery=Path(folder) / "docs.gallery", device="cpu"))
        app.state.gallery.close()
        return app.openapi()


def settings_page() -> str:
    """A table of every setting."""
    rows = ["# Settings", "", "Each is an environment variable; options of the command line win.", ""]
    rows += ["| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory is not None else field.default
        shown = "" if default in ((), None, "") else f"`{default}`"
        rows.append(f"| `AEROFIX_{name.upper()}` | {shown} | {_cell(field.description)} |")
    return "\n".join(rows) + "\n"


def commands_page() -> str:
    """Every command of both programs, with its options."""
    rows = ["# Command line", "", "Exit codes: [Running it for others](../operating.md#exit-codes).", ""]
    for program, app in (("aerofix", aerofix), ("aerofix-train", aerofix_train)):
        rows += _command(program, typer.main.get_command(app))
    return "\n".join(rows) + "\n"


def _command(path: str, command: Any) -> Iterator[str]:
    if commands := getattr(command, "commands", {}):
        for name, each in commands.items():
            yield from _command(f"{path} {name}", each)
        return
    yield f"## {path}"
    yield ""
    yield re.sub(r"\s*\n\s*\n\s*", "\n\n", (command.help or "").strip())
    yield ""
    yield "| option | what it is |"
    yield "| --- | --- |"
    for parameter in command.params:
        names = ", ".join(f"`{name}`" for name in parameter.opts) if parameter.opts else f"`{parameter.name}`"
        shown = names.upper() if parameter.param_type_name == "argument" else names
        yield f"| {shown} | {_cell(getattr(parameter, 'help', None))} |"
    yield ""


def http_page(description: dict[str, Any]) -> str:
    """Every route: its fields, its answer and its errors."""
    schemas = description["components"]["schemas"]
    rows = ["# HTTP", "", f"{description['info']['description'].strip()}", ""]
    rows += ["A running service shows the same under `/docs`, where it can be tried, and as `/openapi.json`.", ""]
    for path, item in description["paths"].items():
        for verb, operation in item.items():
            rows += _operation(verb, path, operation, schemas)
    rows += ["# Answers", ""]
    for name, schema in schemas.items():
        if not name.startswith("Body_") and "properties" in schema:
            rows += [f"## {name}", "", schema.get("description", "").strip(), "", *_fields(schema, "field"), ""]
    return "\n".join(rows) + "\n"


def _operation(verb: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield f"## `{verb.upper()} {path}`"
    yield ""
    yield operation["description"].strip()
    yield ""
    if parameters := operation.get("parameters"):
        yield from _fields({"properties": {each["name"]: each | each["schema"] for each in parameters}}, "parameter")
        yield ""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        yield from _fields(schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema, "form field")
        yield ""
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            names = re.findall(r"'#/components/schemas/(\w+)'", str(content.get("schema")))
            if names and names != ["Problem"]:
                yield f"{status}: " + " or ".join(f"[{name}](#{name.lower()})" for name in names)
                yield ""
    problems = sorted(status for status in operation["responses"] if status >= "400")
    yield f"Problems: {', '.join(problems)}."
    yield ""


def _fields(schema: dict[str, Any], what: str) -> Iterator[str]:
    yield f"| {what} | default | what it is |"
    yield "| --- | --- | --- |"
    needed = schema.get("required", ())
    for name, field in schema["properties"].items():
        default = "required" if name in needed and what != "field" else field.get("default", "")
        shown = f"`{default}`" if default not in ("", None, "required") else default or ""
        yield f"| `{name}` | {shown} | {_cell(field.get('description'))} |"


def _cell(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|").strip()
