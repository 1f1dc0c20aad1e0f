"""Runs whose process is gone: none stays RUNNING for ever, and points that found no store are filed when it is back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

from vlakit.files import FolderBusy, locked, write_atomically
from vlakit.tracking.mlflow import HOST, OUTPUT, log_points
from vlakit.tracking.points import Point

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEFT = "unrecorded.json"


def leave_behind(output: Path, points: Sequence[Point]) -> None:
    """Write points that found no store into the run's folder, where the next training's `close_dead` finds them."""
    write_atomically(output / LEFT, json.dumps(points))


def close_dead(store: MlflowClient, experiment: str) -> None:
    """Close each run of this machine that is RUNNING though no process holds its folder.

    One that was trained to its end and lacked the store alone is FINISHED, with its points; the others were KILLED.
    """
    running = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{gethostname()}'"
    for run in store.search_runs([experiment], running, max_results=1000):
        folder = Path(run.data.tags.get(OUTPUT, ""))
        if not folder.is_absolute() or not folder.is_dir():
            continue
        with suppress(FolderBusy, OSError), locked(folder):
            left = folder / LEFT
            if left.is_file():
                log_points(store, run.info.run_id, [tuple(point) for point in json.loads(left.read_text())])
                left.unlink()
                store.set_terminated(run.info.run_id, "FINISHED")
            else:
                store.set_terminated(run.info.run_id, "KILLED")
