"""One MLflow parent a multirun: opened before its first job, found by the jobs through a file in the sweep's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_FILE = "mlflow_parent"


def parent_of(sweep_dir: Path) -> str | None:
    """The MLflow id of the sweep that writes to this folder; None when nothing is recorded."""
    file = sweep_dir / _FILE
    return file.read_text().strip() if file.is_file() else None


@contextmanager
def closed_early(cfg: DictConfig, parent: str | None) -> Iterator[None]:
    """Close the sweep's run when a job fails: that ends the sweep, and Hydra then calls no callback."""
    try:
        yield
    except BaseException as error:
        if parent is not None:
            from vlakit.tracking.mlflow import end_run

            end_run(cfg.logger.tracking_uri, parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


class SweepRun(Callback):
    """Opens the parent run, closes it, and prints the comparison of its children."""

    def __init__(self) -> None:
        self.failed = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent and note its id in the sweep's folder."""
        if config.logger.get("tracking_uri") is None:
            return
        from vlakit.tracking.mlflow import start_parent

        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        words = [word for word in config.hydra.overrides.task if not word.startswith("paths.")]
        to = config.logger
        parent = start_parent(to.tracking_uri, f"sweep {' '.join(words)}", to.experiment, to.artifacts)
        (folder / _FILE).write_text(parent)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Remember a failure; the sweep's status is the worst of its jobs'."""
        self.failed |= job_return.status != JobStatus.COMPLETED

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Close the parent and print its table."""
        parent = parent_of(Path(config.hydra.sweep.dir))
        if parent is None:
            return
        from vlakit.reports.compare import compare_runs, render
        from vlakit.tracking.mlflow import end_run

        end_run(config.logger.tracking_uri, parent, "FAILED" if self.failed else "FINISHED")
        table = compare_runs(config.logger.tracking_uri, parent=parent, experiment=config.logger.experiment)
        print(f"\n{render(table, 'text')}\nagain: vlakit compare parent={parent}")
