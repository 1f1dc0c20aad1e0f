"""How fast the tabletop steps, draws, demonstrates and rolls out a policy, and where the time goes.

Usage: python experiments/speed/tabletop/bench.py [ckpt=tiny] [embodiment=d0] [episodes=200] [only=simulator,whole]
(writes results.csv beside it; seconds are CPU seconds of all threads where nothing else is said, which other people's
work on the machine disturbs less than the clock)
"""

from __future__ import annotations

import csv
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from vlakit.evaluation.demonstration_writer import write_demonstrations
from vlakit.evaluation.demonstrator import DemonstrationPlan, Demonstrator
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.starts import shared_states
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.suites.tabletop.expert import expert
from vlakit.evaluation.suites.tabletop.painter import Painter, painter
from vlakit.evaluation.suites.tabletop.scene import World
from vlakit.evaluation.suites.tabletop.states import Start
from vlakit.evaluation.suites.tabletop.suite import TabletopSuite
from vlakit.policy import TrainedPolicy

OUT = Path(__file__).with_name("results.csv")
COMPARED = 64  # episodes of slots=1 against slots=32


def main() -> None:
    """Measure all and write results.csv."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    policy = TrainedPolicy.from_checkpoint(given.get("ckpt", "tiny"))
    embodiment = given.get("embodiment", "d0")
    dataset = f"tabletop_{embodiment}"
    known = policy.processor.statistics
    suite = TabletopSuite(embodiment, dataset=dataset if dataset in known else next(iter(known)))
    states = shared_states(suite, int(given.get("episodes", 200)))
    policy.pad_to = policy.processor.text_width(state.instruction for state in states)
    measurements: dict[str, Callable[[], list[list[Any]]]] = {
        "simulator": lambda: simulator(suite, states[:20]),
        "demonstrations": lambda: demonstrations(embodiment),
        "batches": lambda: batches(suite, policy, states[:COMPARED]),
        "whole": lambda: whole(suite, policy, states),
        "workers": lambda: workers(suite, policy, states),
    }
    with OUT.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["what", "value", "unit"])
        table.writerow(["command", " ".join(["bench.py", *sys.argv[1:]]), ""])
        table.writerow(["machine", f"2 shared cores, {suite.versions['renderer']}, no GPU", ""])
        table.writerow(["versions", f"torch {torch.__version__}, mujoco {suite.versions['mujoco']}", ""])
        for name in given.get("only", ",".join(measurements)).split(","):
            for row in measurements[name]():
                table.writerow(row)
                print(f"{row[0]:<46}{row[1]:>12} {row[2]}", flush=True)
            stream.flush()


def simulator(suite: TabletopSuite, states: Sequence[InitialState]) -> list[list[Any]]:
    """Physics, pictures and resets, on their own."""
    starts = [Start.from_dict(state.content) for state in states]

    def reset() -> list[World]:
        worlds = [World(suite.embodiment, start.layout) for start in starts]
        for world in worlds:
            world.settle()
        return worlds

    reset()
    resetting, worlds = cpu(reset)
    acting, steps = 0.0, 0
    for world, start in zip(worlds, starts, strict=True):
        for _ in range(10):
            action = expert(world, start.goal)
            acting += cpu(partial(world.act, action))[0]
            steps += 1
    rows: list[list[Any]] = [
        ["compile and settle a world", f"{1e3 * resetting / len(worlds):.2f}", "ms"],
        ["control steps (physics)", f"{steps / acting:.0f}", "1/s"],
    ]
    for size in (64, 224):
        draw = painter(size).paint
        draw(worlds[0])
        seconds, _ = cpu(lambda draw=draw: [draw(world) for _ in range(10) for world in worlds])
        rows.append([f"pictures of {size} px", f"{10 * len(worlds) / seconds:.0f}", "1/s"])
    return rows


def demonstrations(embodiment: str) -> list[list[Any]]:
    """The expert's episodes, written as RLDS."""
    with tempfile.TemporaryDirectory() as folder:
        demonstrator = Demonstrator(partial(TabletopSuite, embodiment), DemonstrationPlan(episodes=40))
        seconds, _ = cpu(lambda: write_demonstrations(demonstrator, Path(folder) / "out"))
    kept, tried = (sum(getattr(t, key) for t in demonstrator.tallies.values()) for key in ("kept", "tried"))
    return [
        ["demonstrations, written", f"{kept / seconds:.1f}", "1/s"],
        ["the noisy expert succeeds", f"{kept / tried:.3f}", "share"],
    ]


def batches(suite: TabletopSuite, policy: TrainedPolicy, states: Sequence[InitialState]) -> list[list[Any]]:
    """Rollouts one at a time and 32 at a time, on the same starts."""
    play(suite, policy, states[:5], 5)
    spent = {slots: play(suite, policy, states, slots)[0] for slots in (1, 32)}
    rows = [[f"episodes, slots={slots}", f"{len(states) / seconds:.2f}", "1/s"] for slots, seconds in spent.items()]
    return [*rows, ["slots=32 over slots=1", f"{spent[1] / spent[32]:.2f}", "x"]]


def whole(suite: TabletopSuite, policy: TrainedPolicy, states: Sequence[InitialState]) -> list[list[Any]]:
    """An evaluation of usual size, and which share each part of it has."""
    parts = {"rendering": [(Painter, "paint")], "physics": [(World, "act")], "policy": [(TrainedPolicy, "act")]}
    parts["making worlds"] = [(World, "__init__"), (World, "settle")]
    spent = dict.fromkeys(parts, 0.0)
    with ExitStack() as stack:
        for name, methods in parts.items():
            for kind, method in methods:
                stack.enter_context(timed(kind, method, spent, name))
        began = perf_counter()
        seconds, records = play(suite, policy, states, 32)
        clock = perf_counter() - began
    steps = sum(record.steps for record in records)
    return [
        [f"{len(states)} episodes, slots=32", f"{seconds:.1f}", "s"],
        [f"{len(states)} episodes, slots=32, by the clock", f"{clock:.1f}", "s"],
        ["mean steps an episode", f"{steps / len(records):.1f}", "steps"],
        ["success", f"{sum(record.success for record in records) / len(records):.3f}", "share"],
        *([f"share of {name}", f"{share / seconds:.3f}", "share"] for name, share in spent.items()),
    ]


def workers(suite: TabletopSuite, policy: TrainedPolicy, states: Sequence[InitialState]) -> list[list[Any]]:
    """Environments in this process or in two others, start included."""
    rows: list[list[Any]] = []
    clocks: dict[int, float] = {}
    for n in (0, 2):
        children, began = children_s(), perf_counter()
        seconds, _ = play(suite, policy, states, 32, n)
        clocks[n] = perf_counter() - began
        rows.append([f"{len(states)} episodes, workers={n}, clock", f"{clocks[n]:.1f}", "s"])
        rows.append([f"{len(states)} episodes, workers={n}", f"{seconds + children_s() - children:.1f}", "s"])
    return [*rows, ["workers=2 over workers=0, by the clock", f"{clocks[0] / clocks[2]:.2f}", "x"]]


def play(
    suite: TabletopSuite, policy: TrainedPolicy, states: Sequence[InitialState], slots: int, n_workers: int = 0
) -> tuple[float, list[Any]]:
    """CPU seconds of this process, and the records."""
    return cpu(lambda: list(rollout(suite, policy, states, Options(slots, n_workers))))


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of all threads of this process, and what the work gave."""
    began = process_time()
    result = work()
    return process_time() - began, result


def children_s() -> float:
    """CPU seconds of child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def timed(kind: type, method: str, spent: dict[str, float], name: str) -> Iterator[None]:
    """Add to spent[name] what every call of a method costs."""
    own = getattr(kind, method)

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = process_time()
        try:
            return own(*args, **kwargs)
        finally:
            spent[name] += process_time() - began

    setattr(kind, method, measured)
    try:
        yield
    finally:
        setattr(kind, method, own)


if __name__ == "__main__":
    main()
