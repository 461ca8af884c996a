"""The map page in the whole service."""

import re
from importlib.resources import files

KEY = "writer-0123456789"


async def test_anybody_may_load_the_page_but_not_the_map(start, problem_of):
    async with start(write_keys=(KEY,)) as http:
        for path in ("/", "/web/app.js", "/web/style.css", "/web/leaflet/leaflet.js"):
            assert (await http.get(path)).status_code == 200
        problem_of(await http.get("/gallery/tiles"), "unauthorized", 401)
        problem_of(await http.get("/web/nothing.js"), "not-found", 404)
        problem_of(await http.get("/web/..%2fapp.py"), "not-found", 404)


async def test_the_script_reads_what_the_service_answers(http, tile_request, photo):
    script = (files("service") / "web" / "app.js").read_text()
    await http.post("/gallery", **tile_request(1, 2))
    answer = (await http.post("/localize", files={"image": ("p.jpg", photo(1))})).json()
    taken = re.search(r"function showAnswer\(\{ ([\w, ]+) \}\)", script)[1].split(", ")
    assert set(taken) <= answer.keys()
    for name, found in [("position", answer["position"]), ("candidate", answer["candidates"][0])]:
        fields = set(re.findall(rf"\b{name}\.([a-z_]+)", script))
        assert fields
        assert fields <= found.keys()
    page = (await http.get("/gallery/tiles", params={"limit": 1})).json()
    tile = page["tiles"][0]
    in_both = tile.keys() & answer["candidates"][0]["tile"].keys()
    assert set(re.findall(r"\btile\.([a-z_]+)", script)) <= in_both | {"id"}
    assert set(re.findall(r"\bpage\.([a-z_]+)", script)) == page.keys()
    gallery = (await http.get("/gallery")).json()
    assert set(re.findall(r"\bgallery\.([a-z_]+)", script)) <= gallery.keys()
    states = re.findall(r"^  (located|ambiguous|not_found):", script, re.M)
    schema = (await http.get("/openapi.json")).json()["components"]["schemas"]["Localization"]
    assert set(states) == set(schema["properties"]["status"]["enum"])
