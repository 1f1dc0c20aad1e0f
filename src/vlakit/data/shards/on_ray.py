"""`map` over a Ray cluster: a task an item, begun again on another worker where its own, or its whole node, died.

A task that is run twice writes the same bytes, so nothing tells where it ran. All nodes have vlakit, and see source and
output under the paths that this process sees them under.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import create_connection
from types import ModuleType
from typing import Any

from vlakit.data.formats import needed
from vlakit.data.shards.pool import Function, Map, in_order
from vlakit.errors import Unreachable, VlakitError

RETRIES = 5  # deaths of its worker that a task survives


def mapping() -> AbstractContextManager[Map]:
    """As `pool.mapping`, on the cluster that RAY_ADDRESS names, or that runs on this machine; else on its cores.

    Raises PartMissing at once; Unreachable where no cluster answers.
    """
    return _connected(needed("ray", "ray"))


@contextmanager
def _connected(ray: ModuleType) -> Iterator[Map]:
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster begun here tells nobody
        address = os.environ.get("RAY_ADDRESS", "")
        try:
            _knock(address)
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            what, where = f"no Ray cluster: {' '.join(str(error).split())[:300]}", address or "this machine"
            raise Unreachable(what, where=where, do="check RAY_ADDRESS, or unset it") from error
    try:
        remote = ray.remote(_run).options(num_cpus=1, max_retries=RETRIES)
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield partial(in_order, partial(_Task.begin, ray, remote, Path.cwd()), 2 * cores)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        what = f"a worker of Ray died {RETRIES + 1} times over the same task, or found no memory"
        raise VlakitError(what, do="look at the nodes, give the command again: finished shards are kept") from error
    finally:
        if ours:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError or ValueError where nobody listens at HOST:PORT: Ray itself would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address not in ("", "auto", "local"):
        create_connection((host.strip("[]"), int(port)), timeout=10).close()


@dataclass(frozen=True)
class _Task:
    """A task of Ray in the shape of a Future."""

    ray: ModuleType
    reference: Any

    @classmethod
    def begin(cls, ray: ModuleType, remote: Any, folder: Path, function: Function, item: Any) -> _Task:
        return cls(ray, remote.remote(folder, function, item))

    def result(self) -> Any:
        return self.ray.get(self.reference)

    def cancel(self) -> None:
        self.ray.cancel(self.reference, force=True)


def _run(folder: Path, function: Function, item: Any) -> Any:
    """Call it where the process that asked was, so that relative paths mean the same."""
    with suppress(FileNotFoundError):
        os.chdir(folder)
    return function(item)
