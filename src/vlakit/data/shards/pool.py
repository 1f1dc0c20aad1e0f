"""`map` over one process or several: results in order, at most two tasks a worker waiting."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any, TypeAlias

from vlakit.errors import VlakitError

Map: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextmanager
def mapping(workers: int) -> Iterator[Map]:
    """A `map` of its own for the block; function and items must be picklable where there is more than one worker.

    Raises VlakitError when a worker dies.
    """
    if workers == 1:
        yield map
        return
    # Spawned: a forked worker would keep the lock of the folder after this process was killed.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent)
    try:
        yield partial(_in_order, pool, 2 * workers)
    except BrokenProcessPool as error:
        what = "a worker process was killed, or found no memory"
        remedy = "give fewer workers: finished shards are kept; a script of your own needs if __name__ == '__main__'"
        raise VlakitError(what, do=remedy) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, n_waiting: int, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= n_waiting:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
