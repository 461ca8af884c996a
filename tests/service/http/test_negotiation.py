import pytest

from service.http.negotiation import preferred

JSON, GEO = "application/json", "application/geo+json"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/geo+json", GEO),
        ("Application/Geo+JSON", GEO),
        ("text/html, application/geo+json", GEO),
        ("application/json;q=0.5, application/geo+json", GEO),
        ("application/json;q=0.5, application/*", GEO),
        ("application/geo+json;q=0.9, */*;q=0.1", GEO),
        ("application/geo+json; charset=utf-8; q=1", GEO),
        ("application/json, application/geo+json", JSON),
        ("application/geo+json;q=0", JSON),
        ("application/geo+json;q=x", JSON),
        ("application/*", JSON),
        ("*/*", JSON),
        ("image/png", JSON),
        ("", JSON),
    ],
)
def test_quality_decides_and_json_is_the_default(accept, chosen):
    assert preferred(accept, [JSON, GEO]) == chosen
