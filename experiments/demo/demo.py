"""`just demo`: real Bridge episodes to shards, a short pretraining, two fine-tunings from it, evaluation, comparison.

Each step is a command that you could type; it is printed before it runs.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = Path("runs/demo")
SHARDS = Path("data/sample/bridge_orig")
STRATEGIES = ("last_layer", "lora_r32")


def step(title: str, *words: str) -> None:
    """Print and run one command; a failing one ends the demo."""
    print(f"\n== {title}\n$ {shlex.join(words)}", flush=True)
    program = {"vlakit": [sys.executable, "-c", "from vlakit.cli.app import main; main()"], "python": [sys.executable]}
    environment = {**os.environ, "VLAKIT_RUNS": str(RUNS)}
    done = subprocess.run([*program[words[0]], *words[1:]], cwd=ROOT, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """The whole tour."""
    started = time.perf_counter()
    stamp = time.strftime("%Y%m%d-%H%M%S")

    def run(name: str) -> str:
        return str(RUNS / f"{name}-{stamp}")

    step("1. RLDS episodes -> WebDataset shards", "vlakit", "shards", "dataset=bridge_orig", "source=sample",
         f"out={SHARDS}", "val_fraction=0.2")  # fmt: skip
    step("2. read them all again", "vlakit", "shards", f"verify={SHARDS}")
    step("3. pretrain a 2.3 M parameter OpenVLA", "python", "train.py", "experiment=pretrain", "steps=200",
         f"hydra.run.dir={run('pretrain')}")  # fmt: skip
    for name in STRATEGIES:
        step(f"4. fine-tune it: {name}", "python", "train.py", f"experiment={name}", "steps=100",
             f"model.weights={run('pretrain')}/last.ckpt", f"hydra.run.dir={run(name)}")  # fmt: skip
    for name in ("pretrain", *STRATEGIES):
        step(f"5. held-out episodes: {name}", "vlakit", "evaluate", f"ckpt={run(name)}")
    step("6. side by side", "vlakit", "compare")
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    print(f"""
Done in {minutes} min {seconds} s. Predicted against recorded trajectories:
  {run("lora_r32")}/evaluation/bridge_orig_val.png
Twenty episodes are enough to see every part work, not to learn a task: expect the held-out error to stay above that of
repeating the previous action. What to try next:
  vlakit explain model=openvla_7b strategy=lora     who trains, who learns, at 7B
  python train.py -m experiment=full,lora_r32 seed=0,1    a sweep: one MLflow parent, one table
  VLAKIT_RUNS={RUNS} just ui                    the runs in a browser""")


if __name__ == "__main__":
    main()
