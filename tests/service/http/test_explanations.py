import httpx
import pytest
from fastapi import FastAPI

from service.http.explanations import FIXES, add_problem_pages, kinds
from service.http.problems import PROBLEMS, add_problem_handlers


@pytest.fixture
def http():
    app = FastAPI()
    add_problem_pages(app)
    add_problem_handlers(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t")


@pytest.mark.parametrize("slug", sorted(kinds()))
async def test_every_type_of_problem_has_a_page_with_its_meaning_and_its_fix(http, slug):
    title, status, meaning = kinds()[slug]
    answer = await http.get(f"/problems/{slug}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for text in (title, str(status), FIXES[slug]):
        assert text in answer.text
    assert len(meaning) > 10


def test_all_that_may_be_answered_are_among_them():
    assert {slug for slug, _, _ in PROBLEMS.values()} | {"internal-error", "not-found", "method-not-allowed"} == set(
        FIXES
    )


async def test_what_is_no_type_has_no_page(http):
    answer = await http.get("/problems/none")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
