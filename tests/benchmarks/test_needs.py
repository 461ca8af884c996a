"""Where only the service is installed, what needs more says so in one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = [
    path
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if re.search(r"^(import torch|from training|from service\.bulk)", path.read_text(), re.MULTILINE)
    and "__main__" in path.read_text()
]

# a Python that has only what the service needs
LIGHT = """
import runpy, sys
for name in ("torch", "timm", "yaml", "tensorboard", "pyarrow"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
sys.path[:0] = [sys.argv[0].rpartition("/")[0], "examples"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments):
    command = [sys.executable, "-c", LIGHT, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_names_what_to_install(path):
    ended = run(path)
    assert ended.returncode == 1
    extra = "bulk" if path.name == "bulk.py" else "train"
    assert re.fullmatch(rf"error: \w+ is not installed: .*aerofix\[{extra}\].*\n", ended.stderr)


def test_training_names_what_to_install():
    for arguments in (("fit",), ("export", "--checkpoint", "c", "--out", "o")):
        ended = run(ROOT / "training" / "cli.py", *arguments)
        assert ended.returncode in (1, 2)
        assert "Traceback" not in ended.stderr
    assert re.fullmatch(
        r"error: \w+ is not installed: .*aerofix\[train\].*\n", run(ROOT / "training/cli.py", "fit").stderr
    )


def test_other_servers_are_named_with_what_installs_them():
    ended = run(ROOT / "benchmarks" / "serving.py", "peers", "--peers-python", "no/such/python")
    assert ended.returncode == 2
    assert "no/such/python has no litserve and bentoml; `make bench` installs them" in ended.stderr
