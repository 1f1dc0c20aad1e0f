"""`map` over one process or several, here or elsewhere: results in order, at most two tasks a worker waiting.

Where tasks run is a word of `workers=` and a module with `mapping()`; adding one is a file and its line in ELSEWHERE.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from multiprocessing import get_context, parent_process
from typing import Any, Protocol, TypeAlias

from vlakit.errors import ConfigError, VlakitError, nearest

Function: TypeAlias = Callable[[Any], Any]
Map: TypeAlias = Callable[[Function, Iterable[Any]], Iterator[Any]]
ELSEWHERE = {"ray": "vlakit.data.shards.on_ray"}  # workers=NAME -> the module whose `mapping()` is this one's


class Task(Protocol):
    """What was submitted: a Future, or like one."""

    def result(self) -> Any:
        """Wait for it; raises what it raised."""
        ...

    def cancel(self) -> object:
        """It is wanted no more."""
        ...


def mapping(workers: int | str) -> AbstractContextManager[Map]:
    """A `map` of its own for the block; function and items must be picklable where there is more than one worker.

    workers: processes of this machine, or a name of ELSEWHERE. Raises ConfigError and PartMissing at once, VlakitError
    in the block when a worker dies for good.
    """
    if isinstance(workers, str) and workers in ELSEWHERE:
        return import_module(ELSEWHERE[workers]).mapping()
    if isinstance(workers, str) or workers < 1:
        remedy = f"give 1 or more processes, or a name: {nearest(str(workers), ELSEWHERE)}"
        raise ConfigError(f"workers is {workers}", where="conversion", do=remedy)
    return _processes(workers)


def in_order(submit: Callable[..., Task], n_waiting: int, function: Function, items: Iterable[Any]) -> Any:
    """Iterate over the results of `function`, submitting up to `n_waiting` items ahead; the rest goes on an error."""
    waiting: deque[Task] = deque()
    try:
        for item in items:
            waiting.append(submit(function, item))
            if len(waiting) >= n_waiting:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for task in waiting:
            task.cancel()


@contextmanager
def _processes(workers: int) -> Iterator[Map]:
    if workers == 1:
        yield map
        return
    # Spawned: a forked worker would keep the lock of the folder after this process was killed.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent)
    try:
        yield partial(in_order, pool.submit, 2 * workers)
    except BrokenProcessPool as error:
        what = "a worker process was killed, or found no memory"
        remedy = "give fewer workers: finished shards are kept; a script of your own needs if __name__ == '__main__'"
        raise VlakitError(what, do=remedy) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
