"""The initial states of an evaluation: the first of every task, in turn, so that a partial run is balanced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import zip_longest

from vlakit.errors import ConfigError, InvalidData, UnknownName, nearest
from vlakit.evaluation.suite import InitialState, Suite


def shared_states(suite: Suite, episodes: int, tasks: Sequence[str] = ()) -> list[InitialState]:
    """`episodes` starts in all, split evenly over `tasks` (default: all of the suite). Raises UnknownName, ConfigError.

    The first n of each task: the same for every policy, and a longer evaluation begins with a shorter one's.
    """
    chosen = chosen_tasks(suite, tasks)
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}", where="command line", do="give at least 1")
    shares = [episodes // len(chosen) + (number < episodes % len(chosen)) for number in range(len(chosen))]
    columns = [list(suite.initial_states(task, n)) if n else [] for task, n in zip(chosen, shares, strict=True)]
    for task, n, column in zip(chosen, shares, columns, strict=True):
        if len(column) < n:
            raise ConfigError(
                f"task {task!r} has {len(column)} initial states, {n} are asked for",
                where=f"suite {suite.name}",
                do=f"give at most episodes={len(column) * len(chosen)}",
            )
    states = [state for row in zip_longest(*columns) for state in row if state is not None]
    check_names(states)
    return states


def starts_of(suite: Suite) -> str:
    """Which of its starts a suite offers: "test" where it has one kind only, else "select", "fresh7", "train", ..."""
    return str(getattr(suite, "starts", "test"))


def title_of(suite: str, starts: str) -> str:
    """A suite's name with the starts that were asked for, where neither they nor the name are the usual ones.

    >>> title_of("tabletop_d0", "test"), title_of("tabletop_select", "select"), title_of("tabletop_d0", "fresh7")
    ('tabletop_d0', 'tabletop_select', 'tabletop_d0_fresh7')
    """
    return suite if starts == "test" or suite.endswith(f"_{starts}") else f"{suite}_{starts}"


def chosen_tasks(suite: Suite, tasks: Sequence[str]) -> list[str]:
    """These tasks, each once; all of the suite where none is named. Raises UnknownName."""
    for task in tasks:
        if task not in suite.tasks:
            raise UnknownName(f"suite {suite.name} has no task {task!r}", do=nearest(task, suite.tasks))
    return list(dict.fromkeys(tasks)) or list(suite.tasks)


def check_names(states: Sequence[InitialState]) -> None:
    """Raise InvalidData when two states have one name: names are what makes comparisons paired."""
    seen: set[str] = set()
    for state in states:
        if state.name in seen:
            raise InvalidData(
                f"two initial states are called {state.name!r}", where="suite", do="give each its own name"
            )
        seen.add(state.name)


def fingerprint(states: Sequence[InitialState]) -> str:
    """sha256 (hex, 16 digits) of the states' names and content, in order."""
    content = json.dumps([asdict(state) for state in states], sort_keys=True, default=str)
    return sha256(content.encode()).hexdigest()[:16]
