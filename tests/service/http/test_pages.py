"""The map page and what it loads, asked of the pages alone: nothing of it may come from elsewhere."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files

import httpx
import pytest
from fastapi import FastAPI

from service.http.access import SecurityHeaders
from service.http.docs import add_pages
from service.http.pages import add_map_page

TYPES = {"html": {"text/html"}, "css": {"text/css"}, "js": {"text/javascript", "application/javascript"}}
FOLDER = files("service") / "web"
MODULES = sorted(path.name for path in FOLDER.iterdir() if path.name.endswith(".js"))
OURS = ["index.html", "style.css", *MODULES]
# names, which nothing loads
NAMESPACES = {
    "http://www.w3.org/2000/svg",
    "http://www.opengis.net/kml/2.2",
    "http://www.topografix.com/GPX/1/1",
}
# what its makers publish for 1.9.4, at leafletjs.com/download.html
LEAFLET = {
    "leaflet.js": "20nQCchB9co0qIjJZRGuk2/Z9VM+kNiyxNV1lvTlZBo=",
    "leaflet.css": "p4NxAoJBhIIN+hmNHrzRCf9tD/miZyoHS5obTRR9BMY=",
}


class Page(HTMLParser):
    """What a page loads, runs and names."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.inline, self.ids, self.fields, self._in = [], [], set(), set(), None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.loads += [given[name] for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.ids.add(given.get("id"))
        self.fields.add(given.get("name"))
        self._in = tag

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in in ("script", "style") and data.strip():
            self.inline.append(data)


def text(name):
    return (FOLDER / name).read_text()


@pytest.fixture
async def http():
    app = FastAPI(docs_url=None)
    add_map_page(app)
    add_pages(app)
    app.add_middleware(SecurityHeaders)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        yield client


def policy(answer):
    directives = (part.split() for part in answer.headers["content-security-policy"].split(";"))
    return {name: set(sources) for name, *sources in directives}


async def test_the_page_and_all_it_loads_are_there_with_their_types(http):
    answer = await http.get("/")
    assert answer.text == text("index.html")
    assert answer.headers["content-type"].split(";")[0] == "text/html"
    loads = [link for link in Page(answer.text).loads if link != "docs"]
    assert len(loads) == 5
    for link in loads:
        loaded = await http.get(f"/{link}")
        kind = link.rpartition(".")[2]
        assert loaded.status_code == 200, link
        assert loaded.headers["content-type"].split(";")[0] in TYPES.get(kind, {"image/svg+xml"})


async def test_browsers_ask_again_and_are_told_that_nothing_changed(http):
    for path in ("/", "/web/main.js"):
        answer = await http.get(path)
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["etag"]
    again = await http.get("/web/main.js", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_the_page_may_run_no_script_and_no_style_but_its_files(http):
    answer = await http.get("/", headers={"Accept": "application/json"})
    assert answer.headers["content-type"].startswith("text/html")  # it is a page, whatever is asked for
    rules = policy(answer)
    assert rules["default-src"] == {"'self'"}
    assert rules["img-src"] == {"'self'", "data:", "blob:"}
    assert not {"script-src", "style-src", "connect-src"} & rules.keys()  # the default holds for them
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert Page(answer.text).inline == []


async def test_only_the_description_page_may_set_styles(http):
    rules = policy(await http.get("/docs"))
    assert rules["style-src"] == {"'self'", "'unsafe-inline'"}
    assert rules["default-src"] == {"'self'"}


@pytest.mark.parametrize("name", OURS)
def test_nothing_names_another_site(name):
    written = text(name)
    for namespace in NAMESPACES:
        written = written.replace(f'"{namespace}"', "")
    assert not re.search(r"(https?:)?//[\w.-]+\.\w|@import|url\(", written), name


@pytest.mark.parametrize("name", MODULES)
def test_no_script_makes_html_of_what_it_is_told(name):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", text(name))


def test_the_scripts_find_the_elements_that_they_look_for():
    page = Page(text("index.html"))
    wanted = {found for name in MODULES for found in re.findall(r'\$\("([\w-]+)"\)', text(name))}
    assert len(wanted) > 20
    assert wanted <= page.ids
    assert {"heading_deg", "pitch_deg", "altitude_m", "hfov_deg", "effort"} <= page.fields


@pytest.mark.parametrize("name", LEAFLET)
def test_leaflet_is_as_published_and_keeps_its_licence(name):
    content = (FOLDER / "leaflet" / name).read_bytes()
    assert base64.b64encode(hashlib.sha256(content).digest()).decode() == LEAFLET[name]
    assert "BSD 2-Clause" in text("leaflet/LICENSE")


def test_leaflet_names_other_sites_only_as_links_and_namespaces():
    named = set(re.findall(r"https?://[\w./-]+", text("leaflet/leaflet.js")))
    assert named == {"http://www.w3.org/2000/svg", "https://leafletjs.com"}
    assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", text("leaflet/leaflet.css"))
