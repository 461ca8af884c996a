"""Build the images and see a container through its life, without a Docker engine: ``make containers``.

Debian's ``buildah`` builds ``docker/Dockerfile`` over a base image made by ``debootstrap``, ``podman`` runs the CPU
image as ``docker-compose.yml`` does, and ``podman-compose``, from the package index, brings the service up from that
file. Run it as root on Debian or Ubuntu:

    python3 docker/containers.py            the CPU image, its life, and the compose file
    python3 docker/containers.py gpu train  build these targets too, several GB each
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("buildah", "podman", "runc", "debootstrap")
BASE = "docker.io/library/python:3.11-slim-bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
STORE = Path(os.environ.get("AEROFIX_CONTAINERS", "/var/tmp/aerofix-containers"))
PORT = 8099
URL = f"http://127.0.0.1:{PORT}"
START_S = 1200
"""The slowest machine adds the demo map within so many seconds; a container that has ended is not waited for."""

PATIENT = ["--env", "AEROFIX_DEADLINE_S=120"]
"""What is seen here is whether a container works, not how fast."""

LOCKED = ["--read-only", "--cap-drop", "ALL", "--user", "10001:10001", "--security-opt", "no-new-privileges"]
"""As the compose file has it."""

ALSO = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
OVERRIDE = """
services:
  cpu:
    ulimits: {nofile: {soft: 20000, hard: 20000}, nproc: {soft: 4096, hard: 4096}}
    environment: {AEROFIX_DEADLINE_S: "120"}
"""
LIMITS = ["--network", "host", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096"]
"""What lets podman run where there is no systemd and no network of its own, as inside another container."""


def main(targets: list[str]) -> int:
    """Build the CPU image and run it, then build ``targets``; returns the exit status."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        print(f"skipped: needs root, and {', '.join(TOOLS)} from Debian; not here: {', '.join(missing) or 'root'}.")
        return 0
    os.environ["STORAGE_DRIVER"] = "vfs"  # works on any file system, also inside another container
    STORE.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    make_base()
    with tempfile.TemporaryDirectory() as folder:
        mounts = pip_as_here(Path(folder))
        build("cpu", mounts)
        live()
        compose()
        for target in targets:
            build(target, mounts)
    print("containers: all steps passed")
    return 0


def make_base() -> None:
    """Put Debian's own Python under the name of the image that the Dockerfile starts from, unless it is there."""
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return
    say("base image by debootstrap")
    with tempfile.TemporaryDirectory(dir=STORE) as folder:
        root = Path(folder) / "root"
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root), mirror())
        (root / "usr/bin/python").symlink_to("python3")
        archive = Path(folder) / "root.tar"
        run("tar", "-C", str(root), "--exclude=./var/cache/apt/archives/*.deb", "-cf", str(archive), ".")
        podman("import", "--change", 'CMD ["python3"]', str(archive), BASE)


def mirror() -> str:
    """The mirror that this machine takes its packages from."""
    words = run("apt-get", "indextargets", "--format", "$(SITE)", quiet=True)
    sites = [site for site in words.stdout.split() if "security" not in site]
    return sites[0] if sites else "http://deb.debian.org/debian"


def pip_as_here(folder: Path) -> list[str]:
    """Mount what lets a build install from where this machine's pip does: its settings, and the files they name."""
    listed = run(sys.executable, "-m", "pip", "config", "list", quiet=True)
    settings: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip("'").replace("\\n", "\n")
    lines = [f"{name} = " + value.replace("\n", "\n    ") for name, value in settings.items()]
    (folder / "pip.conf").write_text("[global]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    mounts = ["--volume", f"{folder / 'pip.conf'}:/etc/pip.conf:ro"]
    named = {Path(word.removeprefix("file://")) for value in settings.values() for word in value.split()}
    for path in {path.parent if path.name == "simple" else path for path in named}:  # an index has its files beside it
        if path.is_absolute() and path.exists():
            mounts += ["--volume", f"{path}:{path}:ro"]
    return mounts


def build(target: str, mounts: list[str]) -> None:
    """One target of the Dockerfile; without intermediate images, each of which would be a whole copy."""
    say(f"build {target}")
    started = time.monotonic()
    how = ["--isolation", "chroot", "--network", "host", "--layers=false", *mounts]
    run("buildah", "build", *how, "--target", target, "--tag", f"aerofix:{target}", "--file", "docker/Dockerfile", ".")
    say(f"built {target} in {time.monotonic() - started:.0f} s")


def live() -> None:
    """The CPU image through its life: demo map, photos, kill, restart, full /tmp, SIGTERM."""
    podman("rm", "--force", "--ignore", "aerofix-life")
    podman("volume", "rm", "--force", "aerofix-life", check=False)
    volume = ["--volume", "aerofix-life:/gallery:U"]
    tmp = ["--tmpfs", "/tmp:rw,size=8m,mode=1777"]
    given = ["--env", "AEROFIX_INSECURE=true", "--env", "AEROFIX_HOST=127.0.0.1", "--env", f"AEROFIX_PORT={PORT}"]
    say("first start: it adds the demo map")
    podman(
        *("run", "--detach", "--name", "aerofix-life", *LIMITS, *LOCKED, *volume, *tmp, *given, *PATIENT),
        *("--entrypoint", "serve-with-demo", "aerofix:cpu"),
    )
    ready("aerofix-life")
    count = gallery_count()
    located()
    say(f"demo map of {count} windows and tiles, and six photos located; kill -9")
    podman("kill", "--signal", "KILL", "aerofix-life")
    podman("start", "aerofix-life")
    ready("aerofix-life")
    expect(gallery_count() == count, "the gallery is whole after kill -9")
    say("full /tmp: a large upload is refused, and photos go on")
    status, problem = post_padded(Path("examples/photos/photo-1.jpg"), 16 * 2**20)
    expect(status == 507, f"an upload that finds no room is answered 507, not {status}: {problem[:200]}")
    located()
    say("SIGTERM")
    podman("stop", "--time", "60", "aerofix-life")
    code = podman("inspect", "--format", "{{.State.ExitCode}}", "aerofix-life").stdout.strip()
    expect(code in ("0", "143"), f"it ends by itself after SIGTERM, with {code}")
    podman("rm", "--force", "aerofix-life")
    podman("volume", "rm", "--force", "aerofix-life")


def compose() -> None:
    """The compose file, read by an implementation of compose: the service comes up from it, answers, and goes down."""
    say("docker-compose.yml by podman-compose")
    environment = os.environ | {"AEROFIX_PORT": str(PORT), "COMPOSE_PROFILES": "cpu"}
    override = STORE / "override.yml"
    override.write_text(OVERRIDE, encoding="utf-8")
    words = (podman_compose(), f"--podman-args={' '.join(ALSO)}", "-f", "docker-compose.yml", "-f", str(override))
    run(*words, "down", "--volumes", env=environment, check=False, quiet=True)
    run(*words, "up", "--detach", "--no-build", env=environment, quiet=True)
    try:
        ready("aerofix_cpu_1")
        located()
        say("six photos located through the port that the compose file publishes")
    finally:
        run(*words, "down", "--volumes", env=environment, quiet=True)


def podman_compose() -> str:
    """podman-compose in an environment of its own: that of Debian 12 knows no profiles."""
    program = STORE / "venv/bin/podman-compose"
    if not program.exists():
        run(sys.executable, "-m", "venv", str(STORE / "venv"))
        run(str(STORE / "venv/bin/pip"), "install", "--quiet", "podman-compose>=1.5")
    return str(program)


def ready(container: str) -> None:
    """Wait until the service in a container says that it is ready."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and runs(container):
        try:
            with urllib.request.urlopen(f"{URL}/readyz", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(1)
    print(podman("logs", "--tail", "40", container, check=False).stdout)
    expect(False, f"the service is ready within {START_S} s")


def runs(container: str) -> bool:
    """Whether a container has not ended."""
    return podman("inspect", "--format", "{{.State.Running}}", container).stdout.strip() == "true"


def gallery_count() -> int:
    """How much the gallery says that it holds."""
    with urllib.request.urlopen(f"{URL}/gallery", timeout=30) as answer:
        return int(json.load(answer)["count"])


def located() -> None:
    """All demo photos are located."""
    for photo in sorted(Path("examples/photos").glob("*.jpg")):
        done = run("curl", "--silent", "--form", f"image=@{photo}", f"{URL}/localize", quiet=True)
        expect(json.loads(done.stdout)["status"] == "located", f"{photo.name} is located")


def post_padded(photo: Path, size: int) -> tuple[int, str]:
    """Send a photo with zeros behind it, ``size`` bytes in all; returns the status and what the answer says."""
    with tempfile.NamedTemporaryFile(suffix=".jpg") as padded:
        padded.write(photo.read_bytes())
        padded.truncate(size)
        padded.flush()
        form = f"image=@{padded.name}"
        done = run("curl", "--silent", "--write-out", "\n%{http_code}", "--form", form, f"{URL}/localize", quiet=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def podman(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman."""
    return run("podman", *(ALSO if words[0] in ("run", "start") else []), *words, check=check, quiet=True)


def run(
    *words: str, check: bool = True, quiet: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; its failure ends everything, with what it said."""
    done = subprocess.run(words, capture_output=quiet, text=True, env=env)
    if check and done.returncode != 0:
        print(done.stdout or "", done.stderr or "")
        sys.exit(f"failed ({done.returncode}): {' '.join(words)}")
    return done


def expect(holds: bool, what: str) -> None:
    """End with what does not hold."""
    if not holds:
        sys.exit(f"does not hold: {what}")


def say(text: str) -> None:
    """Tell which step runs."""
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
