"""Processes of one training end together: where one is killed, the others do not wait for it, and the user is told.

Lightning's launcher looks after its children every five seconds, says nothing at our level of logging, and kills the
first process with them; nobody looks after the children of a first process that was killed, and a collective on GPUs
waits for ten minutes. torchrun and srun have agents of their own that end what is left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import TYPE_CHECKING

from vlakit.errors import RankLost
from vlakit.strategies.callbacks import SaveOnInterrupt

if TYPE_CHECKING:
    from lightning import Trainer

_FIRST = "VLAKIT_FIRST_PROCESS"  # in the environment of those that the first one starts
_EVERY_S, _PATIENCE_S = 0.2, 1.0


@contextmanager
def end_together(trainer: Trainer) -> Iterator[None]:
    """Around what starts Lightning's further processes: a thread in each ends it, with one error and status 1, where
    the first process is gone, or one that the first has started was killed.
    """
    above = os.environ.get(_FIRST)
    os.environ[_FIRST] = str(os.getpid())
    started: list[Popen[bytes]] | None = getattr(trainer.strategy.launcher, "procs", None)
    if above is not None:
        _begin(_end_with_the_first, int(above))
    elif started is not None:
        _begin(_end_with_one_of, trainer)
    try:
        yield
    except Exception:  # of a collective, for one: who knows which process was lost speaks first
        time.sleep(_PATIENCE_S if trainer.world_size > 1 else 0.0)
        raise
    finally:
        del os.environ[_FIRST]


def _begin(watch: Callable[..., None], *words: object) -> None:
    threading.Thread(target=watch, args=words, daemon=True).start()


def _end_with_the_first(pid: int) -> None:
    while os.getppid() == pid:
        time.sleep(_EVERY_S)
    _end("the first process of this training is gone")


def _end_with_one_of(trainer: Trainer) -> None:
    """Asked-for ends, and errors, of which a process tells by itself, are left to it."""
    while True:
        time.sleep(_EVERY_S)
        started: list[Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        for rank, process in enumerate(started, 1):
            number = -(process.poll() or 0)
            if number > 0 and number not in SaveOnInterrupt.SIGNALS:
                for other in started:
                    other.kill()
                _end(f"process {rank} of this training was ended by {signal.Signals(number).name}")


def _end(what: str) -> None:
    do = "dmesg tells whether memory ran out; the same command with ckpt_path=auto goes on from the last checkpoint"
    print(RankLost(what, where=f"process {os.environ.get('LOCAL_RANK', '0')}", do=do), file=sys.stderr, flush=True)
    os._exit(1)
