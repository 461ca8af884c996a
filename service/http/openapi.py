"""What the OpenAPI description says beyond the routes themselves."""

from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from service import errors
from service.http.access import ALWAYS, OPEN
from service.http.problems import Problem, documented

_KEY = "key"


def describe(app: FastAPI, keys_needed: bool) -> None:
    """Add the schema of problem documents, which no route names as its model, and what may happen at the door."""
    generate, made = app.openapi, list[dict[str, Any]]()

    def openapi() -> dict[str, Any]:
        if made:
            return made[0]
        description = deepcopy(generate())  # the framework keeps its own, which would be half of this after an error
        components = description.setdefault("components", {})
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {}).setdefault("Problem", schema)
        for name, form in components["schemas"].items():
            if name.startswith("Body_"):  # as FastAPI calls a route's form
                form["additionalProperties"] = False  # see ``only_known``
                form["properties"] = {field: _to_fill_in(schema) for field, schema in form["properties"].items()}
        components["securitySchemes"] = {
            _KEY: {
                "type": "http",
                "scheme": "bearer",
                "description": "Reading; a write key writes, too.",
            }
        }
        for path, item in description["paths"].items():
            for verb, operation in item.items():
                _add_door(path, verb, operation)
                if keys_needed and path not in OPEN:
                    operation["security"] = [{_KEY: []}]
        made.append(description)
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


def _to_fill_in(schema: dict[str, Any]) -> dict[str, Any]:
    """A form's field as pages that offer it to be filled in understand it: files to choose, no null to type."""
    if "anyOf" in schema:
        given = [one for one in schema.pop("anyOf") if one != {"type": "null"}]
        schema = (given[0] if len(given) == 1 else {"anyOf": given}) | schema
    if "items" in schema:
        schema["items"] = _to_fill_in(schema["items"])
    if schema.pop("contentMediaType", None) is not None:
        schema["format"] = "binary"
    return schema


def _add_door(path: str, verb: str, operation: dict[str, Any]) -> None:
    """Document what a request may be refused for before its route sees it."""
    kinds: list[type[errors.AerofixError]] = [errors.Forbidden, errors.InvalidParameter]
    if path not in OPEN:
        kinds.append(errors.Unauthorized)
    if path not in ALWAYS:
        kinds += [errors.Overloaded, errors.NotReady]
    if verb != "get":
        kinds += [errors.BodyMalformed, errors.BodyTooLarge, errors.BodyTooSlow]
    for status, response in documented(*kinds).items():
        operation["responses"].setdefault(str(status), response)
