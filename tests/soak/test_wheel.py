"""The built wheel alone, in an empty environment far from the checkout, is a service that works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """``installed(*words)`` runs a program of an environment in which only the wheel was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("aerofix-*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    constraints = ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([folder / "venv/bin/pip", "install", "--quiet", *constraints, f"{wheel}[cpu]"], check=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AEROFIX_"))}

    clean["AEROFIX_DEADLINE_S"] = "120"  # a slow machine is no failure

    def run(program, *words):
        command = [folder / "venv/bin" / program, *map(str, words)]
        return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)

    return run


def test_it_finds_a_photo_with_the_model_it_brings(installed):
    added = installed("aerofix", "gallery", "add", ROOT / "examples/town.tif", "--gallery", "town.gallery")
    assert added.returncode == 0, added.stderr
    photo = ROOT / "examples/photos/photo-1.jpg"
    found = installed("aerofix", "localize", photo, "--gallery", "town.gallery", "--json")
    assert found.returncode == 0, found.stderr
    truth = next(each for each in json.loads((ROOT / "examples/truth.json").read_text()) if each["file"] == photo.name)
    position = json.loads(found.stdout)["position"]
    assert position["lat"] == pytest.approx(truth["position"]["lat"], abs=2e-5)  # about two metres
    assert position["lon"] == pytest.approx(truth["position"]["lon"], abs=3e-5)


def test_it_is_a_typed_package(installed):
    program = "import aerofix, service; from importlib.resources import files\n"
    program += "print([(files(each) / 'py.typed').is_file() for each in (aerofix, service)])"  # answers are service's
    assert installed("python", "-c", program).stdout == "[True, True]\n"
    program = "from aerofix import Localizer\nwith Localizer('new.gallery', create=True) as new:\n"
    program += f"    new.add_map({str(ROOT / 'examples/town.tif')!r})\n"
    program += f"    print(new.localize({str(ROOT / 'examples/photos/photo-1.jpg')!r}).status)"
    assert installed("python", "-c", program).stdout == "located\n"


def test_it_is_well(installed):
    assert "keeps the contract" in installed("aerofix", "doctor").stdout
