"""Two nodes, each a launcher of its own on the loopback interface, that meet by c10d: one is killed and comes back."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch
import yaml

from training.config import dump_config

STEPS = 40


def launcher(*options):
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "training.cli", "fit", "--config"]


def rows_of(out):
    """Step, loss and all but the last column, pairs/s."""
    with (out / "log.csv").open() as file:
        return [row[:-1] for row in csv.reader(file)]


def end(node):
    """Kill a launcher and its workers, as a lost machine would."""
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


@pytest.mark.soak
def test_a_node_that_is_killed_comes_back_and_the_losses_are_those_of_a_run_that_never_stopped(tiny_config, tmp_path):
    sections = {"optim": {"steps": STEPS, "lr": 1e-3, "warmup_steps": 0}}
    for name in ("nodes", "never_stopped"):
        tree = dump_config(
            tiny_config(**sections, run={"out": str(tmp_path / name), "device": "cpu", "checkpoint_every": 1})
        )
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    # a launcher that stays does not tell one that is new where the others meet, unless its store is its own
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    two_here = launcher("--standalone", "--nproc-per-node=2")
    subprocess.run([*two_here, str(tmp_path / "never_stopped.yaml")], check=True, capture_output=True, env=env)
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=test", "--local-addr=127.0.0.1"]
    meet += ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]

    def start(name):
        hosts = f"--rdzv-conf=is_host={int(name == 'first')}"  # here both addresses are this machine's
        command = [*launcher(*meet, hosts), str(tmp_path / "nodes.yaml")]
        with (tmp_path / f"{name}.log").open("w") as log:
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    nodes, checkpoint = {name: start(name) for name in ("first", "second")}, tmp_path / "nodes" / "checkpoint.pt"
    try:
        while not checkpoint.exists():
            assert all(node.poll() is None for node in nodes.values()), (tmp_path / "first.log").read_text()
            time.sleep(0.02)
        end(nodes["second"])
        stopped_at = torch.load(checkpoint, weights_only=True)["step"]
        assert stopped_at < STEPS - 1
        nodes["back"] = start("back")
        for name in ("first", "back"):
            assert nodes[name].wait(500) == 0, (tmp_path / f"{name}.log").read_text()
    finally:
        for node in nodes.values():
            end(node)
    assert torch.load(checkpoint, weights_only=True)["step"] == STEPS
    assert rows_of(tmp_path / "nodes") == rows_of(tmp_path / "never_stopped")
