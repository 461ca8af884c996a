"""Compare the methods under one budget: the same backbone, pictures, seeds and steps, only the objective differs.

    python benchmarks/methods.py --data FOLDER [--survey FOLDER] [--seeds 3] [key=value …]

FOLDER holds aerial pictures (``*.jpg``, ``*.tif``, in sub-folders). Each variant trains on simulated views of nine
tenths of them and is judged on views of the held-back tenth and, with ``--survey``, on real photos over a real map (a
folder as ``benchmarks/real.py`` takes it). Runs are kept in ``--out`` and go on where they stopped; the tables are
printed from what is there, so a second call with more seeds only adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import _needs  # noqa: F401 - before the others
from rich.console import Console
from rich.table import Table
from survey import survey_task

from training.config import Config, load_config
from training.errors import TrainingError
from training.evaluation.embed import load_embedder
from training.evaluation.evaluate import evaluate
from training.train import fit

ROOT = Path(__file__).resolve().parents[1]
#: What a variant changes of the common config. Windows of progress signals are cut to these short runs.
_DPHR = "window: 10"
VARIANTS: dict[str, list[str]] = {
    "Sample4Geo (host)": ["method={name: sample4geo}"],
    "host + DPHR": ["method={name: sample4geo}", f"dphr={{{_DPHR}}}"],
    "host + RDA only": ["method={name: sample4geo}", f"dphr={{{_DPHR}, progressive: false}}"],
    "host + PALW only": ["method={name: sample4geo}", f"dphr={{{_DPHR}, weights: [1, 1]}}"],
    "CSP-HD": ["method={name: csp_hd, window: 10, beta: 0.9}"],
    "SinGeo": ["method={name: singeo}", "sampling={then: dss, refresh_epochs: 1}"],
    "UnifyGeo": ["method={name: unifygeo}", "model.local_dim=32", "model.local_stride=16"],
}


def main() -> None:
    """Train what is missing, then print both tables."""
    arguments = parse()
    names = [name for name in VARIANTS if not arguments.only or name in arguments.only]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(1, arguments.seeds + 1):  # seed by seed: an interrupted comparison is still a fair one
        for name in names:
            folder = arguments.out / f"{slug(name)}-{seed}"
            if not arguments.print_only:
                run(name, seed, folder, arguments)
            if (folder / "result.json").exists():
                results[name].append(json.loads((folder / "result.json").read_text()))
    show({name: found for name, found in results.items() if found})


def run(name: str, seed: int, folder: Path, arguments: argparse.Namespace) -> None:
    """Train and judge one variant with one seed, unless that is done."""
    if (folder / "result.json").exists():
        return
    base = ROOT / "configs" / "data" / "simulated.yaml"
    overrides = [
        *(f"data.root={arguments.data}", "run.evaluate_queries=300", f"run.seed={seed}", f"run.out={folder}"),
        *(f"name={slug(name)}", "optim.warmup_steps=20"),
        *VARIANTS[name],
        *arguments.overrides,
    ]
    config: Config = load_config(base, overrides)
    checkpoint = fit(config)
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    outcome = {"curve": curve, "survey": None}
    if arguments.survey is not None:
        embedder = load_embedder(checkpoint)
        task = survey_task(arguments.survey, embedder.image_size)
        found = evaluate(embedder, [task], dataset="survey", gallery="full", quiet=True)
        outcome["survey"] = found["tasks"][task.name]["full"]["metrics"]
    (folder / "result.json").write_text(json.dumps(outcome, indent=1))


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    """Show mean ± standard deviation over seeds."""
    table = Table(title="held-back places, drone → satellite; survey: real photos, heading unknown")
    columns = ("seeds", "R@1", "AP", "< 25 m", "steps to 90 %", "survey < 43 m", "survey median")
    for column in ("method", *columns):
        table.add_column(column)
    for name, found in results.items():
        last = [r["curve"][-1] for r in found]
        surveys = [r["survey"] for r in found if r["survey"]]
        table.add_row(
            name,
            str(len(found)),
            spread(100 * m["drone_to_satellite/recall@1"] for m in last),
            spread(100 * m["drone_to_satellite/ap"] for m in last),
            spread(100 * m["drone_to_satellite/within_25m"] for m in last),
            spread((steps_to_90_percent(r["curve"]) for r in found), digits=0),
            spread(100 * s["recall@1"] for s in surveys),
            spread((s["error_median_m"] for s in surveys), " m"),
        )
    Console(width=140).print(table)


def steps_to_90_percent(curve: list[dict[str, float]]) -> float:
    """Return the first judged step with at least 90 % of the last R@1."""
    goal = 0.9 * curve[-1]["drone_to_satellite/recall@1"]
    return next(point["step"] for point in curve if point["drone_to_satellite/recall@1"] >= goal)


def spread(values: Iterable[float], unit: str = "", digits: int = 1) -> str:
    """Write ``mean ± standard deviation``; without the latter for a single value."""
    numbers = list(values)
    if not numbers:
        return "-"
    mean = f"{statistics.mean(numbers):.{digits}f}{unit}"
    return mean if len(numbers) == 1 else f"{mean} ± {statistics.stdev(numbers):.{digits}f}"


def slug(name: str) -> str:
    """Return a file name for a variant."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the config, for all variants: optim.steps=400 …")
    parser.add_argument("--data", type=Path, required=True, help="folder of aerial pictures")
    parser.add_argument("--survey", type=Path, help="folder with a map and photos of known position")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="some of the variants")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--print-only", action="store_true", help="train nothing")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except TrainingError as error:
        raise SystemExit(f"error: {error}") from None
