"""Actions a second of each head and chunk, one robot, in turns: python experiments/oft/speed.py [--threads N].

What a network has learnt does not change how long it takes, so each is trained for one step. An answer is one
observation to numbers, preprocessing included. Writes speed.csv; run it on a quiet machine.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

from vlakit.evaluation.speed import answer_seconds
from vlakit.policy import TrainedPolicy

HERE = Path(__file__).parent
HEADS = {"tokens": "discrete", "parallel": "parallel", "l1": "l1", "diffusion": "diffusion"}
CHUNKS, ROUNDS = (1, 4, 8), 6


def trained(head: str, chunk: int, out: Path) -> TrainedPolicy:
    """A policy of this head after one step on the frames that vlakit ships."""
    words = [f"model.network.head={head}", f"model.processor.chunk={chunk}", "steps=1", "validate_every=1"]
    program = [sys.executable, "train.py", "experiment=oft_tiny", *words, "logger=none", f"hydra.run.dir={out}"]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE.parents[1])
    return TrainedPolicy.from_checkpoint(out)


def main() -> None:
    """Train, measure in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    with tempfile.TemporaryDirectory() as folder:
        names = [(name, head, chunk) for name, head in HEADS.items() for chunk in CHUNKS]
        policies = {(n, c): trained(head, c, Path(folder) / f"{n}_{c}") for n, head, c in names}
        seconds: dict[tuple[str, int], list[float]] = {key: [] for key in policies}
        for _ in range(ROUNDS):
            for key, policy in policies.items():
                seconds[key] += answer_seconds(policy)
    usual = median(seconds["tokens", 1])
    with (HERE / "speed.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "head", "chunk", "answers", "ms", "actions_per_s", "times_tokens_1"])
        for (name, chunk), found in seconds.items():
            once = median(found)
            rate = [f"{1e3 * once:.2f}", f"{chunk / once:.1f}", f"{chunk * usual / once:.1f}"]
            writer.writerow([f"{name}_{chunk}", HEADS[name], chunk, len(found), *rate])
    print((HERE / "speed.csv").read_text(), end="")


if __name__ == "__main__":
    main()
