"""What the documents say can be typed: commands, options, settings, routes, fields, verbs and links that exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from service.app import create_app
from service.cli.main import app as aerofix
from service.settings import Settings
from training.cli import app as aerofix_train

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
PROGRAMS = {"aerofix": typer.main.get_command(aerofix), "aerofix-train": typer.main.get_command(aerofix_train)}


def shell_lines():
    """Every line of every shell block, continued lines joined: ``(page, line)``."""
    for name, text in TEXTS.items():
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                yield name, line.partition("  #")[0].strip()


def commands():
    """Every call of our programs: ``(page, words)``, without what comes before it and after a pipe."""
    for name, line in shell_lines():
        for part in re.split(r"[|;]|&&|\$\(", line):
            found = re.search(r"(?:^|[/\s])(aerofix(?:-train)?)\s+(\S.*)", part)
            if found and "docker" not in part and "://" not in part.split("aerofix")[0]:
                yield name, [found[1], *shlex.split(found[2].replace("…", "x").rstrip(")"))]


def known(words):
    """The command that words name, and the rest of the words."""
    command, rest = PROGRAMS[words[0]], words[1:]
    while getattr(command, "commands", None) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


@pytest.mark.parametrize(
    ("page", "words"), [pytest.param(*each, id=f"{each[0]}:{' '.join(each[1])}") for each in commands()]
)
def test_commands_and_their_options_exist(page, words):
    command, rest = known(words)
    assert not getattr(command, "commands", None) or rest[0].startswith("-"), f"no command {' '.join(words)}"
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert given - {"--help"} <= options


def test_settings_exist():
    named = {(name, found) for name, text in TEXTS.items() for found in re.findall(r"\bAEROFIX_([A-Z0-9_]+)\b", text)}
    settings = {name.upper() for name in Settings.model_fields}
    compose = {"PORT", "DEMO", "DATA", "MEMORY", "TRAIN_MEMORY", "MILVUS_MEMORY"}
    others = compose | {"URL", "KEY"}  # of the client
    assert {(name, found) for name, found in named if found not in settings | others} == set()


def test_routes_and_form_fields_exist(tmp_path, tiny_model):
    app = create_app(Settings(model=tiny_model(tmp_path / "m.onnx"), gallery=tmp_path / "g", device="cpu"))
    app.state.gallery.close()
    paths = app.openapi()["paths"]
    asked = [(page, line) for page, line in shell_lines() if line.startswith("curl") and ":8000" in line]
    assert len(asked) > 5
    for page, line in asked:
        path = re.search(r":8000(/[\w/{}$.]*)", line)
        fitting = [known for known in paths if path and re.fullmatch(re.sub(r"\{\w+\}", r"[^/]+", known), path[1])]
        assert fitting, (page, line)
        fields = set(re.findall(r"-F '?(\w+)=", line))
        if fields:
            body = paths[fitting[0]]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
            schema = app.openapi()["components"]["schemas"][body["$ref"].rpartition("/")[2]] if "$ref" in body else body
            assert fields <= set(schema["properties"]), (page, line)


def test_files_that_are_named_exist():
    named = {found for text in TEXTS.values() for found in re.findall(r"\b(?:configs|benchmarks)/\w+\.\w+", text)}
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_verbs_of_make_exist():
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {found for _, line in shell_lines() for found in re.findall(r"^make ([a-z-]+)", line)}
    assert named
    assert named <= verbs


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        target, _, anchor = link.partition("#")
        if "://" in link or target.startswith(
            "reference/"
        ):  # the pages that the site makes: the strict build checks them
            continue
        file = page if not target else (page.parent / target)
        assert file.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
            assert anchor in slugs, link


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "site/reference/settings.html").read_text()
    assert all(f"AEROFIX_{name.upper()}" in settings for name in Settings.model_fields)
