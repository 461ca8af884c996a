from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, File, Form, UploadFile

from service.http.problems import add_problem_handlers
from service.routes.fields import only_known


@pytest.fixture
def http():
    app = FastAPI(dependencies=[Depends(only_known)])

    def altitude(altitude_m: Annotated[float, Form()] = 0.0):
        return altitude_m

    @app.post("/")
    async def take(
        altitude_m: Annotated[float, Depends(altitude)],
        image: Annotated[UploadFile | None, File()] = None,
        maps: Annotated[list[str] | None, Form()] = None,
    ):
        return "taken"

    @app.get("/list")
    async def show(limit: int = 5):
        return limit

    add_problem_handlers(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t")


@pytest.mark.parametrize("form", [{}, {"altitude_m": "90"}, {"maps": ["a", "b"]}])
async def test_what_is_named_is_taken(http, form):
    for answer in (await http.post("/", data=form), await http.post("/", data=form, files={"image": b"-"})):
        assert answer.json() == "taken"
    assert (await http.get("/list?limit=3")).json() == 3


async def test_a_typo_is_told_with_the_names_that_there_are(http):
    for answer in (
        await http.post("/", data={"altitude": "90"}),
        await http.post("/", files={"image": b"-", "altitude": b"90"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
        assert answer.json()["detail"] == "the form has a field 'altitude'; it takes image, maps, altitude_m."
    answer = await http.get("/list?limits=3")
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "the query has a parameter 'limits'; it takes limit.",
    )


async def test_a_hint_in_the_query_is_refused_with_where_it_belongs(http):
    answer = await http.post("/?altitude_m=90")
    assert answer.status_code == 422
    assert "'altitude_m'" in answer.json()["detail"]
    assert "form" in answer.json()["detail"]


async def test_what_is_given_twice_is_not_chosen_from(http):
    for answer in (await http.post("/", data={"altitude_m": ["90", "120"]}), await http.get("/list?limit=1&limit=2")):
        assert answer.status_code == 422
        assert "more than once" in answer.json()["detail"]
