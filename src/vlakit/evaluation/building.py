"""A suite from plain settings. Its class is chosen by conf/suite alone, never by a file that came from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from vlakit.errors import ConfigError, UnknownName, nearest
from vlakit.evaluation.suite import Suite

TARGET = "_target_"


def build_suite(settings: Mapping[str, Any]) -> Suite:
    """The suite of a file of conf/suite: its class, `_target_`, called with the other settings.

    Raises UnknownName where there is no such class, ConfigError for values that it refuses, and what it raises itself.
    """
    target = str(settings[TARGET])
    values = {key: value for key, value in settings.items() if key != TARGET}
    try:
        return _class_of(target)(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the suite cannot be built: {error}", where=target, do="mend that value") from error


def as_recorded(settings: Mapping[str, Any], recorded: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of conf/suite with the values that a passport or a header records.

    A recorded class is not taken over: it must be called as ours (its module may have moved since). Raises ConfigError
    for another, for one within a value, and for a key that the suite does not have.
    """
    target = str(settings[TARGET])
    values = {key: value for key, value in recorded.items() if key != TARGET}
    foreign = [*_targets(values)]
    if _name(str(recorded.get(TARGET, target))) != _name(target):
        foreign.append(str(recorded[TARGET]))
    if foreign:
        raise ConfigError(
            f"the file names code of its own: {TARGET} {foreign[0]}",
            where=where,
            do=f"take it out: a suite is what its file of conf/suite says, here {target}",
        )
    known = {*settings, *signature(_class_of(target)).parameters}
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no setting of the suite", where=where, do=nearest(unknown[0], known))
    return {**settings, **values}


def _class_of(target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownName(
            f"cannot import the suite {target!r}: {error}", where=f"{TARGET} in conf/suite", do="check its spelling"
        ) from error


def _name(target: str) -> str:
    return target.rpartition(".")[2]


def _targets(tree: Any) -> Iterator[str]:
    """Every `_target_` in plain values."""
    if isinstance(tree, Mapping):
        yield from (str(value) for key, value in tree.items() if key == TARGET)
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from _targets(value)
