"""Write the test starts of the tabletop suites: 100 a task of each embodiment, and on the target 200 of each variant.

Usage: python experiments/tabletop/write_states.py   (into src/vlakit/assets/tabletop; the same code, the same bytes)

A variant is what an axis changes in a start: the axis "visual" has three, which take turns within each task, so that it
needs 120 a task; "language" has two, which share their scenes. A bottle that is to be knocked over has no unseen shape,
so "physical" needs 100 a task. More can be added behind; the first ones stay.
"""

from __future__ import annotations

from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.evaluation.suites.tabletop.states import draw_state
from vlakit.evaluation.suites.tabletop.stored import store_states
from vlakit.evaluation.suites.tabletop.suite import TASK_ORDER

EMBODIMENTS = ("d0", "d1", "d2", "d3", "d4", "target")
PER_TASK = 100
PER_TASK_OF_AN_AXIS = {"visual": 120, "motion": 40, "physical": 100, "semantic": 80, "language": 80}


def main() -> None:
    """One file an embodiment and axis."""
    plans = [(name, "none", PER_TASK) for name in EMBODIMENTS]
    plans += [("target", axis, n) for axis, n in PER_TASK_OF_AN_AXIS.items()]
    total = 0
    for name, axis, n in plans:
        embodiment = load_embodiment(name)
        states = [draw_state(embodiment, axis, task, seed, "test") for task in TASK_ORDER for seed in range(n)]
        path = store_states(embodiment, axis, states)
        total += path.stat().st_size
        print(f"{path.name:<28}{len(states):>6} starts{path.stat().st_size:>9,} bytes")
    print(f"{total:,} bytes in all")


if __name__ == "__main__":
    main()
