"""`just demo`: the shipped 2 M-parameter VLA meets a new robot; three ways to fine-tune it, on shared initial states.

Each step is a command that you could type; it is printed before it runs. `just demo-check` compares the numbers with
the band in which a run of another seed is expected. Another seed than 0: python experiments/demo/demo.py 1
"""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from scipy import stats

ROOT = Path(__file__).parents[2]
RUNS = Path("runs/demo")
STRATEGIES = ("full", "lora_r32", "last_layer")
EPISODES, TASKS = 200, 5
RECORD = ROOT / "experiments" / "table1_finetuning" / "runs"
BIN = Path(sys.executable).parent
BIN = BIN.relative_to(ROOT) if BIN.is_relative_to(ROOT) else BIN  # .venv/bin, as the README has it


def step(title: str, *words: str, capture: bool = False) -> str:
    """Print and run one command; a failing one ends the demo. Returns what it printed, if captured."""
    print(f"\n== {title}\n$ {shlex.join(words)}", flush=True)
    program = {"vlakit": [sys.executable, "-c", "from vlakit.cli.app import main; main()"], "python": [sys.executable]}
    # two jobs of one thread each do more than one of two: the model is small
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "VLAKIT_RUNS": str(RUNS)}
    done = subprocess.run(
        [*program[words[0]], *words[1:]],
        cwd=ROOT,
        env=environment,
        check=False,
        text=True,
        stdout=subprocess.PIPE if capture else None,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def main(seed: int = 0) -> dict[str, float]:
    """The whole tour; returns the success of each policy."""
    started = time.perf_counter()
    sweep = RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-seed{seed}"
    demonstrations = Path(os.environ.get("VLAKIT_DATA", "data"), "rlds", f"tabletop_target_seed{seed}")
    step("1. 240 demonstrations of the new robot, by a scripted expert with noise",
         "vlakit", "demonstrate", "suite=tabletop_target", "episodes=48", f"seed={seed}",
         f"out={demonstrations}")  # fmt: skip
    step("2. fine-tune the shipped model three ways, then 200 episodes each in closed loop",
         "python", "train.py", "-m", f"experiment={','.join(STRATEGIES)}", "scale=table", f"seed={seed}",
         f"hydra.sweep.dir={sweep}", f"evaluate.episodes={EPISODES}",
         "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")  # fmt: skip
    folders = {"before": sweep / "before"}
    step("3. the shipped model as it is, on the new robot",
         "vlakit", "evaluate", "ckpt=tiny", "suite=tabletop_target", "suite.dataset=tabletop_d0",
         f"episodes={EPISODES}", f"out={folders['before']}")  # fmt: skip
    folders |= {name: sweep / str(job) / "evaluation" / "tabletop_target" for job, name in enumerate(STRATEGIES)}
    runs = "{" + ",".join(f"{name}:{folder}" for name, folder in folders.items()) + "}"
    step("4. same initial states, paired differences", "vlakit", "compare", f"runs={runs}", "by_task=false")
    page = sweep / "report.html"
    report = step("5. the same as a page for a browser",
                  "vlakit", "compare", f"runs={runs}", "format=html", capture=True)  # fmt: skip
    (ROOT / page).write_text(report, encoding="utf-8")
    success = {name: _success(ROOT / folder) for name, folder in folders.items()}
    (ROOT / sweep / "success.json").write_text(json.dumps(success, indent=1) + "\n", encoding="utf-8")
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    print(f"""
Done in {minutes} min {seconds} s. Videos and contact sheets: {sweep}/*/evaluation/tabletop_target. Report: {page}
What to try next:
  {BIN}/vlakit evaluate ckpt={sweep}/1 suite=tabletop_ood episodes=200     the axes of generalisation
  {BIN}/vlakit explain model=openvla_7b strategy=lora                      who trains, who learns, at 7B
  VLAKIT_RUNS={RUNS} just ui                                        the runs in a browser""")
    return success


def _success(folder: Path) -> float:
    lines = (folder / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["success"] for line in lines) / len(lines)


def bands(level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Success between which one further training lies, by strategy, from the trainings of Table 1 on the same starts.

    Student's prediction interval for one new observation beside n: mean +- t(n - 1) x spread x sqrt(1 + 1/n).
    """
    found = {"before": (0.0, 0.03)}  # the shipped model won none of 200: three of 200 and more would be another model
    for name in STRATEGIES:
        wins: dict[str, list[int]] = defaultdict(list)
        with (RECORD / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                number = int(row["initial_state"].split()[0].rpartition("-")[2])
                if number < EPISODES // TASKS:
                    wins[row["run"]].append(int(row["success"]))
        shares = [mean(won) for won in wins.values()]
        n = len(shares)
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * stdev(shares) * (1 + 1 / n) ** 0.5
        found[name] = max(0.0, mean(shares) - half), min(1.0, mean(shares) + half)
    return found


def check(success: dict[str, float]) -> None:
    """Compare with the bands; exits with 1 when a number lies outside its own."""
    outside = 0
    for name, (low, high) in bands().items():
        inside = low <= success[name] <= high
        outside += not inside
        print(f"{name:<12}{success[name]:>7.3f}   expected {low:.2f} to {high:.2f}   {'ok' if inside else 'OUTSIDE'}")
    sys.exit(outside > 0)


if __name__ == "__main__":
    words = sys.argv[1:]
    result = main(*(int(word) for word in words if word.isdigit()))
    if "check" in words:
        check(result)
