"""A multirun: one MLflow parent, and a note in each job's folder of how it ended, by which a killed sweep goes on."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from vlakit.cli.configuration import PROVIDER
from vlakit.cli.errors import as_vlakit_error, readable_errors
from vlakit.cli.sweep_page import write_page
from vlakit.cli.targets import OPEN
from vlakit.errors import ConfigError, VlakitError
from vlakit.files import locked, write_atomically

log = logging.getLogger(__name__)
_FILE, JOB = "mlflow_parent", "job.json"
PLACES = (  # where, not what
    *(
        "paths.",
        "logger",
        "data.root=",
        "data.sources",
        "data.specs",
        "model.processor.tokenizer_path=",
        "evaluate.videos=",
    ),
    *(f"{key}=null" for key in OPEN),  # makes room for what follows (configuration.whole)
)
RUNNING, FINISHED, FAILED = "running", "finished", "failed"
_WATCHED: list[threading.Thread] = []  # of this process: it may run several jobs


def without(words: Sequence[str], heads: tuple[str, ...]) -> list[str]:
    """The words of a command line that begin with none of `heads`; a leading + or ~ does not count."""
    return [word for word in words if not word.lstrip("+~").startswith(heads)]


def parent_of(sweep_dir: Path) -> str | None:
    """The MLflow id of the sweep that writes to this folder; None when nothing is recorded."""
    file = sweep_dir / _FILE
    return file.read_text().strip() if file.is_file() else None


def continued(words: Sequence[str]) -> list[str]:
    """The words with which the sweep in `continue=DIR` was begun; other words as they are. Raises ConfigError."""
    resumed = [word for word in words if word.startswith("continue=")]
    if not resumed:
        return list(words)
    if set(words) - {*resumed, "-m", "--multirun"} or len(resumed) > 1:
        raise ConfigError(
            "a sweep goes on as it began, without other words", where=" ".join(words), do=f"train.py -m {resumed[0]}"
        )
    folder = Path(resumed[0].removeprefix("continue="))
    file = folder / "multirun.yaml"
    if not file.is_file():
        raise ConfigError("no sweep here", where=str(folder), do="give the folder of a sweep: RUNS/sweeps/DATE")
    begun = yaml.safe_load(file.read_text(encoding="utf-8"))["hydra"]
    overrides = begun["overrides"]
    kept = [word for word in overrides["hydra"] if not word.startswith(("hydra.sweep.dir=", "hydra.mode="))]
    folders = [f"--config-dir={it['path']}" for it in begun["runtime"]["config_sources"] if it["provider"] == PROVIDER]
    planted = [word for word in (*overrides["task"], *kept) if "_target_" in word or "${" in word]
    if planted:
        do = f"if it is yours, say so: its words again, and hydra.sweep.dir={folder}"
        raise ConfigError(f"the sweep's file names code: {planted[0]}", where=str(file), do=do)
    return ["-m", *folders, *overrides["task"], *kept, f"hydra.sweep.dir='{folder}'"]


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its folder, its words, its run's name and parent."""

    folder: Path
    overrides: Sequence[str]
    name: str
    parent: str | None

    def run(self, cfg: DictConfig, train: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Train unless this job finished here before; what a killed one left is gone on with.

        A failure is printed, noted and recorded, and the other jobs go on. Where another process has this job, such as
        one that its killed sweep left and that has not ended yet, it is waited for. Raises ConfigError for another
        sweep's folder.
        """
        with locked(self.folder, wait=True):
            return self._run(cfg, train)

    def _run(self, cfg: DictConfig, train: Callable[[], dict[str, float]]) -> dict[str, float]:
        from vlakit.cli.resuming import AUTO

        before = read_note(self.folder)
        if before.get("overrides", list(self.overrides)) != list(self.overrides):
            raise ConfigError(
                f"this folder holds the job {' '.join(before['overrides'])}",
                where=str(self.folder),
                do=f"python train.py -m continue={self.folder.parent}, or another hydra.sweep.dir",
            )
        if before.get("status") == FINISHED:
            log.info("finished before: %s in %s", self.name, self.folder)
            return before["metrics"]
        if before and cfg.ckpt_path is None:
            cfg.ckpt_path = AUTO
        self._note(RUNNING)
        try:
            metrics = train()
        except Exception as error:
            self._failed(cfg, error)
            return {}
        self._note(FINISHED, metrics=metrics)
        return metrics

    def _failed(self, cfg: DictConfig, error: Exception) -> None:
        known = as_vlakit_error(error)
        print(known if known else "".join(traceback.format_exception(error)), file=sys.stderr)
        why = f"{type(known).__name__}: {known.what}" if known else f"{type(error).__name__}: {error}"
        self._note(FAILED, why=why)
        if self.parent is not None:
            from vlakit.tracking.mlflow import Failure, record_failure

            to = cfg.logger
            failure = Failure(self.name, str(self.folder), _params(cfg), why)
            record_failure(
                to.tracking_uri, failure, experiment=to.experiment, artifacts=to.artifacts, parent=self.parent
            )

    def _note(self, status: str, **more: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"status": status, "name": self.name, "overrides": list(self.overrides), **more}
        write_atomically(self.folder / JOB, json.dumps(content) + "\n")


def read_note(folder: Path) -> dict[str, Any]:
    """What a job noted in its folder; empty where none began."""
    file = folder / JOB
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _params(cfg: DictConfig) -> dict[str, Any]:
    from vlakit.cli.configuration import to_plain
    from vlakit.tracking.params import params_of

    try:
        return params_of(to_plain(cfg))
    except VlakitError:  # the failure may be that a value is missing
        return {"name": cfg.name, "seed": cfg.seed}


def sign_lines(name: str) -> None:
    """In a process that a launcher started: say in front of each line on the terminal which job it is of."""
    if multiprocessing.parent_process() is None:
        return
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:  # not its child for files
            handler.setFormatter(logging.Formatter(f"[{name}] %(message)s"))


def start_as_usual() -> None:
    """In a process of joblib: let its own children start as Python's do, for only joblib knows how its own start."""
    if multiprocessing.get_start_method(allow_none=True) not in (None, *multiprocessing.get_all_start_methods()):
        multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)


def die_with_parent() -> None:
    """In a process that a launcher started: end with the process that the sweep was started in.

    SIGTERM, over and over, lets a training save its checkpoint first, and ends whatever would begin behind it.
    """
    parent = multiprocessing.parent_process()
    if parent is None or _WATCHED:
        return

    def watch(above: int) -> None:
        while os.getppid() == above:
            time.sleep(0.5)
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)

    _WATCHED.append(threading.Thread(target=watch, args=(os.getppid(),), daemon=True))
    _WATCHED[0].start()


@contextmanager
def closed_early(cfg: DictConfig, parent: str | None) -> Iterator[None]:
    """Close the sweep's run when it is interrupted: Hydra then calls no callback."""
    try:
        yield
    except BaseException as error:
        if parent is not None:
            from vlakit.tracking.mlflow import end_run

            end_run(cfg.logger.tracking_uri, parent, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


class SweepRun(Callback):
    """Opens the parent run, closes it, prints the comparison of its children, and ends with 1 when one failed."""

    def __init__(self) -> None:
        self._alone = ExitStack()

    def __reduce__(self) -> tuple[type[SweepRun], tuple[()]]:
        """A launcher sends its callbacks to the jobs' processes: the folder stays held by this one."""
        return SweepRun, ()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent, or the one of a sweep that goes on, and note its id in the sweep's folder.

        Ends the command where that sweep is still running, or no store answers: Hydra makes a warning of an error here.
        """
        with readable_errors():
            self._alone.enter_context(locked(Path(config.hydra.sweep.dir), who="another sweep"))
            self._open(config)

    def _open(self, config: DictConfig) -> None:
        if config.logger.get("tracking_uri") is None:
            return
        from vlakit.tracking.mlflow import client, reopen, start_parent

        folder, to = Path(config.hydra.sweep.dir), config.logger
        before = parent_of(folder)
        if before is not None and reopen(client(to.tracking_uri), before):
            return
        words = without(config.hydra.overrides.task, PLACES)
        name, home = f"sweep {' '.join(words)}", str(folder.absolute())
        parent = start_parent(to.tracking_uri, name, to.experiment, to.artifacts, home)
        (folder / _FILE).write_text(parent)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Close the parent, print its table, and name what failed: other launchers run jobs in other processes, so
        how they ended is read from their folders.
        """
        self._alone.close()
        folder = Path(config.hydra.sweep.dir)
        jobs = {file.parent: read_note(file.parent) for file in sorted(folder.glob(f"*/{JOB}"))}
        notes = list(jobs.values())
        failed = [note for note in notes if note["status"] != FINISHED]
        page = write_page(folder, {job: without(note["overrides"], PLACES) for job, note in jobs.items()})
        if page is not None:
            print(f"page: {page}")
        parent = parent_of(folder)
        if parent is not None:
            from vlakit.tracking.mlflow import end_run, record_evaluation

            end_run(config.logger.tracking_uri, parent, "FAILED" if failed else "FINISHED")
            if len(failed) < len(notes):
                from vlakit.reports.recorded import compare_runs, render

                table = compare_runs(config.logger.tracking_uri, parent=parent, experiment=config.logger.experiment)
                print(f"\n{render(table, 'text')}\nagain: vlakit compare parent={parent}")
                report = folder / "comparison.csv"
                report.write_text(render(table, "csv") + "\n", encoding="utf-8")
                record_evaluation(config.logger.tracking_uri, parent, {}, [report, *([page] if page else [])], "report")
        if failed:
            lines = [f"  {note['name']}: {note.get('why', note['status'])}" for note in failed]
            again = f"again, these alone: python train.py -m continue={shlex.quote(str(folder))}"
            print("\n".join([f"{len(failed)} of {len(notes)} jobs failed:", *lines, again]), file=sys.stderr)
            sys.exit(1)
