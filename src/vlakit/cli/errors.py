"""Ending a command: an error of vlakit's own prints three lines, not a traceback (VLAKIT_DEBUG=1 shows it)."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature

from vlakit.configs import config_file_with
from vlakit.errors import ConfigError, DiskFull, VlakitError, nearest
from vlakit.files import FULL

INTERRUPTED = 130  # what a shell expects of a program ended by Ctrl-C


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn what a user can mend into a short message and exit status 1; anything else keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        known = as_vlakit_error(error)
        if known is None or os.environ.get("VLAKIT_DEBUG", "0") != "0":
            raise
        print(known, file=sys.stderr)
        sys.exit(1)


def as_vlakit_error(error: BaseException | None) -> VlakitError | None:
    """The vlakit error behind `error`, looked for along its causes; a full disk and a refused value count as one."""
    from hydra.errors import InstantiationException

    unbuilt: VlakitError | None = None
    while error is not None:
        if isinstance(error, VlakitError):
            return error
        if isinstance(error, InstantiationException):
            unbuilt = unbuilt or _unbuilt(error)
        if isinstance(error, OSError) and error.errno in FULL:
            return DiskFull(
                "no space left on the device", where=str(error.filename or "output"), do="free some space, then repeat"
            )
        if isinstance(error, PermissionError | FileExistsError | NotADirectoryError) and error.filename:
            return ConfigError(
                f"cannot use this path: {error.strerror}", where=str(error.filename), do="check the path and its rights"
            )
        error = error.__cause__ or error.__context__
    return unbuilt


def _unbuilt(error: Exception) -> VlakitError:
    """A value that a constructor refused, such as trainer.precision=bf61, a key that it lacks, or no constructor."""
    reason = str(error.__cause__ or error).splitlines()[0][:300]
    part = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else ""
    target = re.search(r"target '([\w.]+)'", str(error))
    key = re.search(r"unexpected keyword argument '(\w+)'", reason)
    if target and key:
        name, where = key.group(1), config_file_with(f"{key.group(1)}:") or "command line"
        what = f"{part}.{name} is no key of {target.group(1)}"
        return ConfigError(what, where=where, do=nearest(name, _parameters(target.group(1), reason)))
    if target and "Error locating target" in str(error):
        return ConfigError(
            f"cannot import {target.group(1)}: {_first_cause(error)}",
            where=f"{part}._target_ in {config_file_with(target.group(1)) or 'the configuration'}",
            do="check its spelling; put the folder of a module of your own on PYTHONPATH, or install it",
        )
    return ConfigError(
        f"cannot be built: {reason}",
        where=part or "configuration",
        do="mend that value; VLAKIT_DEBUG=1 shows where it was refused",
    )


def _parameters(target: str, reason: str) -> set[str]:
    """What a class and its bases take, and the dataclass beside it to which it passes its options on."""
    from hydra.utils import get_object

    built = get_object(target)
    refusing = getattr(sys.modules[built.__module__], reason.partition(".")[0], built)
    classes = [kind for each in (built, refusing) for kind in getattr(each, "__mro__", [each]) if kind is not object]
    parameters = [p for kind in classes for p in signature(kind).parameters.values()]
    return {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _first_cause(error: BaseException) -> str:
    """The exception that a chain began with, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


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
