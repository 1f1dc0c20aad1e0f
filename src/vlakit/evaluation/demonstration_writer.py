"""A folder of demonstrations: DIR/1.0.0 is RLDS like any other, DIR/demonstrations.json says how it was made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlakit import __version__
from vlakit.data.rlds.writer import RldsWriter
from vlakit.errors import ConfigError, CorruptRecord
from vlakit.evaluation.demonstrator import Demonstrator
from vlakit.evaluation.suite import Suite
from vlakit.files import disk_full_as_error, publish, write_atomically

RECORD = "demonstrations.json"
VERSION = "1.0.0"


def write_demonstrations(
    demonstrator: Demonstrator, out: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Write the plan's episodes to a new folder `out`, which is whole or absent; returns what demonstrations.json says.

    The same plan again does nothing. progress is called with (episodes kept, episodes wanted). Raises ConfigError when
    `out` holds something else, DiskFull, and what demonstrating raises.
    """
    suite = demonstrator.build()
    tasks = demonstrator.plan.check(suite)
    settings = {**asdict(demonstrator.plan), "tasks": tasks}
    made_from = {
        "suite": suite.name,
        "dataset": suite.dataset,
        "control_hz": suite.control_hz,
        "contract": dict(suite.surroundings),
        "plan": settings,
        "vlakit": __version__,
        "versions": dict(suite.versions),
    }
    if out.exists():
        return _finished_before(out, made_from)
    partial = out.with_name(out.name + ".partial")
    with disk_full_as_error(out):
        partial.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial / VERSION, ignore_errors=True)  # of a command killed between its last two renames
        _write_episodes(demonstrator, suite, partial, len(tasks) * demonstrator.plan.episodes, progress)
        record = {**made_from, "tasks": {task: asdict(tally) for task, tally in demonstrator.tallies.items()}}
        write_atomically(partial / RECORD, json.dumps(record, indent=1) + "\n")
        publish(partial, out)
    return record


def _write_episodes(
    demonstrator: Demonstrator, suite: Suite, folder: Path, n_wanted: int, progress: Callable[[int, int], None] | None
) -> None:
    with RldsWriter(folder, suite.dataset, VERSION) as writer:
        for done, demonstration in enumerate(demonstrator, 1):
            state = demonstration.state
            metadata = {"suite": suite.name, "task": state.task, "initial_state": state.name, "seed": state.seed}
            writer.write({"steps": demonstration.steps(), "episode_metadata": metadata})
            if progress:
                progress(done, n_wanted)


def _finished_before(out: Path, made_from: dict[str, Any]) -> dict[str, Any]:
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "the folder holds something else than demonstrations", where=str(out), do="give a new folder: out=DIR"
        ) from None
    except ValueError as error:
        raise CorruptRecord(f"{RECORD} is no JSON: {error}", where=str(out), do="delete the folder") from None
    differing = [key for key, value in json.loads(json.dumps(made_from)).items() if record.get(key) != value]
    if differing:
        raise ConfigError(
            f"the folder holds demonstrations of another {', '.join(differing)}",
            where=str(out),
            do="give a new folder with out=DIR, or delete this one",
        )
    return record
