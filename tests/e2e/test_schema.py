"""Requests made from the OpenAPI description: whatever it allows or forbids, the answer is one that it describes."""

import asyncio

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
]


@pytest.fixture
async def requests_for(http, tile_request):
    """``requests_for(mode)``: a strategy of requests to every operation, valid or broken on purpose."""
    await http.post("/gallery", **tile_request(1, 2))
    schema = schemathesis.openapi.from_dict((await http.get("/openapi.json")).json())
    operations = [result.ok() for result in schema.get_all_operations()]
    return lambda mode: st.one_of(*(each.as_strategy(generation_mode=mode) for each in operations))


async def send(http, case):
    """Send a request exactly as schemathesis would over a socket."""
    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://t")).prepare()
    async with asyncio.timeout(60):
        return await http.request(
            prepared.method, prepared.url, content=prepared.body or b"", headers=dict(prepared.headers)
        )


def check_body(description, case, answer):
    """The body against its schema, by the validator itself: schemathesis 4.32 rewrites prefixItems before it asks."""
    responses = description["paths"][case.operation.path][case.method.lower()]["responses"]
    media_type = answer.headers["content-type"].partition(";")[0]
    schema = responses[str(answer.status_code)]["content"][media_type].get("schema", {})
    if media_type != "text/plain":
        document = schema | {"components": description["components"]}
        jsonschema_rs.Draft202012Validator(document).validate(answer.json())


@pytest.mark.parametrize("mode", list(GenerationMode))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_every_answer_is_described(http, requests_for, mode, data):
    case = data.draw(requests_for(mode))
    answer = await send(http, case)
    case.validate_response(answer, checks=CHECKS)
    check_body(http.app.openapi(), case, answer)
