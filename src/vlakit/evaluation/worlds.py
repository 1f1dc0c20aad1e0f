"""The environments of all slots, stepped in this process or in worker processes; the answers are the same.

An environment that raises costs its own episode only: it is closed, and its slot gets a new one.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeAlias

from vlakit.errors import PartMissing, VlakitError
from vlakit.evaluation.suite import Environment, Suite

Requests: TypeAlias = Mapping[int, tuple[Any, ...]]  # slot -> arguments


@dataclass(frozen=True)
class Failure:
    """Why an episode cannot go on, in one line."""

    cause: str


class WorkerDied(VlakitError):
    """A worker process ended without an answer."""


class Worlds(Protocol):
    """One environment a slot."""

    def call(self, method: str, requests: Requests) -> dict[int, Any]:
        """Call a method of `Environment` in each of these slots; a Failure stands for the answer of what raised.

        What no episode is to blame for is raised: PartMissing, and whatever making an environment raises.
        """
        ...

    def close(self) -> None:
        """Close every environment."""
        ...


class LocalWorlds:
    """Environments in this process, each made on first use."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self._environments: dict[int, Environment] = {}

    def call(self, method: str, requests: Requests) -> dict[int, Any]:
        """See Worlds."""
        return {slot: self._one(slot, method, arguments) for slot, arguments in requests.items()}

    def close(self) -> None:
        """See Worlds."""
        for slot in list(self._environments):
            self._drop(slot)

    def _one(self, slot: int, method: str, arguments: tuple[Any, ...]) -> Any:
        if slot not in self._environments:
            self._environments[slot] = self.suite.environment()
        try:
            return getattr(self._environments[slot], method)(*arguments)
        except PartMissing:
            raise
        except Exception as error:  # whatever a simulator raises
            self._drop(slot)
            return Failure(f"the environment raised {cause_of(error)}")

    def _drop(self, slot: int) -> None:
        with suppress(Exception):  # it is broken already
            self._environments.pop(slot).close()


class WorkerWorlds:
    """The slots dealt out to `workers` new processes; spawned, as a rendering context does not survive a fork."""

    def __init__(self, suite: Suite, workers: int) -> None:
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(workers):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(suite, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def call(self, method: str, requests: Requests) -> dict[int, Any]:
        """See Worlds; all workers work at the same time."""
        shares: dict[int, dict[int, tuple[Any, ...]]] = {}
        for slot, arguments in requests.items():
            shares.setdefault(slot % len(self._pipes), {})[slot] = arguments
        answers: dict[int, Any] = {}
        try:
            for worker, share in shares.items():
                self._pipes[worker].send((method, share))
            received = [self._pipes[worker].recv() for worker in shares]
        except (EOFError, OSError) as error:
            raise WorkerDied(
                "a worker process ended without an answer",
                where=f"{method} in one of {len(self._pipes)} workers",
                do="give the same command again, which goes on where this one ended; workers=0 shows what is wrong",
            ) from error
        for answer in received:
            if isinstance(answer, Exception):
                raise answer
            answers.update(answer)
        return {slot: answers[slot] for slot in requests}

    def close(self) -> None:
        """See Worlds."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(timeout=10)
            if process.is_alive():
                process.terminate()


def worlds_of(suite: Suite, workers: int) -> Worlds:
    """Worlds in this process, or in `workers` others."""
    return WorkerWorlds(suite, workers) if workers > 0 else LocalWorlds(suite)


def cause_of(error: BaseException) -> str:
    """An error in one line.

    >>> cause_of(ValueError("no such pose"))
    'ValueError: no such pose'
    """
    text = error.what if isinstance(error, VlakitError) else str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


def _serve(suite: Suite, pipe: Connection) -> None:
    """Answer calls until the other end says None or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    worlds = LocalWorlds(suite)
    with suppress(EOFError, OSError):
        while (message := pipe.recv()) is not None:
            try:
                answer: Any = worlds.call(*message)
            except Exception as error:
                answer = error if isinstance(error, VlakitError) else VlakitError(cause_of(error), where="worker")
            pipe.send(answer)
    worlds.close()
