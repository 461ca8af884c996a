"""Requests take the parameters that they name, and no others: a mistyped hint must not be taken for none."""

from collections.abc import Collection, Iterator
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from starlette.datastructures import ImmutableMultiDict

from service.errors import InvalidParameter


async def only_known(request: Request) -> None:
    """Refuse a request with other parameters than its route names, or with one of them twice.

    A dependency of all routes. A form has been read when it runs; what it looks at is what the framework keeps of it.

    Raises:
        InvalidParameter: names the parameter and those that there are.
    """
    dependant: Dependant = request.scope["route"].dependant
    form = dict(_named(dependant, "body_params"))
    _check("query", "parameter", request.query_params, dict(_named(dependant, "query_params")), form)
    if form:
        _check("form", "field", await request.form(), form)


def _check(
    where: str, what: str, given: ImmutableMultiDict[str, Any], known: dict[str, bool], elsewhere: Collection[str] = ()
) -> None:
    takes = ", ".join(known) or "none"
    for name in given:
        if name not in known:
            hint = "; it is a field of the form" if name in elsewhere else ""
            raise InvalidParameter(f"the {where} has a {what} {name!r:.50}; it takes {takes}{hint}.")
        if not known[name] and len(given.getlist(name)) > 1:
            raise InvalidParameter(f"the {where} has {name} more than once; give it once.")


def _named(dependant: Dependant, kind: str) -> Iterator[tuple[str, bool]]:
    """Names of a route's parameters, and whether each may be given several times."""
    for parameter in getattr(dependant, kind):
        yield parameter.alias, _is_list(parameter.field_info.annotation)
    for needed in dependant.dependencies:
        yield from _named(needed, kind)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))
