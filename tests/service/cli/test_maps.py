"""``aerofix map``: listed, shown and deleted by name, in a gallery file as over the network."""

import json

import pytest
from typer.testing import CliRunner

from service.cli.main import app

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def run(tmp_path, tiny_model):
    """``run(*arguments)`` invokes ``aerofix map`` on a gallery file of its own."""
    local = ["--gallery", tmp_path / "g.gallery", "--model", tiny_model(tmp_path / "m.onnx"), "--device", "cpu"]

    def invoke(*arguments):
        return CliRunner().invoke(app, ["map", *map(str, [*arguments, *local])])

    return invoke


@pytest.fixture
def two(run, tmp_path, ground, write_map):
    """Two maps of one place, as of two dates."""
    for year in (2019, 2024):
        result = run("add", write_map(tmp_path / f"town {year}.tif", ground(year, 64, 64)))
        assert result.exit_code == 0, result.output
    return run


def test_maps_are_listed_in_order(two):
    found = [json.loads(line) for line in two("list", "--json").stdout.splitlines()]
    assert [each["name"] for each in found] == ["town 2019", "town 2024"]
    header, *rows = two("list").stdout.splitlines()
    assert header.split()[:2] == ["map", "windows"]
    for row, each in zip(rows, found, strict=True):
        assert row.startswith(each["name"])
        assert f" {each['windows']} " in row
        assert f" {each['bounds'][1]:.5f} " in row


def test_a_map_is_shown(two):
    shown = dict(line.split(": ", 1) for line in two("show", "town 2024").stdout.splitlines())
    assert json.loads(shown["origin"]) == "town 2024.tif"
    assert {key: json.loads(value) for key, value in shown.items()} == json.loads(
        two("show", "town 2024", "--json").stdout
    )


def test_maps_are_deleted_by_name(two):
    result = two("delete", "town 2019", "town 2024")
    assert result.exit_code == 0
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == [
        "deleted map town 2019",
        "deleted map town 2024",
    ]
    empty = two("list")
    assert (empty.exit_code, len(empty.stdout.splitlines())) == (0, 1)
    assert "no map yet" in empty.stderr


@pytest.mark.parametrize("verb", ["show", "delete"])
def test_an_unknown_map_is_one_line_with_the_fix(two, verb):
    result = two(verb, "village")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no map 'village'" in result.stderr
    assert "aerofix map list" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "without slashes" in two(verb, "a/b").stderr
