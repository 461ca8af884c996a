"""What is written is what was meant, whoever wrote it: no markup, no controls, no tracebacks."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from aerofix.models import Problem
from service import __version__
from service.app import create_app
from service.cli.answers import Answered
from service.cli.main import app
from service.cli.report import table
from service.cli.terminal import complain, out, progress_bar, remark, say, say_json
from service.settings import Settings

ROOT = Path(__file__).parents[3]
NASTY = "[/red] :smile: [bold]x[/bold]\x1b[2J\x85\u202e\udcff"
SHOWN = r"[/red] :smile: [bold]x[/bold]\u001b[2J\u0085\u202e\udcff"


@pytest.mark.parametrize("write", [say, remark, complain])
def test_text_is_written_as_it_is_and_controls_as_their_numbers(write, capsys):
    write(NASTY)
    written = capsys.readouterr()
    assert (written.out + written.err).removeprefix("error: ") == f"{SHOWN}\n"


def test_long_text_stays_on_its_line(capsys):
    say("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_the_same_json(capsys, indent):
    say_json({NASTY: [NASTY, "灯台"]}, indent)
    written = capsys.readouterr().out
    assert json.loads(written) == {NASTY: [NASTY, "灯台"]}
    assert "灯台" in written
    assert all(line.isprintable() for line in written.split("\n"))


def test_tables_and_progress_bars_show_names_as_they_are(capsys):
    problem = Problem(type="/problems/any", title="Any", status=422, detail="any")
    out.print(table([Answered(NASTY, problem)]))
    assert capsys.readouterr().out.count(SHOWN) == 1
    with progress_bar() as progress:
        progress.add_task(NASTY, total=1)
        column = progress.columns[0].render(progress.tasks[0])
    assert column.plain == SHOWN


@pytest.fixture
def local(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny_model(tmp_path / "m.onnx")
    return ["--gallery", str(tmp_path / "g.gallery"), "--model", str(model), "--device", "cpu"]


@pytest.fixture
def add(local, ground, encode_image):
    """``add(**entry)`` adds a tile to the gallery."""
    settings = Settings(gallery=Path(local[1]), model=Path(local[3]), device="cpu")

    async def request(entry):
        files = {"image": ("1.png", encode_image(ground(1, 32, 32)))}
        app = create_app(settings)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as http,
        ):
            answer = await http.post("/gallery", files=files, data={"tiles": json.dumps([entry])})
        assert answer.json()["added"] == 1

    return lambda **entry: asyncio.run(request({"lat": 1, "lon": 2, "gsd_m": 1} | entry))


def test_ids_and_properties_of_all_kinds_are_listed(local, add):
    add(id="[/red] :smile:", properties={"note": NASTY[:-1]})
    listed = CliRunner().invoke(app, ["gallery", "list", *local])
    assert listed.exit_code == 0, listed.output
    assert "[/red] :smile:" in listed.stdout
    assert "\x1b" not in listed.stdout
    as_json = CliRunner().invoke(app, ["gallery", "list", "--json", *local]).stdout
    assert json.loads(as_json)["properties"] == {"note": NASTY[:-1]}
    assert len(as_json.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["[/red]"],
        ["localize", "[/red].jpg", "--url", "http://127.0.0.1:9"],
        ["localize", "[/red].jpg", "--prior", "[/red]"],
        ["gallery", "info", "--url", "[/red]"],
        ["gallery", "delete", "[/red]", "--url", "http://127.0.0.1:99999"],
        ["gallery", "info", "--gallery", "[/red]"],
        ["gallery", "restore", "[/red]"],
        ["gallery", "delete", "a/../b"],
        ["serve", "--port", "[/red]"],
    ],
)
def test_no_argument_ends_in_a_traceback(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output


def test_the_version_is_told():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"aerofix {__version__}\n"


def test_the_exit_codes_are_told():
    told = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for words in ("3 a photo was not located", "4 the port is in use", "130 interrupted"):
        assert words in told


def test_a_photo_whose_name_is_no_text_is_answered(local, add, ground, encode_image):
    add()
    name = os.fsdecode(b"\xff[red].png")
    Path(name).write_bytes(encode_image(ground(1, 32, 32)))
    command = [sys.executable, "-m", "service.cli.main", "localize", name, *local]
    for more in ([], ["--json"], ["--geojson"]):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *more], capture_output=True, env=environment, check=False)
        assert done.returncode in (0, 3), done.stderr
        assert b"Traceback" not in done.stderr


def test_a_map_whose_name_is_no_text_is_refused_or_added_by_a_line(local, tmp_path):
    name = os.fsdecode(b"\xff[red].tif")
    Path(name).write_bytes(b"no map")
    command = [sys.executable, "-m", "service.cli.main", "gallery", "add", name, *local]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"error: " in done.stderr


def test_a_terminal_that_is_not_utf_8_gets_what_it_can_show(local):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "service.cli.main", "gallery", "info", "--gallery", "灯台"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert r"there is no gallery at \u706f\u53f0" in done.stderr
