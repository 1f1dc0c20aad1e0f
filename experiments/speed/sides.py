"""Two implementations side by side, each a process in its own environment; they take turns, task by task.

Imports nothing of vlakit, so that the other environment can run it too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Side:
    """One worker process that does tasks by name."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        pipe, drop = subprocess.PIPE, subprocess.DEVNULL
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        # The idle side must not spin while the other works.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            list(command), cwd=folder, stdin=pipe, stdout=pipe, stderr=drop, text=True, env=environment
        )
        self.answer()

    def answer(self) -> Any:
        """The next line of its output."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit(f"{self.process.args} ended; run it by hand to see why")
        return json.loads(line)

    def do(self, task: str) -> tuple[float, Any]:
        """Seconds, and what the task returned."""
        if self.process.stdin is None:
            raise SystemExit("no pipe to the worker")
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        return self.answer()


def in_turns(sides: Mapping[str, Side], tasks: Mapping[str, str], repeats: int) -> tuple[dict[str, float], float]:
    """tasks: side -> name. Least seconds of each, the first call not counted; how far what they returned differs."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    difference = 0.0
    for _ in range(repeats + 1):
        found = {}
        for name, side in sides.items():
            seconds, found[name] = side.do(tasks[name])
            times[name].append(seconds)
        ours, expected = (np.array(found[name]) for name in ("vlakit", "original"))
        difference = max(difference, float(np.abs(ours - expected).max() / np.abs(expected).max()))
    return {name: min(values[1:]) for name, values in times.items()}, difference


def serve(tasks: Mapping[str, Callable[[], Any]]) -> None:
    """Do the task that each line of the input names; answer a line: seconds and what the task returned."""
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        found = tasks[line.strip()]()
        print(json.dumps([time.perf_counter() - start, found]), file=answers, flush=True)
