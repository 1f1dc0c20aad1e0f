"""Suites by name: one file of conf/suite each, whose `_target_` is built with the words `suite.KEY=VALUE`.

A suite for any robot, such as tabletop, takes `embodiment=NAME`; `suite=tabletop_NAME` says the same in one word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from vlakit.cli.configuration import compose_config, parse_overrides, to_plain
from vlakit.cli.suite_names import on_robots, suite_names
from vlakit.cli.targets import own_targets
from vlakit.configs import config_file, config_names, shown, shown_folders
from vlakit.errors import ConfigError, UnknownName, nearest

EMBODIMENT = "suite.embodiment="


def split_words(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words for the verb, and those that change the suite: `suite.KEY=VALUE` and `embodiment=NAME`."""
    words = [f"suite.{word}" if word.startswith("embodiment=") else word for word in overrides]
    inner = [word for word in words if word.lstrip("+~").startswith("suite.")]
    return [word for word in words if word not in inner], inner


def suite_settings(name: str, words: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values of suite/NAME.yaml with the words. Raises UnknownName with the nearest names, ConfigError."""
    if name not in suite_names():
        where = shown_folders("suite")
        raise UnknownName(f"no suite called {name!r}", where=where, do=nearest(str(name), suite_names()))
    file, robot = (name, "") if name in config_names("suite") else on_robots()[name]
    chosen = next((word.removeprefix(EMBODIMENT) for word in reversed(words) if word.startswith(EMBODIMENT)), robot)
    named = [f"{EMBODIMENT}{chosen}", f"suite.name={file}_{chosen}"] if chosen else []
    settings = to_plain(compose_config(f"suite/{file}", [*named, *words])).get("suite", {})
    if "_target_" not in settings:
        where = shown(config_file("suite", file))
        raise ConfigError("the suite's file has no _target_", where=where, do="add _target_:")
    return settings


def recorded_settings(name: str, recorded: Mapping[str, Any], words: Sequence[str], where: str) -> dict[str, Any]:
    """The settings of a suite as a file records them, but for those that words set. Raises ConfigError, UnknownName."""
    settings = as_recorded(suite_settings(name), recorded, where)
    chosen = suite_settings(name, words)
    keys = {override.key_or_group.split(".")[1] for override in parse_overrides(words)}
    return {**settings, **{key: chosen[key] for key in keys if key in chosen}}


def as_recorded(settings: Mapping[str, Any], recorded: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of conf/suite with a file's values. Raises ConfigError for code or a key that is not the suite's."""
    from vlakit.evaluation.building import class_of

    target = str(settings["_target_"])
    values = own_targets(recorded, where, {target.rpartition(".")[2]: target})
    known = {*settings, *signature(class_of(target)).parameters}
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no setting of the suite", where=where, do=nearest(unknown[0], known))
    return {**settings, **values}
