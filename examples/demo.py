"""The demo: start the service, add the demo area, localize its photos with curl, and compare with the truth.

Run by ``make demo``. With ``--once`` it stops the service and exits: 0 when every photo was located within reach of its
stated accuracy, else 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from rich.console import Console

HERE = Path(__file__).parent
AEROFIX = Path(sys.executable).with_name("aerofix")
#: ``accuracy_m`` holds 68 % of a Rayleigh error; twice that radius holds 99 %: 1 - 0.32 ** 4.
REACH = 2.0
START_TIMEOUT_S = 300  # the first start reads a new installation from the disk
console = Console()


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="exit when the photos are done")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    options = parser.parse_args()
    port = options.port or _free_port()
    url = f"http://127.0.0.1:{port}"
    if not _is_free(port):
        again = f"{os.path.relpath(sys.executable)} {os.path.relpath(__file__)} --port 0"
        console.print(f"[red]Port {port} is taken.[/] Stop what runs there, or: {again}", soft_wrap=True)
        return 1
    with tempfile.TemporaryDirectory(prefix="aerofix-demo-") as folder:
        service = subprocess.Popen(
            [AEROFIX, "serve", "--port", str(port), "--gallery", f"{folder}/demo.gallery"],
            env={**os.environ, "AEROFIX_LOG_LEVEL": os.environ.get("AEROFIX_LOG_LEVEL", "WARNING")},
        )
        try:
            _wait_ready(url, service)
            subprocess.run([AEROFIX, "gallery", "add", HERE / "town.tif", "--url", url], check=True)
            good = localize_photos(url)
            if not options.once:
                console.print(f"\nThe service runs on [bold]{url}[/] (API: {url}/docs). Ctrl-C stops it.")
                service.wait()
        except KeyboardInterrupt:
            return 0
        except subprocess.CalledProcessError as error:
            console.print(f"[red]{Path(error.cmd[0]).name} failed with exit code {error.returncode}.[/]")
            return 1
        except TimeoutError as error:
            console.print(f"[red]{error}[/]")
            return 1
        finally:
            service.terminate()
            service.wait()
    return 0 if good else 1


def localize_photos(url: str) -> bool:
    """Localize every demo photo and print answer, truth and error; true when all lie within reach."""
    truths = json.loads((HERE / "truth.json").read_text())
    console.print(
        "\nPositions are lat, lon of the ground point at the image centre; ± holds the truth with 68 %.", soft_wrap=True
    )
    good = True
    for truth in truths:
        photo = HERE / "photos" / truth["file"]
        answer = ask(url, photo)
        status, position, true = answer.get("status", answer.get("title")), answer.get("position"), truth["position"]
        if position is None:
            console.print(f"  [red]{status}[/]   true {_latlon(true)}", highlight=False)
            good = False
            continue
        error_m = distance_m(position, true)
        within = status == "located" and error_m <= REACH * position["accuracy_m"]
        good &= within
        console.print(
            f"  [{'green' if within else 'red'}]{status}[/] {_latlon(position)} ± {position['accuracy_m']:.1f} m"
            f"   true {_latlon(true)}   error [bold]{error_m:.1f} m[/]",
            highlight=False,
            soft_wrap=True,
        )
    return good


def ask(url: str, photo: Path) -> dict:
    """The README's curl command for one photo (httpx asks the same where curl is not installed)."""
    command = ["curl", "-s", "-F", f"image=@{photo}", f"{url}/localize"]
    if shutil.which("curl") is None:
        return httpx.post(f"{url}/localize", files={"image": photo.read_bytes()}, timeout=60).json()
    console.print(f"[dim]$ {' '.join(command).replace(str(HERE.parent) + '/', '')}[/]", soft_wrap=True)
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def distance_m(a: dict[str, float], b: dict[str, float]) -> float:
    """Great-circle distance of two ``{lat, lon}`` in metres (haversine, mean Earth radius 6,371,008.8 m)."""
    lat_a, lat_b = math.radians(a["lat"]), math.radians(b["lat"])
    east = math.radians(b["lon"] - a["lon"])
    h = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(east / 2) ** 2
    return 2 * 6_371_008.8 * math.asin(math.sqrt(h))


def _latlon(place: dict[str, float]) -> str:
    return f"{place['lat']:.5f}, {place['lon']:.5f}"


def _wait_ready(url: str, service: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise subprocess.CalledProcessError(service.returncode, ["aerofix serve"])
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"The service runs, but is not ready after {START_TIMEOUT_S} s; is the machine busy?")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
