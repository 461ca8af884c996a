"""The Dockerfile and docker-compose.yml say the same, and what they should; no engine is needed to read them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from service.http.server import FLUSH_S
from service.settings import Settings

ROOT = Path(__file__).parents[2]
TARGETS = {"cpu": "cpu,otel,milvus", "gpu": "gpu,otel,milvus", "train": "cpu,train"}


def stages():
    """Stage name → (the stage or image that it is from, its instructions as (word, rest))."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    found, current = {}, None
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.strip().split(maxsplit=1)
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            current = []
            found[name] = (base, current)
        else:
            current.append((word, " ".join(rest.split())))
    return found


def layers(name):
    """All instructions of a stage with those of the stages that it is from; its outermost image comes last."""
    base, own = stages()[name]
    if base not in stages():
        return own, base
    inherited, image = layers(base)
    return inherited + own, image


def last(name, word):
    return [rest for each, rest in layers(name)[0] if each == word][-1]


def environment(name):
    words = [word for each, rest in layers(name)[0] if each == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="module")
def compose():
    """docker-compose.yml, with every variable at its default."""
    text = (ROOT / "docker-compose.yml").read_text()
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_slim_pinned_and_not_roots(target):
    _, image = layers(target)
    assert re.fullmatch(r"python:3\.11-slim-[a-z]+", image)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(target, "USER"))


@pytest.mark.parametrize(("target", "extras"), TARGETS.items())
def test_packages_are_installed_once_and_the_sources_stay_behind(target, extras):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()
    inside = layers(target)[0]
    (install,) = [rest for word, rest in inside if word == "RUN" and "pip install" in rest]
    assert f"[{extras}]" in install
    assert "--constraint /wheels/constraints.txt" in install
    assert "--mount=type=cache,target=/root/.cache/pip" in install
    assert "--mount=type=bind,from=build,source=/wheels,target=/wheels" in install
    copied = {part for word, rest in inside if word == "COPY" for part in rest.split()[:-1]}
    assert copied.isdisjoint({"aerofix", "service", "training"})
    assert not any("--from" in part for part in copied)


def test_what_is_copied_is_there_and_let_through():
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = {
        rest for stage in stages() for word, rest in stages()[stage][1] if word == "COPY" and "--from" not in rest
    }
    sources = {part for rest in copies for part in rest.split()[:-1] if not part.startswith("--")}
    assert sources == let_through
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_all_that_the_wheel_is_made_of_is_there_when_it_is_built():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {part for word, rest in stages()["build"][1] if word == "COPY" for part in rest.split()[:-1]}
    assert {"LICENSE", "NOTICE"} <= set(about["project"]["license-files"]) <= copied
    wheel = about["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {Path(each).parts[0] for each in [*wheel["packages"], *wheel["force-include"]]} <= copied


def test_versions_are_pinned_for_every_extra():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {canonical(re.fullmatch(r"([\w.-]+)==[\w.]+", line)[1]) for line in lines}  # and no address of a registry
    assert len(pinned) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    named = {canonical(re.match(r"[\w.-]+", each)[0]) for each in wanted}
    assert named - {project["name"]} <= pinned  # extras may be made of others
    # what onnxruntime-gpu (CUDA 13, cuDNN) and faiss-gpu (CUDA 12) load; cuDNN's release decides whether a model runs
    assert {"nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cublas-cu12"} <= pinned


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.soak
def test_the_cpu_images_steps_install_a_service_that_is_well(tmp_path):
    """What ``docker build --target cpu`` runs, without Docker; it takes minutes and needs a package index."""
    places = {"/src": "src", "/wheels": "wheels", "/opt/aerofix": "opt", "/models": "src/models", "/gallery": "gallery"}

    def here(text):
        return re.sub("|".join(places), lambda place: str(tmp_path / places[place[0]]), text)

    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source, target = ROOT / line[1:], tmp_path / "src" / line[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    variables = {name: here(value) for name, value in environment("cpu").items() if name != "PATH"}
    path = os.pathsep.join([here("/opt/aerofix/bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    for stage in ("build", "cpu"):
        for word, rest in stages()[stage][1]:
            if word == "RUN":
                step = here(re.sub(r"--mount=\S+", "", rest))
                done = subprocess.run(
                    ["sh", "-ec", step], cwd=tmp_path / "src", env={"PATH": path, "HOME": str(tmp_path)} | variables
                )
                assert done.returncode == 0, step
    (notice,) = (tmp_path / "opt").glob("lib/python*/site-packages/aerofix-*.dist-info/licenses/NOTICE")
    assert notice.read_text() == (ROOT / "NOTICE").read_text()


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_is_set_up_with_settings_that_exist(target):
    given = {name for name in environment(target) if name.startswith("AEROFIX_")}
    assert {"AEROFIX_HOST", "AEROFIX_MODEL", "AEROFIX_GALLERY"} <= given
    assert given <= {f"AEROFIX_{name.upper()}" for name in Settings.model_fields}
    assert "AEROFIX_INSECURE" not in given  # run by itself, it wants keys
    assert environment(target)["ORT_DISABLE_TELEMETRY"] == "1"
    assert (ROOT / environment(target)["AEROFIX_MODEL"].lstrip("/")).exists()


def test_one_service_runs_when_no_profile_is_named(compose):
    default = re.search(r"^COMPOSE_PROFILES=(.*)$", (ROOT / ".env").read_text(), re.M)[1]
    profiles = {name: service["profiles"] for name, service in compose["services"].items()}
    assert [name for name, mine in profiles.items() if default in mine] == ["cpu"]
    assert [name for name, mine in profiles.items() if "gpu" in mine] == ["gpu"]
    assert profiles["train"] == ["train"]


@pytest.mark.parametrize("name", ["cpu", "gpu", "train", "train-gpu"])
def test_a_container_may_do_nothing_that_it_need_not(compose, name):
    service = compose["services"][name]
    target = service["build"]["target"]
    assert service["user"] == last(target, "USER")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0].startswith("/tmp:")
    written = {volume.split(":")[1] for volume in service["volumes"] if not volume.endswith(":ro")}
    assert written == {last(target, "VOLUME")}
    assert (ROOT / service["build"]["dockerfile"]).exists()
    gpu = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    assert [device["capabilities"] for device in gpu] == ([["gpu"]] if "gpu" in name else [])


def test_no_container_takes_all_memory_or_all_processes(compose):
    for name, service in compose["services"].items():
        assert re.fullmatch(r"[1-9]\d*g", service["mem_limit"]), name
        assert 256 <= service["pids_limit"] <= 4096, name


def test_training_has_shared_memory_for_the_batches_of_its_loader(compose):
    """Two batches for each of 16 processes, both images of 128 pairs of 384 pixels as bytes."""
    batch_bytes = 2 * 128 * 3 * 384 * 384
    for name in ("train", "train-gpu"):
        assert int(compose["services"][name]["shm_size"].removesuffix("gb")) * 2**30 >= 16 * 2 * batch_bytes


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_without_keys_only_this_machine_gets_in(compose, name):
    service = compose["services"][name]
    assert service["environment"]["AEROFIX_INSECURE"] == "true"
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    known = {f"AEROFIX_{field.upper()}" for field in Settings.model_fields}
    assert set(service["environment"]) - known == {"AEROFIX_DEMO"}


def test_the_values_for_the_service_can_be_read(compose, monkeypatch):
    for name, value in (environment("cpu") | compose["services"]["cpu"]["environment"]).items():
        monkeypatch.setenv(name, value or "")
    settings = Settings()
    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "::1")
    assert (settings.insecure, settings.read_keys, settings.write_keys) == (True, (), ())


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_health_is_readiness_and_stopping_waits_for_the_drain(compose, name):
    service = compose["services"][name]
    check = service["healthcheck"]["test"]
    assert check[:3] == ["CMD", "python", "-c"]
    assert f"http://127.0.0.1:{environment(name)['AEROFIX_PORT']}/readyz" in check[3]
    compile(check[3], "healthcheck", "exec")
    assert json.dumps(check[1:]) in last(name, "HEALTHCHECK")
    drain_s = Settings.model_fields["drain_s"].default
    assert int(service["stop_grace_period"].removesuffix("s")) >= drain_s + FLUSH_S


def test_services_that_share_a_milvus_only_look_at_the_gallery(compose):
    services = {name: each for name, each in compose["services"].items() if "milvus" in each["profiles"]}
    assert services.keys() == {"milvus", "fill", "shared"}
    assert "ports" not in services["milvus"]  # it asks nobody for a key
    shared, fill = services["shared"], services["fill"]
    assert all(volume.endswith(":ro") for each in (shared, fill) for volume in each["volumes"])
    assert {"AEROFIX_MILVUS_URI", "AEROFIX_INSECURE"} <= shared["environment"].keys()
    known = {f"AEROFIX_{field.upper()}" for field in Settings.model_fields}
    assert set(shared["environment"]) - known == {"AEROFIX_DEMO"}
    assert all(port.startswith("127.0.0.1:") for port in shared["ports"])
    address = shared["environment"]["AEROFIX_MILVUS_URI"]
    assert fill["entrypoint"] == ["aerofix", "gallery", "copy", environment("cpu")["AEROFIX_GALLERY"], address]
    assert shared["depends_on"]["fill"]["condition"] == "service_completed_successfully"
    for each in (shared, fill):
        assert (each["user"], each["read_only"], each["cap_drop"]) == (last("cpu", "USER"), True, ["ALL"])
