"""With the lowest versions that pyproject.toml allows, the demo and the tests of what the service stands on pass."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TESTS = ["pytest>=8", "pytest-asyncio>=0.24", "hypothesis>=6.100"]
SMOKE = [
    "tests/service/http",
    "tests/service/imaging",
    "tests/service/cli/test_gallery.py",
    "tests/service/ground/index",
    "tests/contract/test_index_contract.py",
    "tests/e2e/test_localize.py",
]

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def lowest(tmp_path_factory):
    """``lowest(*words)`` runs Python in an environment of the lowest versions."""
    folder = tmp_path_factory.mktemp("lowest")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(each) for each in [*project["dependencies"], *project["optional-dependencies"]["cpu"]]]
    bounds = [f"{each.name}=={bound.version}" for each in wanted for bound in each.specifier if bound.operator == ">="]
    assert len(bounds) == len(wanted)
    (folder / "lowest.txt").write_text("\n".join(bounds))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv/bin/pip", "install", "--quiet", "--constraint", folder / "lowest.txt"]
    subprocess.run([*pip, f"{ROOT}[cpu]", *TESTS], check=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AEROFIX_"))}
    clean |= {"PYTHONPATH": str(ROOT), "AEROFIX_DEADLINE_S": "120"}  # a slow machine is no failure

    def run(*words):
        command = [folder / "venv/bin/python", *words]
        return subprocess.run(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run


def test_the_demo_finds_its_photos(lowest):
    ended = lowest("examples/demo.py", "--once", "--port", "0")
    assert ended.returncode == 0, ended.stdout


def test_what_the_service_stands_on_is_as_its_tests_want_it(lowest):
    """Old versions warn of what is new elsewhere, so here warnings are none of ours."""
    ended = lowest("-m", "pytest", "-p", "no:cacheprovider", "-o", "filterwarnings=default", *SMOKE)
    assert ended.returncode == 0, ended.stdout
