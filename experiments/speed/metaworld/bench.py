"""How often Meta-World's scripted policies succeed when they may act only every `repeat` control steps.

Usage: python experiments/speed/metaworld/bench.py EPISODES [REPEAT,REPEAT,...]   (writes results.csv beside it)
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from vlakit.evaluation.suites.metaworld.suite import LIMIT, MetaWorld
from vlakit.evaluation.suites.metaworld.world import World

OUT = Path(__file__).with_name("results.csv")


def measure(world: World, starts: list[list[float]], repeat: int) -> list[object]:
    """Successes, median and 95th percentile of actions to success."""
    lengths: list[int] = []
    for start in starts:
        world.reset(start)
        for action in range(LIMIT // repeat):
            own = world.scripted(repeat)
            if any(world.step(own) for _ in range(repeat)):
                lengths.append(action + 1)
                break
    middle, late = np.quantile(lengths, [0.5, 0.95]).round(1) if lengths else ("", "")
    return [repeat, len(starts), len(lengths), middle, late]


def main() -> None:
    """Write one row a task and repeat, each finished task at once."""
    n_episodes = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    repeats = [int(word) for word in (sys.argv[2] if len(sys.argv) > 2 else "1,2,4,5,6,8,10").split(",")]
    suite = MetaWorld("MT50")
    with OUT.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["task", "repeat", "episodes", "successes", "median_actions", "p95_actions"])
        for task in suite.tasks:
            starts = [list(state.content["rand_vec"]) for state in suite.initial_states(task, n_episodes)]
            world = World(task)
            for repeat in repeats:
                table.writerow([task, *measure(world, starts, repeat)])
            stream.flush()


if __name__ == "__main__":
    main()
