import json
import re
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import httpx
import pytest
import rasterio
from rasterio.warp import transform
from typer.testing import CliRunner

from service.cli import doctor
from service.cli.main import app
from service.ground.index.gpu import FaissGpuIndex

MAP_PX = 256

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def run(tmp_path, tiny_model):
    """``run(*arguments)`` invokes the command line; ``run.local`` are the options that need no service."""
    model = tiny_model(tmp_path / "m.onnx")

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    invoke.model = model
    invoke.local = ["--gallery", tmp_path / "g.gallery", "--model", model, "--device", "cpu"]
    return invoke


@pytest.fixture
def world(ground):
    """256 m of made-up ground."""
    return ground(4, MAP_PX, MAP_PX)


@pytest.fixture
def geotiff(tmp_path, world, write_map):
    return write_map(tmp_path / "town.tif", world)


@pytest.fixture
def filled(run, geotiff):
    result = run("gallery", "add", geotiff, "--tile-size-m", 64, *run.local)
    assert result.exit_code == 0, result.output
    return run


@pytest.fixture
def photo(tmp_path, world):
    path = tmp_path / "photo.png"
    world.crop((64, 96, 96, 128)).save(path)
    return path


@pytest.fixture
def strange(tmp_path, ground):
    path = tmp_path / "strange.png"
    ground(99, 64, 64).save(path)
    return path


def test_a_map_is_added(run, geotiff):
    result = run("gallery", "add", geotiff, *run.local)
    assert result.exit_code == 0, result.output
    assert "town.tif: map town, done: added" in result.stdout
    added = int(re.search(r"added (\d+), updated 0, failed 0, skipped", result.stdout)[1])
    count = int(re.search(r"the gallery holds (\d+) windows", result.stdout)[1])
    assert added == count > 15 * 15
    again = run("gallery", "add", geotiff, *run.local)
    assert again.exit_code == 1
    assert "the gallery has a map 'town' already. Give another name with --map" in again.stderr
    other = run("gallery", "add", geotiff, "--map", "second", *run.local)
    assert f"the gallery holds {2 * count} windows" in other.stdout
    replaced = run("gallery", "add", geotiff, "--replace", *run.local)
    assert f"added {count}" in replaced.stdout
    assert f"the gallery holds {2 * count} windows" in replaced.stdout
    extended = run("gallery", "add", geotiff, "--extend", *run.local)
    assert f"added 0, updated {count}" in extended.stdout
    two = run("gallery", "add", geotiff, geotiff, "--map", "both", *run.local)
    assert two.exit_code == 2


def test_the_gallery_is_described(filled):
    result = filled("gallery", "info", *filled.local)
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert int(lines["count"]) >= 15 * 15
    assert json.loads(lines["identity"]).startswith("1:")


def test_a_photo_is_located(filled, photo, geotiff):
    result = filled("localize", photo, *filled.local)
    assert result.exit_code == 0
    assert "located" in result.stdout
    as_json = json.loads(filled("localize", photo, "--json", "--top-k", 2, *filled.local).stdout)
    assert as_json["status"] == "located"
    assert len(as_json["candidates"]) == 2
    assert f"{as_json['position']['lat']:.6f}" in result.stdout
    assert f"{as_json['position']['lon']:.6f}" in result.stdout
    with rasterio.open(geotiff) as town:
        (lon,), (lat,) = transform(town.crs, "EPSG:4326", *([each] for each in town.transform @ (80, 112)))
    assert as_json["position"]["lat"] == pytest.approx(lat, abs=1e-4)
    assert as_json["position"]["lon"] == pytest.approx(lon, abs=1e-4)


def test_geojson(filled, photo, strange):
    one = json.loads(filled("localize", photo, "--geojson", *filled.local).stdout)
    assert one["type"] == "FeatureCollection"
    assert one["features"][0]["geometry"]["type"] == "Point"
    both = json.loads(filled("localize", photo, strange, "--geojson", *filled.local).stdout)
    assert {feature["properties"]["photo"] for feature in both["features"]} == {str(photo), str(strange)}
    places = {
        feature["properties"]["status"]: feature["geometry"]
        for feature in both["features"]
        if feature["properties"]["kind"] == "photo"
    }
    assert places["located"]["type"] == "Point"
    assert places["not_found"] is None


def test_a_photo_from_elsewhere_ends_with_3(filled, strange, photo):
    assert filled("localize", strange, *filled.local).exit_code == 3
    several = filled("localize", photo, strange, "--json", *filled.local)
    assert several.exit_code == 3
    lines = [json.loads(line) for line in several.stdout.splitlines()]
    assert [(line["file"], line["status"]) for line in lines] == [(str(photo), "located"), (str(strange), "not_found")]


def test_one_bad_photo_is_an_error_and_the_others_are_answered(filled, photo, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("text")
    result = filled("localize", bad, photo, tmp_path / "absent.jpg", "--json", *filled.local)
    assert result.exit_code == 1
    statuses = [json.loads(line)["status"] for line in result.stdout.splitlines()]
    assert statuses == ["error", "located", "error"]
    assert "bad.jpg: the file is not a JPEG" in result.stderr
    assert "absent.jpg: the file cannot be read" in result.stderr


def test_priors_and_headings_reach_the_service(filled, photo):
    far = json.loads(filled("localize", photo, "--json", "--prior", "-10.5,20,500", *filled.local).stdout)
    assert (far["searched_tiles"], far["query"]["used"]) == (0, {"prior": "form"})
    turned = json.loads(filled("localize", photo, "--json", "--heading", 90, "--no-exif", *filled.local).stdout)
    assert turned["query"]["used"] == {"heading_deg": "form"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prior", "1,2"],
        ["--prior", "north,2,3"],
        ["--json", "--geojson"],
        ["--top-k", "0"],
        ["--nonsense"],
        ["--heading", "up"],
    ],
)
def test_usage_errors_end_with_2(run, photo, arguments):
    assert run("localize", photo, *arguments).exit_code == 2


def test_an_unreachable_service_is_one_line_that_names_the_fix(run, photo):
    result = run("localize", photo, "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "aerofix serve" in result.stderr
    info = run("gallery", "info", "--url", "http://127.0.0.1:9")
    assert info.exit_code == 1
    assert info.stderr.count("\n") == 1
    assert "Traceback" not in info.stderr


@pytest.mark.parametrize("url", ["nowhere", "ftp://host", "http://"])
def test_a_bad_url_is_one_line(run, url):
    result = run("gallery", "info", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("body", ["<html>", "[]"])
def test_another_server_is_recognised(run, monkeypatch, body):
    answer = httpx.MockTransport(lambda request: httpx.Response(200, text=body))
    real = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **kwargs: real(**kwargs | {"transport": answer}))
    result = run("gallery", "info")
    assert result.exit_code == 1
    assert "not an aerofix service" in result.stderr


def test_a_missing_gallery_is_not_made_by_asking_it(run, photo, tmp_path):
    for command in (["localize", photo], ["gallery", "info"]):
        result = run(*command, *run.local)
        assert result.exit_code == 1
        assert "aerofix gallery add" in result.stderr
    assert not (tmp_path / "g.gallery").exists()


def test_a_missing_model_is_one_line(run, tmp_path):
    for command in (["serve", "--port", 0], ["gallery", "add", "x.tif", "--gallery", tmp_path / "g"]):
        result = run(*command, "--model", tmp_path / "absent.onnx")
        assert result.exit_code == 1
        assert "there is no model file" in result.stderr
        assert "Traceback" not in result.output


def test_an_unreadable_map_is_one_line(run, tmp_path):
    path = tmp_path / "map.tif"
    path.write_text("no map")
    result = run("gallery", "add", path, *run.local)
    assert result.exit_code == 1
    assert "error: " in result.stderr


def test_a_bad_device_is_one_line(run):
    result = run("serve", "--model", run.model, "--device", "tpu")
    assert result.exit_code == 1
    assert "device" in result.stderr


def test_doctor_on_a_good_installation(filled):
    result = filled("doctor", *filled.local)
    assert result.exit_code == 0, result.stdout
    for words in (
        "onnxruntime",
        "faiss",
        "CPUExecutionProvider",
        "tiny-0 keeps the contract",
        "windows and pictures of this model",
    ):
        assert words in result.stdout


def test_doctor_says_where_it_searches_and_who_may_ask(filled, monkeypatch):
    monkeypatch.setenv("AEROFIX_READ_KEYS", "reader-0123456789")
    output = filled("doctor", *filled.local).stdout
    assert "search: runs on cpu" in output
    assert "1 read and 0 write keys" in output


def test_doctor_says_what_a_gpu_is_for(monkeypatch):
    index = FaissGpuIndex(1, 2, to_gpu=lambda flat: flat)
    monkeypatch.setattr("service.ground.index.gpu.make_index", lambda dim, device: index)
    search = next(finding for finding in doctor.examine(doctor.Settings()) if finding.subject == "search")
    assert search == doctor.Finding(
        "search", True, "runs on cuda:2 once it has a copy of more than 512 tiles; areas, and fewer, on the cpu"
    )


def test_doctor_names_what_would_stop_the_service(filled, monkeypatch):
    monkeypatch.setenv("AEROFIX_HOST", "0.0.0.0")
    monkeypatch.setenv("AEROFIX_INDEX_DEVICE", "cuda")
    result = filled("doctor", *filled.local)
    assert result.exit_code == 1
    assert "AEROFIX_WRITE_KEYS" in result.stdout
    assert "pip uninstall faiss-cpu" in result.stdout


def test_doctor_without_a_gallery_says_how_to_make_one(run):
    assert "aerofix gallery add" in run("doctor", *run.local).stdout


def test_doctor_names_what_is_wrong(filled, tiny_model, tmp_path):
    broken = tiny_model(tmp_path / "broken.onnx", metadata={"resize": "stretch"})
    result = filled("doctor", "--model", broken, "--gallery", filled.local[1])
    assert result.exit_code == 1
    assert "aerofix.resize is malformed" in result.stdout
    other = tiny_model(tmp_path / "other.onnx", seed=1)
    assert filled("doctor", "--model", other, "--gallery", filled.local[1]).exit_code == 1


@contextmanager
def installed(monkeypatch, versions):
    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    with monkeypatch.context() as patch:
        patch.setattr(doctor, "version", version)
        yield


def test_doctor_names_conflicts_and_absences(monkeypatch):
    with installed(monkeypatch, {"onnxruntime": "1.31", "onnxruntime-gpu": "1.31", "faiss-cpu": "1.15"}):
        runtime = doctor.one_of("onnxruntime", doctor.RUNTIMES)
        assert not runtime.good
        assert "pip uninstall onnxruntime onnxruntime-gpu" in runtime.text
        assert "aerofix[gpu]" in runtime.text
        assert doctor.one_of("faiss", doctor.INDEXES).text == "faiss-cpu 1.15"
    with installed(monkeypatch, {}):
        findings = doctor.examine(doctor.Settings(model=Path("m"), gallery=Path("g")))
        assert {finding.subject: finding.good for finding in findings} == {
            "onnxruntime": False,
            "faiss": False,
            "listening": True,
        }
        assert "pip install aerofix[cpu]" in findings[0].text
