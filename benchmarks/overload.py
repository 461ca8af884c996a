"""More clients than the service can answer: who is refused, and how long do the others wait?

Starts the service with the demo area, then lets more and more clients ask again and again, each as soon as it has its
answer, or a tenth of a second after a refusal. A service that holds its promise answers as many a second at every load,
refuses the rest at once, and answers nobody later than the deadline.

    python benchmarks/overload.py [--seconds 10] [--deadline-s 10]
"""

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).parents[1]
CLIENTS = (1, 16, 64, 128, 256)
PATIENCE_S = 0.1


async def load(url: str, clients: int, seconds: float) -> tuple[Counter[int], list[float], list[float]]:
    """Ask from ``clients`` at once; how often each status came, and the seconds of each answer and of each refusal."""
    photos = [path.read_bytes() for path in sorted((ROOT / "examples/photos").glob("*.jpg"))]
    end, statuses = time.perf_counter() + seconds, Counter()
    answered, refused = [], []

    async def client(number: int) -> None:
        # a connection of its own: httpx's pool would queue requests among themselves
        async with httpx.AsyncClient(base_url=url, timeout=120, verify=False) as http:  # plain HTTP on this machine
            while (started := time.perf_counter()) < end:
                answer = await http.post("/localize", files={"image": ("p.jpg", photos[number % len(photos)])})
                took = time.perf_counter() - started
                statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    answered.append(took)
                else:
                    refused.append(took)
                    await asyncio.sleep(PATIENCE_S)

    await asyncio.gather(*map(client, range(clients)))
    return statuses, answered, refused


def row(clients: int, seconds: float, outcome: tuple[Counter[int], list[float], list[float]], deadline_s: float) -> str:
    """Return one line of the table."""
    statuses, answered, refused = outcome
    p50, p99, worst = np.percentile(answered, (50, 99, 100))
    refusal = f"{np.percentile(refused, 50) * 1e3:12.0f}" if refused else "           -"
    others = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()) if status not in (200, 429))
    return (
        f"{clients:7}{len(answered) / seconds:11.1f}{statuses[429]:9}{p50:8.2f}{p99:8.2f}{worst:8.2f}"
        f"{p99 / deadline_s:14.2f}{refusal}  {others}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--deadline-s", type=float, default=10)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gallery = str(Path(folder) / "g.gallery")
        aerofix = [sys.executable, "-m", "service.cli.main"]
        subprocess.run([*aerofix, "gallery", "add", str(ROOT / "examples/town.tif"), "--gallery", gallery], check=True)
        command = [
            "env",
            f"AEROFIX_DEADLINE_S={chosen.deadline_s}",
            *aerofix,
            "serve",
            "--port",
            "0",
            "--gallery",
            gallery,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
            url = next(word for word in service.stdout.readline().split() if word.startswith("http://"))
            print("clients  answers/s  refused   p50 s   p99 s   max s  p99/deadline  refusal ms")
            started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
            for clients in CLIENTS:
                outcome = asyncio.run(load(url, clients, chosen.seconds))
                print(row(clients, chosen.seconds, outcome, chosen.deadline_s), flush=True)
            now = resource.getrusage(resource.RUSAGE_SELF)
            cpu = (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime) / (time.perf_counter() - started)
            print(f"\nthe clients used {cpu:.2f} of a core beside the service")
            service.terminate()


if __name__ == "__main__":
    main()
