"""Evaluations on disk for the tests of comparisons: vlakit's own, and other kits' files in miniature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.evaluation.records import EPISODES, HEADER, EpisodeRecord

VERSIONS = {"mujoco": "3.3.2", "renderer": "egl", "vlakit": "0.1"}


def record(number: int, task: str, credit: float, **changes: Any) -> EpisodeRecord:
    """One episode that moved for two steps."""
    values: dict[str, Any] = {
        "number": number,
        "suite": "tabletop",
        "task": task,
        "instruction": f"do {task}",
        "initial_state": f"{task}_{number:04d}",
        "seed": number,
        "success": bool(credit == 1),
        "credit": float(credit),
        "steps": 2,
        "actions": [[0.1] * 7, [0.2] * 7],
        "versions": VERSIONS,
    }
    return EpisodeRecord(**{**values, **changes})


def write_own(
    folder: Path,
    credits_: Sequence[float],
    tasks: Sequence[str] = ("lift", "push"),
    *,
    states: str = "1f",
    **changes: Any,
) -> Path:
    """An evaluation folder with these credits, the tasks taking turns; `changes` go into every record."""
    folder.mkdir(parents=True)
    records = [record(i, tasks[i % len(tasks)], credit, **changes) for i, credit in enumerate(credits_)]
    (folder / HEADER).write_text(json.dumps({"settings": {"suite": "tabletop", "states": states}, "summary": {}}))
    (folder / EPISODES).write_text("".join(json.dumps(vars(r)) + "\n" for r in records))
    return folder


def outcomes(n: int, rate: float, seed: int) -> list[float]:
    """Random successes."""
    return [float(value) for value in np.random.default_rng(seed).random(n) < rate]


def write_json(file: Path, content: Any) -> Path:
    """A JSON file, its folder made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def foundry(folder: Path, setting: str, model: str, tasks: dict[str, str]) -> Path:
    """A vla_foundry release in its layout from strings of 0 and 1 in the order of scenarios; returns the model."""
    for task, digits in tasks.items():
        rollouts = [
            {"skill_type": task, "scenario_index": i, "is_success": digit == "1", "total_time": 1.0,
             "failure_message": None, "is_pending": False}
            for i, digit in enumerate(digits)
        ]  # fmt: skip
        content = {"max_sample_size_per_model": len(digits), "evaluations": rollouts}
        write_json(folder / setting / model / task / "rollouts" / "2026-04-18T00-00-00" / "results.json", content)
    return folder / setting / model


def lerobot(folder: Path, successes: dict[tuple[str, int], Sequence[bool]]) -> Path:
    """lerobot-eval's eval_info.json of several tasks."""
    per_task = []
    for (group, number), values in successes.items():
        nothing = [0.0] * len(values)
        metrics = {"sum_rewards": nothing, "max_rewards": nothing, "successes": list(values), "video_paths": []}
        per_task.append({"task_group": group, "task_id": number, "metrics": metrics})
    return write_json(folder / "eval_info.json", {"per_task": per_task, "per_group": {}, "overall": {}}).parent


def vla_eval(file: Path, successes: dict[str, Sequence[bool]], *, first: int = 0, **more: Any) -> Path:
    """One aggregate of vla-eval."""
    tasks = [
        {"task": task, "num_episodes": len(s), "avg_steps": 9.0,
         "episodes": [{"episode_id": first + i, "metrics": {"success": v}, "steps": 9} for i, v in enumerate(s)]}
        for task, s in successes.items()
    ]  # fmt: skip
    content = {"benchmark": "LIBEROBenchmark_libero_goal", "mode": "sync", "harness_version": "0.3.0", "config": {}}
    return write_json(file, {**content, "tasks": tasks, **more})
