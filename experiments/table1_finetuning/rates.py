"""The rate of each strategy, from its trainings on starts that no table reports.

python experiments/table1_finetuning/rates.py FILE SWEEP...   (FILE gets a row a training of the sweeps)
python experiments/table1_finetuning/rates.py FILE            (the best of each strategy by success; ties to the lower)

A row: strategy, learning rate, LoRA's alpha, seed, starts, successes, mean credit, token accuracy and loss on held-out
frames. Where alphas were compared, the best is named for each.
"""

import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vlakit.evaluation.records import read_episodes

COLUMNS = (
    "strategy", "lr", "alpha", "seed", "episodes", "successes", "credit", "val_token_accuracy", "val_loss"
)  # fmt: skip


def rows(sweep: Path) -> Iterator[dict[str, object]]:
    """One a finished training of the sweep, in the order of its jobs."""
    for file in sorted(sweep.glob("*/job.json"), key=lambda file: int(file.parent.name)):
        job = json.loads(file.read_text(encoding="utf-8"))
        if job["status"] != "finished":
            continue
        words = dict(re.findall(r"([\w.]+)=([\w.+-]+)", " ".join(job["overrides"])))
        episodes = read_episodes(next(iter(file.parent.glob("evaluation/*"))))
        yield {
            "strategy": words["experiment"],
            "lr": f"{float(words['strategy.optimizer.lr']):g}",
            "alpha": words.get("strategy.alpha", "16") if words["experiment"].startswith("lora") else "",
            "seed": words["seed"],
            "episodes": len(episodes),
            "successes": sum(episode.success for episode in episodes),
            "credit": f"{sum(episode.credit for episode in episodes) / len(episodes):.4f}",
            "val_token_accuracy": f"{job['metrics']['val/token_accuracy']:.4f}",
            "val_loss": f"{job['metrics']['val/loss']:.4f}",
        }


def in_order(found: list[dict[str, object]]) -> list[dict[str, object]]:
    """Strategies as they first come, within them by alpha, rate and seed."""
    order = list(dict.fromkeys(str(row["strategy"]) for row in found))

    def place(row: dict[str, object]) -> tuple[float, ...]:
        return order.index(str(row["strategy"])), *(float(str(row[key] or 0)) for key in ("alpha", "lr", "seed"))

    return sorted(found, key=place)


class Choice(NamedTuple):
    """success: by rate, over its trainings; the rate to use; whether it is the least or the largest that was tried."""

    success: dict[float, float]
    trainings: dict[float, int]
    rate: float
    at_edge: bool


def choices(file: Path) -> dict[tuple[str, str], Choice]:
    """By strategy and alpha: the best rate by success, ties to the lower."""
    share: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            share[row["strategy"], row["alpha"]][float(row["lr"])].append(int(row["successes"]) / int(row["episodes"]))
    found = {}
    for key, by_rate in share.items():
        means = {rate: sum(values) / len(values) for rate, values in sorted(by_rate.items())}
        rate = max(means, key=lambda rate: (means[rate], -rate))
        counts = {rate: len(values) for rate, values in by_rate.items()}
        found[key] = Choice(means, counts, rate, len(means) > 1 and rate in (min(means), max(means)))
    return found


def best(file: Path) -> Iterator[str]:
    """A line a strategy and alpha."""
    for (strategy, alpha), choice in choices(file).items():
        shown = "  ".join(f"{rate:g} {mean:.3f} ({choice.trainings[rate]})" for rate, mean in choice.success.items())
        label = f"{strategy} alpha {alpha}" if alpha else strategy
        yield f"{label:<24} {shown}  -> {choice.rate:g}{'  at the edge of its grid' if choice.at_edge else ''}"


def main(file: str, *sweeps: str) -> None:
    """Write the file from the sweeps, if any; print what it says."""
    if sweeps:
        with Path(file).open("w", encoding="utf-8", newline="") as stream:
            out = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            out.writeheader()
            out.writerows(in_order([row for sweep in sweeps for row in rows(Path(sweep))]))
    print("\n".join(best(Path(file))))


if __name__ == "__main__":
    main(*sys.argv[1:])
