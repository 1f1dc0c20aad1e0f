"""Ending a command: an error of vlakit's own prints three lines, not a traceback (VLAKIT_DEBUG=1 shows it)."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from vlakit.errors import ConfigError, DiskFull, PartMissing, RankLost, VlakitError
from vlakit.files import FULL

SIGNALLED = 128  # and the signal's number: what a shell expects of a program that one ended
CLOSED = 141  # of one whose reader is gone, as `head` is after its lines


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn what a user can mend into a short message and exit status 1; anything else keeps its traceback."""
    try:
        yield
        sys.stdout.flush()  # here, not when Python ends, where a closed pipe makes a traceback
    except KeyboardInterrupt as end:
        print("interrupted", file=sys.stderr)
        sys.exit(SIGNALLED + getattr(end, "number", signal.SIGINT))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left goes nowhere
            sys.exit(CLOSED)
        known = as_vlakit_error(error)
        if known is None or os.environ.get("VLAKIT_DEBUG", "0") != "0":
            raise
        print(known, file=sys.stderr)
        sys.exit(1)


def as_vlakit_error(error: BaseException | None) -> VlakitError | None:
    """The vlakit error behind `error`, looked for along its causes.

    A full disk, a value that a constructor refused and a package that is not installed count as one.
    """
    from hydra.errors import InstantiationException

    from vlakit.cli.targets import unbuilt_part

    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("vlakit"):
        package = str(error.name).partition(".")[0]
        return PartMissing(f"{package} is not installed", do="pip install vlakit, without --no-deps, brings it")
    unbuilt: VlakitError | None = None
    while error is not None:
        if isinstance(error, VlakitError):
            return error
        if isinstance(error, InstantiationException):
            unbuilt = unbuilt or unbuilt_part(error)
        known = _of_a_library(error)
        if known is not None:
            return known
        error = error.__cause__ or error.__context__
    return unbuilt


def _of_a_library(error: BaseException) -> VlakitError | None:
    """What the system, MLflow or torch.distributed says, where a user can mend it."""
    from vlakit.tracking.mlflow import StoreUnreachable

    said = (str(error).splitlines() or [""])[0][:200]
    if isinstance(error, OSError) and error.errno in FULL:
        return DiskFull(
            "no space left on the device", where=str(error.filename or "output"), do="free some space, then repeat"
        )
    if isinstance(error, OSError) and error.filename:  # read-only, absent, a file for a folder, no rights, too long
        return ConfigError(
            f"cannot use this path: {error.strerror}", where=str(error.filename), do="check the path and its rights"
        )
    if type(error).__name__ == "MlflowException":
        return StoreUnreachable(
            f"MLflow refused: {said}",
            where="tracking_uri",
            do="repeat; train.py runs without a record too: logger=none",
        )
    if isinstance(error, RuntimeError) and ("/gloo/" in said or type(error).__name__.startswith("Dist")):
        return RankLost(
            f"another process of this training has ended: {said}",
            where=f"process {os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0'))}",
            do="what it said stands beside this; the same command with ckpt_path=auto goes on from the last checkpoint",
        )
    return None


def _unread() -> bool:
    """Whether nobody reads what this process prints."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def quiet_libraries() -> None:
    """Hear libraries from warnings on, and not those that a user of vlakit can do nothing about."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("lightning")]:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()  # lightning adds its own beside the root's, so that every line comes twice
    for words in (
        "Checkpoint directory .* exists and is not empty",  # the run's own folder: Hydra's files are in it
        ".*does not have many workers which may be a bottleneck",  # time/data_wait_share says whether it is one
        ".*treespec, LeafSpec.*",
        ".*litlogger.*",
        "The `srun` command is available",
    ):
        warnings.filterwarnings("ignore", message=words)
