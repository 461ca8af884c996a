from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, File, Form, UploadFile

from service.http.problems import add_problem_handlers
from service.routes.fields import only_fields


@pytest.fixture
def http():
    app = FastAPI()

    @app.post("/", dependencies=[only_fields("image", "altitude_m")])
    async def take(image: Annotated[UploadFile | None, File()] = None, altitude_m: Annotated[float, Form()] = 0.0):
        return "taken"

    add_problem_handlers(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t")


@pytest.mark.parametrize("form", [{}, {"altitude_m": "90"}])
async def test_what_is_named_is_taken(http, form):
    for answer in (await http.post("/", data=form), await http.post("/", data=form, files={"image": b"-"})):
        assert answer.json() == "taken"


async def test_a_typo_is_told_with_the_fields_that_there_are(http):
    for answer in (
        await http.post("/", data={"altitude": "90"}),
        await http.post("/", files={"image": b"-", "altitude": b"90"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
        assert answer.json()["detail"] == "the form has a field 'altitude'; it takes image, altitude_m."
