"""Every way in which a request can be wrong or the service unable, and the problem that says so."""

import asyncio
import struct
import zlib

import hostile
import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.encoder.session import Features
from service.errors import ContractBroken, ModelMismatch

LONG = 60  # seconds; no test waits that long
# A grey TIFF's photometric interpretation, and a sensor's.
DNG_SIGN = struct.pack("<HHIH", 262, 3, 1, 1), struct.pack("<HHIH", 262, 3, 1, 32803)


def send(http, data, **form):
    return http.post("/localize", files={"image": ("photo.jpg", data)}, data=form)


async def test_an_empty_gallery(http, photo, problem_of):
    problem_of(await send(http, photo(1)), "gallery-empty", 409)
    several = await http.post("/localize", files=[("image", ("p", photo(1)))] * 2)
    problem_of(several, "gallery-empty", 409)


async def test_one_pixel(http, encode_image, problem_of):
    problem = problem_of(await send(http, encode_image(Image.new("RGB", (1, 1)))), "image-undecodable", 422)
    assert (problem["limit"], problem["actual"]) == (16, 1)


async def test_a_truncated_jpeg(http, photo, problem_of):
    problem_of(await send(http, photo(1)[:500]), "image-truncated", 422)


async def test_a_text_file_named_jpg(http, problem_of):
    problem_of(await send(http, b"just some text"), "unsupported-media-type", 415)


async def test_an_empty_file(http, problem_of):
    problem_of(await send(http, b""), "unsupported-media-type", 415)


async def test_a_bomb_is_refused_before_it_is_decoded(http, problem_of, monkeypatch):
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    body = b"IDAT" + zlib.compress(bytes(10))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("pixels were decoded"))
    problem = problem_of(await send(http, bomb), "image-too-many-pixels", 413)
    assert problem["actual"] == 400_000_000


async def test_a_body_over_the_limit(start, photo, problem_of):
    async with start(max_body_bytes=2048) as http:
        problem = problem_of(await send(http, bytes(4000)), "body-too-large", 413)
        assert problem["limit"] == 2048

        async def unannounced():
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="p.jpg"\r\n\r\n'
            for _ in range(4):
                yield bytes(1000)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await http.post("/localize", content=unannounced(), headers=headers)
        problem_of(response, "body-too-large", 413)


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"prior_lat": 1}, "prior_radius_m"),
        ({"prior_lat": 1, "prior_lon": 2}, "prior_radius_m"),
        ({"prior_lat": 91, "prior_lon": 2, "prior_radius_m": 5}, "prior_lat"),
        ({"prior_lat": 1, "prior_lon": 2, "prior_radius_m": 0}, "prior_radius_m"),
        ({"prior_lat": "nan", "prior_lon": 2, "prior_radius_m": 5}, "prior_lat"),
        ({"prior_lat": "north", "prior_lon": 2, "prior_radius_m": 5}, "prior_lat"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 101}, "top_k"),
        ({"heading_deg": "inf"}, "heading_deg"),
        ({"hfov_deg": 180}, "hfov_deg"),
        ({"altitude_m": -1}, "altitude_m"),
        ({"use_exif": "perhaps"}, "use_exif"),
    ],
)
async def test_a_bad_parameter_is_named(http, photo, problem_of, form, named):
    assert named in problem_of(await send(http, photo(1), **form), "invalid-parameter", 422)["detail"]


async def test_no_image(http, problem_of):
    assert "image" in problem_of(await http.post("/localize", data={"top_k": "3"}), "missing-parameter", 422)["detail"]


async def test_an_exif_position_that_is_not_there(http, tile_request, photo, problem_of):
    await http.post("/gallery", **tile_request(1))
    problem_of(await send(http, photo(1), use_exif_position="true"), "missing-parameter", 422)


async def test_too_many_images(start, photo, problem_of):
    async with start(max_images=1) as http:
        response = await http.post("/localize", files=[("image", ("p", photo(1)))] * 2)
        problem_of(response, "invalid-parameter", 422)


async def test_unknown_paths_and_methods(http, problem_of):
    missing = problem_of(await http.get("/nowhere"), "not-found", 404)
    assert missing["detail"] == "there is nothing at /nowhere; see /docs for what there is."
    response = await http.get("/localize")
    wrong = problem_of(response, "method-not-allowed", 405)
    assert wrong["detail"] == "GET is not for /localize; send POST, see /docs."
    assert response.headers["allow"] == "POST"
    several = {
        "/gallery": "GET, HEAD, POST",
        "/gallery/tiles/a": "DELETE, GET, HEAD",
    }  # two routes share each of these paths
    one = {"/docs": "GET, HEAD", "/openapi.json": "GET, HEAD", "/docs/assets/swagger-ui.css": "GET, HEAD"}
    for path, methods in (several | one).items():
        response = await http.put(path)
        assert problem_of(response, "method-not-allowed", 405)["detail"].endswith(f"send {methods}, see /docs.")
        assert response.headers["allow"] == methods


async def test_a_body_that_is_no_form(http, problem_of):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    problem_of(await http.post("/localize", content=b"--y\r\nwhat", headers=headers), "bad-request", 400)
    problem_of(
        await http.post("/localize", content=b"x", headers={"Content-Type": "multipart/form-data"}), "bad-request", 400
    )


async def test_a_defect_shows_no_internals(http, problem_of, photo, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("service.localization.pipeline.open_photo", broken)
    response = await send(http, photo(1))
    problem_of(response, "internal-error", 500)
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("given", "kept"), [("mission-7.4_a:1", True), ("bad id", False), ("x" * 129, False), ("", False)]
)
async def test_request_ids(http, given, kept):
    returned = (await http.get("/livez", headers={"X-Request-ID": given})).headers["x-request-id"]
    assert (returned == given) == kept
    assert returned


async def test_an_image_that_the_model_cannot_embed(http, tile_request, photo, problem_of):
    await http.post("/gallery", **tile_request(1))
    http.app.state.batcher._encode = lambda images: Features(np.full((len(images), 32), np.nan, np.float32))
    problem_of(await send(http, photo(1)), "embedding-failed", 422)


class Dead(BaseException):
    pass


async def test_a_dead_worker_is_not_ready(http, photo, tile_request, problem_of):
    assert (await http.get("/readyz")).json()["status"] == "ready"

    def die(images):
        raise Dead

    http.app.state.batcher._encode = die
    problem_of(await send(http, photo(1)), "not-ready", 503)
    assert "batcher" in problem_of(await http.get("/readyz"), "not-ready", 503)["detail"]
    assert (await http.get("/livez")).status_code == 200


async def test_a_device_that_computes_nonsense_is_not_ready(http, problem_of, monkeypatch):
    def lost(images):
        raise RuntimeError("device lost")

    encoder = http.app.state.encoder

    def wrong(images):
        return Features(-type(encoder).encode(encoder, images).embedding)

    for broken in (wrong, lost):
        monkeypatch.setattr(encoder, "encode", broken)
        assert "canary" in problem_of(await http.get("/readyz"), "not-ready", 503)["detail"]


@pytest.mark.parametrize("broken", ["raises", "not finite"])
async def test_a_device_that_is_lost_ends_the_process_although_nobody_asks_for_readiness(
    start, photo, tile_request, monkeypatch, broken
):
    def encode(images):
        if broken == "raises":
            raise RuntimeError("CUDA error 700: an illegal memory access was encountered")
        return Features(np.full((len(images), 32), np.nan, np.float32))

    monkeypatch.setattr("service.watch.health.FRESH_S", 0.0)
    async with start(restart_after_s=0.0) as http:
        await http.post("/gallery", **tile_request(1))
        http.app.state.batcher._encode = encode  # one photo that fails, while the canary is well
        assert (await send(http, photo(1))).status_code in (422, 500)
        await asyncio.sleep(0.1)
        assert (await http.get("/livez")).status_code == 200
        http.app.state.encoder.encode = encode  # and the whole device
        await send(http, photo(1))
        async with asyncio.timeout(LONG):
            while (await http.get("/livez")).status_code == 200:  # noqa: ASYNC110 - what a supervisor does
                await asyncio.sleep(0.01)
        told = (await http.get("/metrics")).text
        assert float(told.split("\naerofix_encoder_failing_seconds ")[1].split()[0]) > 0
        assert (await http.get("/readyz")).status_code == 503


async def test_a_draining_service_is_not_ready(start, photo, tile_request, problem_of):
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
        await http.app.state.batcher.close()
        problem_of(await http.get("/readyz"), "not-ready", 503)
        problem_of(await send(http, photo(1)), "not-ready", 503)


def test_a_model_of_another_contract_is_refused(settings, tiny_model, tmp_path):
    tiny_model(tmp_path / "old.onnx", metadata={"contract": "0"})
    with pytest.raises(ContractBroken, match=r"aerofix\.contract must be 1"):
        create_app(settings(model=tmp_path / "old.onnx"))


async def test_a_gallery_of_another_model_is_refused(start, settings, tile_request, tiny_model, tmp_path):
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
    tiny_model(tmp_path / "other.onnx", seed=1)
    with pytest.raises(ModelMismatch):
        create_app(settings(model=tmp_path / "other.onnx"))


@pytest.mark.parametrize(
    ("make", "slug", "status", "fix"),
    [
        (lambda: hostile.many_scans(3000), "image-too-complex", 422, "not progressive"),
        (lambda: hostile.tiff_of_strips(200_000), "image-too-complex", 422, "larger strips"),
        (lambda: hostile.encoded(Image.new("L", (70_000, 16)), "PNG"), "image-too-many-pixels", 413, "65500"),
        (lambda: hostile.tiff_of_strips(64).replace(*DNG_SIGN), "unsupported-media-type", 415, "send the JPEG"),
        (lambda: b"\0\0\0\x18ftypheic" + bytes(40), "unsupported-media-type", 415, "export it as JPEG"),
    ],
    ids=["scans", "strips", "long", "raw", "heic"],
)
async def test_what_is_no_ordinary_image_is_told_with_its_fix(
    http, tile_request, photo, problem_of, make, slug, status, fix
):
    await http.post("/gallery", **tile_request(1))
    data = make()
    assert fix in problem_of(await send(http, data), slug, status)["detail"]
    form = tile_request(2)
    form["files"] = [("image", ("x", data))]
    (tile,) = (await http.post("/gallery", **form)).json()["tiles"]
    assert (tile["problem"]["type"], fix in tile["problem"]["detail"]) == (f"/problems/{slug}", True)
    several = await http.post("/localize", files=[("image", ("x", each)) for each in (photo(1), data)])
    good, bad = several.json()["results"]
    assert (good["status"], bad["problem"]["type"]) == ("located", f"/problems/{slug}")


async def test_a_lack_of_memory_is_no_damage(http, tile_request, photo, problem_of, monkeypatch):
    """The system refuses the process its memory, as it does where a container has too little."""
    monkeypatch.setattr("service.imaging.decode.PhotoFile._needs_bytes", lambda self, factor: 1)
    await http.post("/gallery", **tile_request(1))
    large = hostile.encoded(Image.new("RGB", (9000, 6000)), "PNG")
    assert "smaller" in problem_of(await send(http, large), "out-of-memory", 503)["detail"]
    assert (await send(http, photo(1))).status_code == 200
