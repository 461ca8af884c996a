"""The page in a real browser, by real clicks, with the model and the town that aerofix comes with."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import rasterio
from affine import Affine

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.soak, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTOS = sorted((EXAMPLES / "photos").glob("*.jpg"))
LONG_MS = 120_000  # no step takes that long


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A service with the town in its gallery."""
    gallery = tmp_path_factory.mktemp("page") / "g.gallery"
    aerofix = [sys.executable, "-m", "service.cli.main"]
    subprocess.run([*aerofix, "gallery", "add", EXAMPLES / "town.tif", "--gallery", gallery], check=True)
    process = subprocess.Popen(
        [*aerofix, "serve", "--port", "0", "--gallery", gallery],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"AEROFIX_DEADLINE_S": "120"},
    )
    address = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
    while httpx.get(f"{address}/readyz").status_code != 200:
        time.sleep(0.2)
    yield address
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(params=[(1440, 900), (390, 844)], ids=["desk", "phone"])
def page(request, browser, url):
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(LONG_MS)
    errors = []
    opened.on("pageerror", lambda error: errors.append(error))
    opened.goto(url)
    opened.wait_for_selector("#gallery:not(:empty)")
    yield opened
    opened.close()
    assert errors == []


def test_a_photo_is_laid_on_the_map_and_its_answer_seen_without_scrolling(page):
    page.set_input_files("#photo", PHOTOS[0])
    page.wait_for_selector("#answer h2.located")
    assert page.locator("#answer .big").evaluate("e => e.getBoundingClientRect().bottom < innerHeight")
    photo = page.locator(".pinned")
    before = float(photo.evaluate("e => e.style.opacity"))
    page.locator(".slider input").fill("0.2")
    assert float(photo.evaluate("e => e.style.opacity")) == 0.2 != before
    box, view = photo.bounding_box(), page.locator("#map").bounding_box()
    assert 0.02 < box["width"] * box["height"] / (view["width"] * view["height"]) < 0.6  # with its surroundings


def test_exif_fills_the_form_and_the_form_can_be_changed(page):
    page.set_input_files("#photo", PHOTOS[0])
    page.wait_for_selector("#answer h2.located")
    page.click("#known summary")
    hfov = page.locator("[name=hfov_deg]")
    assert 60 < float(hfov.input_value()) < 75
    hfov.fill("30")  # a wrong one, from the user now
    with page.expect_response(re.compile("/localize")) as asked:
        page.click("text=Localize again")
    assert asked.value.json()["query"]["values"]["hfov_deg"] == 30


def test_matches_are_drawn_on_demand_and_candidates_stand_beside_the_photo(page):
    page.set_input_files("#photo", PHOTOS[0])
    page.wait_for_selector("#answer h2.located")
    page.click("text=Show the matches")
    page.wait_for_selector(".compare line", state="attached")
    assert page.locator(".compare line").count() > 20
    page.click("text=Hide the matches")
    assert page.locator(".compare line").count() == 0
    page.locator(".row button", has_text="2").click()
    assert page.locator("figcaption", has_text="2. town").count() == 1


def test_a_circle_is_drawn_and_searched(page, url):
    page.click("#known summary")
    page.select_option("#area", "circle")
    page.click("#draw")
    box = page.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.click(x, y)
    page.mouse.click(x + 60, y)
    assert float(page.locator("[name=prior_radius_m]").input_value()) > 1
    with page.expect_response(re.compile("/localize")) as asked:
        page.set_input_files("#photo", PHOTOS[1])
    assert 0 <= asked.value.json()["searched_tiles"] < httpx.get(f"{url}/gallery").json()["count"]


def far_away(folder):
    """A corner of the town, as if it lay on another continent."""
    path = folder / "second.tif"
    with rasterio.open(EXAMPLES / "town.tif") as town:
        profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 3, "dtype": "uint8", "crs": town.crs}
        there = Affine.translation(5e6, -4e6) @ town.transform
        with rasterio.open(path, "w", **profile, transform=there) as second:
            second.write(town.read(window=((0, 512), (0, 512))))
    return path


def test_a_map_is_added_shown_and_deleted(page, tmp_path):
    page.click("#tab-maps")
    page.set_input_files("#map-file", EXAMPLES / "town.tif")  # its name is taken
    page.locator("dialog button", has_text="Cancel").click()
    tile_of_second = re.compile(r"/maps/second/\d+")
    with page.expect_response(tile_of_second):  # it is looked at, though the town lies far away
        page.set_input_files("#map-file", far_away(tmp_path))
        page.wait_for_selector("text=second.tif is added as second")
    with page.expect_response(tile_of_second):  # so is it by whoever comes later
        page.reload()
    page.click("#tab-maps")
    row = page.locator("#map-list li", has=page.get_by_role("button", name="second", exact=True))
    assert "windows" in row.inner_text()
    row.get_by_role("button", name="Delete").click()
    page.locator("dialog button", has_text="Delete").click()
    page.wait_for_function("() => document.querySelectorAll('#map-list li').length === 1")


def test_what_is_no_photo_is_refused_in_words(page, tmp_path):
    wrong = tmp_path / "notes.jpg"
    wrong.write_text("no picture")
    page.set_input_files("#photo", wrong)
    page.wait_for_selector("#message.bad")
    assert "JPEG" in page.locator("#message").inner_text()


def test_a_flight_is_followed_replayed_and_saved(page):
    page.click("#tab-flight")
    page.fill("#every", "60")  # the demo's photos are of no flight
    page.set_input_files("#flight-files", PHOTOS[:3])
    page.wait_for_selector("text=3 of 3")
    page.locator("#when").fill("0")
    page.wait_for_selector("text=1 of 3")
    for name in ("GeoJSON", "KML", "CSV", "GPX"):
        with page.expect_download() as saved:
            page.locator("#flight-exports button", has_text=name).click()
        assert "photo-1.jpg" in Path(saved.value.path()).read_text()


def test_the_api_can_be_tried_in_the_browser(browser, url):
    page = browser.new_page()
    page.goto(f"{url}/docs")
    page.click("#operations-localize-localize .opblock-summary", timeout=LONG_MS)
    page.click("text=Try it out")
    page.set_input_files("#operations-localize-localize input[type=file]", PHOTOS[0])
    page.click("text=Execute")
    page.locator(".live-responses-table", has_text='"located"').wait_for(timeout=LONG_MS)
    page.close()
