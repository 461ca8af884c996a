"""Does DPHR's reweighting help? The host, the host with a plain triplet loss, and the host with DPHR, paired by seed.

    python benchmarks/dphr.py --data DATA [--out runs/dphr] [--seeds 16] [--arms host plain dphr]

DATA holds ``aerial_texture`` and ``levir_cd`` (``hard_places.py`` says what is made of them). Runs go seed by seed, so
that whatever is finished is balanced, and each is a line of ``OUT/results.jsonl``; the same command goes on with what
is missing, inside a run from its last checkpoint, and prints the tables. ``--print-only`` trains nothing.

*DPHR against the plain triplet is the claim*: DPHR against the host alone would only show that a triplet loss helps.

First comes the manipulation check, a pilot on a seed and with held-back training places that no arm is judged by: does
DPHR move the weights enough to be seen (its gradient over the host's), do its weights differ on the triplets that
count, and does weighing turn the gradient. Nothing goes on where it fails. The plain triplet's ``mu`` is from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import _needs  # noqa: F401 - before the others
import numpy as np
import torch
from frozen import hasten, load_maps
from hard_places import SIZE, Pairs, Questions, load_places
from numpy.typing import NDArray
from paired import show
from torch import Generator, Tensor

from training.batch import Batch
from training.checkpoint import State, resume, save_checkpoint
from training.config import Config, parse_config
from training.distributed import World
from training.methods.dphr import DPHR, negative_weights
from training.methods.losses import nearest_rivals, pairwise_distances, rivals, triplet_terms
from training.models.encoder import Encoder, as_input
from training.precision import Precision, autocast
from training.step import train_step
from training.train import batches, learning_rate, make_state, seed_of

ALONE = World(0, 1, torch.device("cpu"))
#: Weight of DPHR beside the host, which no source gives: its gradient is then about half of the host's.
MU = 1.1
#: What the manipulation check asks for, as means over the pilot: at least, at least, at most.
NEEDED = {"ratio": 0.3, "weights_sd": 0.15, "cosine": 0.98}
#: What no source fixes was turned until the manipulation check held. In the same batches half way and at the end of a
#: pilot, 8, 4, 2 and 1 negatives give a cosine of 0.988 and 0.994, 0.984 and 0.991, 0.980 and 0.987, 0.979 and 0.983; a
#: margin of 0.5 0.985 and 0.995 (2 negatives), one of 1.5 the same as 1; distances that are not squared 0.998; no
#: margin at all (``loss="soft"``) 0.984 and more. The pilot as a whole gives 0.979, and 0.984 with ``MU`` 0.8, which
#: would be half of the host's gradient (0.53 instead of 0.69).
DPHR_KNOBS = {
    **{"negatives": "topk", "k": 2, "distance": "squared", "margin": 1.0},
    **{"weights": [0.0, 2.0], "window": 40, "beta": 0.9},
}
ARMS: dict[str, dict[str, Any]] = {
    "host": {},
    "plain": {"dphr": DPHR_KNOBS | {"lambda_max": 0.0}},  # mu: see pilot
    "dphr": {"dphr": DPHR_KNOBS | {"mu": MU}},
    "csp_hd": {"method": {"name": "csp_hd", "window": 40, "beta": 0.9}},
    "singeo": {"method": {"name": "singeo"}},
    "unifygeo": {"method": {"name": "unifygeo"}, "model": {"local_dim": 32, "local_stride": 16}},
}
#: Of the backbone's seven stages the last four learn. The others are run once for all pictures (``frozen.py``); but
#: not for methods that look at all stages, or turn the pictures themselves. Where only three or two learn, a step takes
#: 0.29 s or 0.17 s instead of 0.37 s, and the host learns less (AP 0.74 or 0.68 instead of 0.77 after 100 steps).
FROZEN, FROM_PICTURES = 3, ("csp_hd", "singeo", "unifygeo")
PILOT_SEED, VALIDATION_EVERY = 0, 8  # every eighth place of training is held back in the pilot
CHECK_EVERY, CURVE_EVERY = 25, 50  # steps
PHOTOS_AT_ONCE = 64
PRECISION: Precision = "bf16"


def settings(arm: str, seed: int, folder: Path, steps: int, plain_mu: float = 1.0) -> Config:
    """Return the settings of an arm: the same for all, but for what the arm is."""
    model = {"embedding_dim": 256, "image_size": SIZE, "frozen_stages": FROZEN}
    special = ARMS[arm]
    tree = {
        "name": arm,
        "method": special.get("method", {"name": "sample4geo"}),
        "dphr": special.get("dphr"),
        "model": model | special.get("model", {}),
        # a quarter of the authors' batch, and so of their quota; both halves of it, nearest and drawn, as theirs
        "sampling": {"then": "dss", "refresh_epochs": 4, "neighbours": 64, "quota": 16},
        "optim": {
            **{"batch_pairs": 32, "steps": steps, "lr": 5e-4, "warmup_steps": 20},
            **{"clip_norm": 1.0, "precision": PRECISION},
        },
        "run": {"seed": seed, "out": str(folder), "device": "cpu"},
    }
    if arm == "plain":
        tree["dphr"] = tree["dphr"] | {"mu": plain_mu}
    return parse_config(tree)


def train(
    config: Config,
    pairs: Pairs,
    *,
    prepare: Callable[[Encoder], None] = lambda encoder: None,
    before: Callable[[State, Batch], None] = lambda state, batch: None,
    after: Callable[[State], None] = lambda state: None,
) -> State:
    """Train, or go on from the run's checkpoint.

    Args:
        config: of the run.
        pairs: to train on.
        prepare: is called with the new encoder.
        before: is called with every batch before its step.
        after: is called after every ``CURVE_EVERY`` steps, before the checkpoint is written.
    """
    torch.manual_seed(config.run.seed)
    state = make_state(config, pairs.places, ALONE)
    prepare(state.encoder)
    checkpoint, steps = config.run.out / "checkpoint.pt", config.optim.steps or 0
    if checkpoint.exists():
        resume(state, checkpoint, config)
    config.run.out.mkdir(parents=True, exist_ok=True)
    for batch in batches(state, pairs, config, ALONE, steps):
        before(state, batch)
        lr = learning_rate(state.step, config.optim, steps, config.optim.warmup_steps)
        dice = Generator().manual_seed(seed_of(config, ALONE) + state.step)
        train_step(state, batch, config.optim, ALONE, dice, progress=state.step / steps, lr=lr)
        if state.step % CURVE_EVERY == 0 or state.step == steps:
            after(state)
            save_checkpoint(state, checkpoint, config)
    return state


def run(
    arm: str,
    seed: int,
    arguments: argparse.Namespace,
    plain_mu: float,
    pairs: Pairs,
    questions: Questions,
    prepare: Callable[[Encoder], None],
) -> dict[str, Any]:
    """Train and judge one arm with one seed: a line of the results."""
    folder, began = arguments.out / f"{arm}-{seed}", time.process_time()
    curve_file = folder / "curve.json"
    curve: dict[str, float] = json.loads(curve_file.read_text()) if curve_file.exists() else {}
    first = replace(questions, photo=questions.photo[:, :1])

    def judge(state: State) -> None:
        curve[str(state.step)] = round(float(ask(state.encoder, first)[0].mean()), 4)
        curve_file.write_text(json.dumps(curve))

    state = train(settings(arm, seed, folder, arguments.steps, plain_mu), pairs, prepare=prepare, after=judge)
    ap, right = ask(state.encoder, questions)
    minutes = (time.process_time() - began) / 60
    found = {"ap": ap.round(4).tolist(), "recall@1": right.round(4).tolist(), "dated": int(questions.dated.sum())}
    points = [[int(step), value] for step, value in curve.items()]
    shutil.rmtree(folder)  # the line of the results is all that is left
    return (
        {"arm": arm, "seed": seed, "steps": arguments.steps, "cpu_minutes": round(minutes, 1)}
        | found
        | {"curve": points}
    )


def ask(encoder: Encoder, questions: Questions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean AP and R@1 of each place's photos, ``[Q]``; AP is 1 / rank of the one right tile, behind its ties."""
    encoder.eval()
    tiles = embed(encoder, questions.tile)
    photos = embed(encoder, questions.photo.flatten(0, 1)).unflatten(0, questions.photo.shape[:2])
    scores = photos @ tiles.T
    own = scores.gather(2, questions.row[:, None, None].expand(*scores.shape[:2], 1))
    rank = (scores >= own).sum(2).double()
    return (1 / rank).mean(1).numpy(), (rank == 1).double().mean(1).numpy()


@torch.inference_mode()
def embed(encoder: Encoder, images: Tensor) -> Tensor:
    """Turn pictures ``[N, 3, S, S]``, uint8, or their maps into ``[N, D]``."""
    with autocast(PRECISION, ALONE.device):
        return torch.cat([encoder(some.permute(0, 2, 3, 1)) for some in images.split(PHOTOS_AT_ONCE)])


def pilot(arguments: argparse.Namespace, pairs: Pairs, prepare: Callable[[Encoder], None]) -> dict[str, Any]:
    """Train DPHR once and look at its gradients on the way.

    Returns:
        ``mean`` of what ``gradients`` measured, ``plain_mu`` that gives the plain triplet DPHR's length of gradient,
        ``validation_ap`` and ``validation_recall@1``; kept in ``OUT/pilot.json``.
    """
    kept, folder = arguments.out / "pilot.json", arguments.out / "pilot"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    held = torch.arange(pairs.places) % VALIDATION_EVERY == 0
    rest = Pairs(pairs.photo[~held], pairs.tile[~held], pairs.offset_m[~held], pairs.tile_side_m)
    asked = Questions(pairs.photo[held][:, :1], pairs.tile[held][:, 0], torch.arange(int(held.sum())), held[held])
    log, rows = folder / "gradients.jsonl", dict[int, dict[str, float]]()
    if log.exists():
        rows = {row["step"]: row for row in map(json.loads, log.read_text().splitlines())}

    def look(state: State, batch: Batch) -> None:
        if state.step % CHECK_EVERY == 0 and state.step:
            rows[state.step] = {"step": state.step, **gradients(state, batch)}
            log.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))

    state = train(settings("dphr", PILOT_SEED, folder, arguments.steps), rest, prepare=prepare, before=look)
    ap, right = ask(state.encoder, asked)
    names = ("ratio", "weights_sd", "cosine", "lambda", "active", "dphr", "plain")
    mean = {name: round(float(np.mean([row[name] for row in rows.values()])), 3) for name in names}
    found = {"mu": MU, "plain_mu": round(MU * mean["dphr"] / mean["plain"], 3), "mean": mean}
    found |= {"validation_ap": round(float(ap.mean()), 4), "validation_recall@1": round(float(right.mean()), 4)}
    kept.write_text(json.dumps(found | {"steps": list(rows.values())}, indent=1))
    return found


def holds(mean: dict[str, float]) -> bool:
    """Tell whether the manipulation check holds."""
    enough = mean["ratio"] >= NEEDED["ratio"] and mean["weights_sd"] >= NEEDED["weights_sd"]
    return enough and mean["cosine"] <= NEEDED["cosine"]


def gradients(state: State, batch: Batch) -> dict[str, float]:
    """Tell what DPHR would do to the weights by one batch: lengths of gradients, and how they point.

    Returns:
        ``ratio``: length of DPHR's gradient over the host's; ``cosine`` of the weighted triplet's gradient to the plain
        one's; ``weights_sd``: of the weights on active triplets; ``active``: their share; ``lambda``; ``dphr`` and
        ``plain``: lengths, DPHR's and the plain triplet's, without ``mu``.
    """
    method, encoder = state.method, state.encoder.train()
    if not isinstance(method, DPHR):
        raise TypeError("only DPHR has these gradients")
    views = (("photo", batch.photo), ("tile", batch.tile))
    with autocast(PRECISION, ALONE.device):
        features = {name: encoder.features(as_input(view)) for name, view in views}
    plain, weighted = method.triplets(features, batch)
    weights = [p for p in encoder.parameters() if p.requires_grad]
    losses = (method.host(features, batch)["loss"], plain, weighted)
    host, one, other = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, retain_graph=True)]) for loss in losses
    )
    strength = float(method.progress.coefficient)
    both = one + strength * other
    c = method.config
    distance = pairwise_distances(features["photo"].embedding, features["tile"].embedding, c.distance).detach()
    counted = nearest_rivals(distance, rivals(batch.place), c.k)
    active = counted & (triplet_terms(distance, c.margin) > 0)
    found = {
        "ratio": c.mu * both.norm() / host.norm(),
        "cosine": torch.cosine_similarity(one, other, dim=0),
        "weights_sd": negative_weights(distance, c.weights)[active].std(),
        "active": active.sum() / counted.sum(),
        "lambda": torch.tensor(strength),
        "dphr": both.norm(),
        "plain": one.norm(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def main() -> None:
    """Train what is missing, then print what there is."""
    arguments = parse()
    results = arguments.results or arguments.out / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    lines = [line for line in lines if line["steps"] == arguments.steps]
    if not arguments.print_only:
        done = {(line["arm"], line["seed"]) for line in lines}
        for line in missing(arguments, done):
            lines.append(line)
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
    if not lines:
        raise SystemExit(f"error: {results} holds no run of {arguments.steps} steps.")
    places, dated = len(lines[0]["ap"]), lines[0]["dated"]
    show(lines, np.arange(places) >= places - dated)


def missing(arguments: argparse.Namespace, done: set[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Train what is not ``done``, arms and seeds, and yield a line of the results for each.

    Raises:
        SystemExit: the manipulation check fails.
    """
    torch.set_num_threads(1)
    pairs, questions = load_places(arguments.data, arguments.out / "views.pt")
    encoder = Encoder(settings("host", PILOT_SEED, arguments.out, arguments.steps).model)
    maps = load_maps(encoder, pairs, questions, arguments.out / "maps.pt")
    check = pilot(arguments, maps.pairs, maps.cut)
    print("manipulation check:", json.dumps({k: v for k, v in check.items() if k != "steps"}), flush=True)
    if not holds(check["mean"]):
        raise SystemExit(f"error: it fails (needed: {NEEDED}): change DPHR_KNOBS or MU, delete OUT/pilot.json.")
    as_pictures, as_maps = (pairs, questions, hasten), (maps.pairs, maps.questions, maps.cut)
    for seed in range(arguments.first_seed, arguments.seeds + 1):
        for arm in arguments.arms:
            if (arm, seed) not in done:
                seen = as_pictures if arm in FROM_PICTURES else as_maps
                yield run(arm, seed, arguments, check["plain_mu"], *seen)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of pictures; needed to train")
    parser.add_argument("--out", type=Path, default=Path("runs/dphr"), help="folder of views, runs and results")
    parser.add_argument("--results", type=Path, help="file of results; default: OUT/results.jsonl")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=1, help="several of these commands can share the seeds")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["host", "plain", "dphr"])
    parser.add_argument("--print-only", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.print_only:
        parser.error("--data is needed to train; --print-only prints what there is")
    return arguments


if __name__ == "__main__":
    main()
