"""Copies of the gallery over HTTP, and galleries and models that do not belong together."""

import sqlite3

import pytest

from service.app import create_app
from service.errors import GalleryInUse, GalleryUnusable, ModelMismatch
from service.ground.store.copies import restore


async def test_a_snapshot_is_made_listed_downloaded_restored_and_removed(
    start, settings, tile_request, tmp_path, photo
):
    async with start() as http:
        await http.post("/gallery", **tile_request(1, 2))
        made = await http.post("/gallery/snapshots")
        assert made.status_code == 201
        name = made.json()["name"]
        assert "/" not in name
        assert str(tmp_path) not in made.text
        await http.delete("/gallery/tiles/map/2")
        assert (await http.get("/gallery/snapshots")).json()["snapshots"] == [made.json()]
        download = await http.get(made.headers["location"])
        assert len(download.content) == made.json()["bytes"]
        assert (await http.delete(made.headers["location"])).status_code == 204
        assert (await http.get("/gallery/snapshots")).json() == {"snapshots": []}
    (tmp_path / "copy").write_bytes(download.content)
    assert restore(tmp_path / "copy", settings().gallery)[0] == 2
    async with start() as http:
        found = (await http.post("/localize", files={"image": ("p", photo(2))})).json()
        assert found["candidates"][0]["tile_id"] == "map/2"


async def test_one_snapshot_too_many_is_refused_with_the_fix(start, problem_of):
    async with start(max_snapshots=1) as http:
        made = await http.post("/gallery/snapshots")
        problem = problem_of(await http.post("/gallery/snapshots"), "snapshots-full", 409)
        assert made.json()["name"] in problem["detail"]
        assert problem["limit"] == 1
        await http.delete(made.headers["location"])
        assert (await http.post("/gallery/snapshots")).status_code == 201


async def test_a_snapshot_that_is_removed_while_it_is_asked_for_is_not_there(http, problem_of):
    made = (await http.post("/gallery/snapshots")).json()
    for path in http.app.state.settings.beside_gallery("snapshots").iterdir():
        path.unlink()
    assert (await http.get("/gallery/snapshots")).json() == {"snapshots": []}
    for method in ("GET", "DELETE"):
        problem_of(await http.request(method, f"/gallery/snapshots/{made['name']}"), "snapshot-not-found", 404)


@pytest.mark.parametrize("name", ["nope.gallery", "..%2Fg.gallery", "g.gallery", ".gallery", "%2Fetc%2Fpasswd"])
async def test_no_other_file_can_be_had(http, name):
    await http.post("/gallery/snapshots")
    for method in ("GET", "DELETE"):
        response = await http.request(method, f"/gallery/snapshots/{name}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


async def test_a_snapshot_of_a_damaged_gallery_is_refused_not_made(http, tile_request, problem_of, tmp_path):
    await http.post("/gallery", **tile_request(1))
    http.app.state.gallery._store.file.db.execute("UPDATE details SET image = x'00'")
    assert "damaged" in problem_of(await http.post("/gallery/snapshots"), "gallery-unusable", 503)["detail"]
    assert (await http.get("/gallery/snapshots")).json() == {"snapshots": []}
    assert not list(tmp_path.rglob("*.part"))


async def test_another_model_is_refused_with_the_command_that_embeds_again(
    start, settings, tile_request, tiny_model, tmp_path
):
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
    other = tiny_model(tmp_path / "other.onnx", seed=1)
    with pytest.raises(ModelMismatch, match=r"aerofix gallery reembed --gallery g\.gallery"):
        create_app(settings(model=other))


async def test_a_gallery_in_use_is_refused(http, settings):
    with pytest.raises(GalleryInUse, match="in use by another process"):
        create_app(settings())


async def test_a_gallery_with_a_flipped_bit_is_named_and_not_served(start, settings, tile_request):
    async with start() as http:
        await http.post("/gallery", **tile_request(1, 2))
    path = settings().gallery
    db = sqlite3.connect(path)
    (embedding,) = db.execute("SELECT embedding FROM tiles WHERE number = 2").fetchone()
    db.close()
    data = bytearray(path.read_bytes())
    data[data.find(embedding) + 10] ^= 4
    path.write_bytes(data)
    with pytest.raises(GalleryUnusable, match=r"g\.gallery is damaged \(row 2"):
        create_app(settings())
