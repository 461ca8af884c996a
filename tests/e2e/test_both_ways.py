"""A map over the command line on a file, over the command line on a service, and over HTTP: one map, one error."""

import io
import json
import shutil
import time
import zipfile
from pathlib import Path

import httpx
import rasterio
from PIL import Image
from typer.testing import CliRunner

from service.cli.main import app

TOLD = ("name", "windows", "levels", "bounds", "gsd_m", "minzoom", "maxzoom")


def geotiff(town, folder):
    return Path(shutil.copy(town, folder / "town.tif"))


def image_with_side_files(town, folder):
    with rasterio.open(town) as file:
        place, wkt = file.transform, file.crs.to_wkt()
        Image.fromarray(file.read().transpose(1, 2, 0)).save(folder / "town.png")
    corner = place.c + place.a / 2, place.f + place.e / 2
    (folder / "town.pgw").write_text("\n".join(map(str, (place.a, 0, 0, place.e, *corner))))
    (folder / "town.prj").write_text(wkt)
    return folder / "town.png"


def table(town, folder):
    Image.open(io.BytesIO(town.read_bytes())).save(folder / "sat.png")
    rows = [
        "Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long",
        "sat.png,24.262,120.71,24.26,120.712",
    ]
    (folder / "town.csv").write_text("\n".join(rows))
    return folder / "town.csv"


def folder_of_tiles(town, folder):
    image = Image.open(io.BytesIO(town.read_bytes()))
    for y in (56_000, 56_001):
        path = folder / "town" / "17" / "109000" / f"{y}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize((256, 256)).save(path)
    return folder / "town"


def nothing(town, folder):
    (folder / "town.tif").write_bytes(b"no map")
    return folder / "town.tif"


def cut_short(town, folder):
    (folder / "town.tif").write_bytes(town.read_bytes()[:4000])
    return folder / "town.tif"


def sent(path):
    """What is sent over HTTP: the file, or a zip of the folder it is in."""
    folder = path if path.is_dir() else path.parent
    if path.is_file() and len(list(folder.iterdir())) == 1:
        return path.name, path.read_bytes()
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return f"{path.stem}.zip", data.getvalue()


def run(*words):
    result = CliRunner().invoke(app, ["map", *map(str, words)])
    lines = [line.partition(": ") for line in result.stderr.splitlines()]
    return result, sorted(text for mark, _, text in lines if mark in ("error", "warning"))


def by_hand(path, where):
    """Imported with ``aerofix map add``: the map and its warnings, or the error."""
    result, told = run("add", path, *where)
    if result.exit_code:
        return None, told
    (line,) = run("list", "--json", *where)[0].stdout.splitlines()
    assert run("delete", "town", *where)[0].exit_code == 0
    return {key: value for key, value in json.loads(line).items() if key in TOLD}, told


def over_http(path, url):
    answer = httpx.post(f"{url}/gallery/imports", files={"file": sent(path)})
    if answer.is_error:
        return None, [answer.json()["detail"]]
    while (state := httpx.get(url + answer.headers["location"]).json())["state"] in ("queued", "running"):
        time.sleep(0.02)
    if state["state"] == "failed":
        return None, [state["problem"]["detail"]]
    described = httpx.get(f"{url}/maps/town").json()
    httpx.delete(f"{url}/maps/town").raise_for_status()
    return {key: described[key] for key in TOLD}, sorted(state["warnings"])


def test_each_form_makes_the_same_map_or_the_same_error(serve, settings, tmp_path, ground, write_map, monkeypatch):
    monkeypatch.delenv("AEROFIX_KEY", raising=False)
    town = write_map(tmp_path / "source.tif", ground(4, 96, 96))
    _, url = serve()
    file = ["--gallery", tmp_path / "file.gallery", "--model", settings().model, "--device", "cpu"]
    for form in (geotiff, image_with_side_files, table, folder_of_tiles, nothing, cut_short):
        folder = tmp_path / form.__name__
        folder.mkdir()
        path = form(town, folder)
        first = by_hand(path, file)
        assert by_hand(path, ["--url", url]) == first, form.__name__
        assert over_http(path, url) == first, form.__name__
        assert (first[0] is None) == (form in (nothing, cut_short)), first
