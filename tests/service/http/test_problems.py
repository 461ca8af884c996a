import inspect

import pytest

from service import errors
from service.errors import AerofixError
from service.http.problems import PROBLEMS, Problem, problem_named, problem_of, problem_response, slug_of

# Errors of starting up or of the command line: no request can meet them.
NOT_OVER_HTTP = {
    errors.ContractBroken,
    errors.DeviceUnavailable,
    errors.GalleryInUse,
    errors.ConfigurationInvalid,
}


def test_every_domain_error_has_its_problem():
    domain = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AerofixError)}
    assert domain - NOT_OVER_HTTP - {AerofixError} <= set(PROBLEMS)


def test_slugs_are_unique():
    slugs = [slug for slug, _, _ in PROBLEMS.values()]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_domain_error_is_told_with_its_numbers(kind):
    slug, title, status = PROBLEMS[kind]
    problem = problem_of(kind("do this", limit=3, actual=4))
    assert (problem.type, problem.title, problem.status, problem.detail) == (
        f"/problems/{slug}",
        title,
        status,
        "do this",
    )
    assert problem.model_extra == {"limit": 3, "actual": 4}


def test_a_subclass_is_told_as_its_base():
    class Special(errors.InvalidParameter):
        pass

    assert problem_of(Special("x")).type == "/problems/invalid-parameter"


def test_anything_else_is_internal_and_logged(caplog):
    problem = problem_of(KeyError("secret"))
    assert (problem.type, problem.status) == ("/problems/internal-error", 500)
    assert "secret" not in problem.model_dump_json()
    assert "secret" in caplog.text


def test_too_little_memory_is_told_as_such(caplog):
    problem = problem_of(MemoryError())
    assert (problem.type, problem.status) == ("/problems/out-of-memory", 503)
    assert "out of memory" in caplog.text


def test_retry_after():
    response = problem_response(errors.Overloaded("wait", retry_after_s=7))
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert "retry-after" not in problem_response(errors.NotReady("wait")).headers


def test_a_problem_needs_its_fields():
    assert Problem.model_json_schema()["required"] == ["type", "title", "status", "detail"]


@pytest.mark.parametrize("kind", PROBLEMS)
def test_an_error_that_was_stored_by_its_public_name_is_told_as_it_was(kind):
    error = kind("do this")
    stored = slug_of(error), error.detail
    assert problem_named(*stored) == problem_of(error)


def test_names_that_nobody_knows_are_defects():
    class Private(errors.GalleryUnusable):
        pass

    assert slug_of(Private("x")) == "gallery-unusable"
    assert problem_named("ImageTruncated", "x").type == "/problems/internal-error"
